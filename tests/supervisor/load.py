"""Clients that go on while the service is restarted or its workers are killed."""

import asyncio
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection

from cypd.oci.digest import Digest
from tests.crash.oracle import resumed_at
from tests.crash.pusher import GONE
from tests.daemon import Daemon, Response, basic


class Load:
    """Requests at a fixed rate, each on a connection of its own, however long the answers take."""

    def __init__(self, port: int, path: str, body: bytes, *, per_second: int) -> None:
        self.outcomes: Counter[str] = Counter()
        self.sent = 0
        self._port = port
        self._path = path
        self._body = body
        self._rate = per_second
        self._stopped = False

    def stop(self) -> None:
        """Send no more."""
        self._stopped = True

    async def run(self) -> None:
        """Send until stopped; return when all are answered."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        async with asyncio.TaskGroup() as group:
            while not self._stopped:
                group.create_task(self._send())
                self.sent += 1
                await asyncio.sleep(max(0, start + self.sent / self._rate - loop.time()))

    async def _send(self) -> None:
        try:
            async with asyncio.timeout(30):
                outcome = await self._ask()
        except (OSError, TimeoutError) as error:
            outcome = type(error).__name__
        self.outcomes[outcome] += 1

    async def _ask(self) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(f"GET {self._path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
            head, _, body = (await reader.read(len(self._body) + 4096)).partition(b"\r\n\r\n")
        finally:
            writer.close()
        status = head[9:12].decode()
        return status if body == self._body else f"{status}, cut"


class Uploader(threading.Thread):
    """Uploads slowly, one blob after the other, and goes on where it was cut off."""

    def __init__(self, daemon: Daemon, repository: str, size: int, seconds: float) -> None:
        """``seconds``: how long a blob of ``size`` bytes takes if nothing happens."""
        super().__init__(daemon=True)
        self.statuses: Counter[int] = Counter()
        self.done = self.cuts = 0
        self.error: BaseException | None = None
        self._daemon = daemon
        self._repository = repository
        self._size = size
        self._seconds = seconds
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Finish the last one; raise what went wrong."""
        self._stopped.set()
        self.join()
        if self.error is not None:
            raise self.error

    def run(self) -> None:
        try:
            while not self._stopped.is_set():
                self._upload(secrets.token_bytes(self._size))
                self.done += 1
        except BaseException as error:  # noqa: BLE001 (told by stop)
            self.error = error

    def _upload(self, content: bytes) -> None:
        location = self._ask("POST", f"/v2/{self._repository}/blobs/uploads/").headers["Location"]
        digest = Digest.of(content)
        offset = 0
        while offset < len(content):
            offset = self._continue(location, content, offset)
        while self._put(location, digest) != 201:
            time.sleep(0.05)
        blob = self._ask("GET", f"/v2/{self._repository}/blobs/{digest}")
        assert (blob.status, blob.body == content) == (200, True)

    def _continue(self, location: str, content: bytes, offset: int) -> int:
        window = {"Content-Range": f"{offset}-{len(content) - 1}"}
        try:
            sent = self._ask("PATCH", location, content[offset:], window)
        except GONE:
            self.cuts += 1
        else:
            if sent.status == 202:
                return len(content)
            assert sent.status == 416, sent  # the worker that was cut off has not let go yet
            time.sleep(0.05)
        status = self._ask("GET", location)
        assert status.status == 204, status
        return resumed_at(status.headers["Range"])

    def _put(self, location: str, digest: Digest) -> int:
        try:
            status = self._ask("PUT", f"{location}?digest={digest}").status
        except GONE:
            return 0
        if status == 404:  # it was done, and the answer was cut off
            return 201
        assert status in (201, 416)
        return status

    def _ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Response:
        """Send a request on a connection of its own; raise what ``GONE`` names if it is cut."""
        fields = {"Authorization": basic(self._daemon.user, self._daemon.password)}
        fields |= {"Content-Length": str(len(body)), **(headers or {})}
        connection = HTTPConnection("127.0.0.1", self._daemon.port, timeout=60)
        try:
            connection.request(method, path, self._slowly(body), fields)
            response = connection.getresponse()
            self.statuses[response.status] += 1
            return Response(response.status, response.headers, response.read())
        finally:
            connection.close()

    def _slowly(self, body: bytes) -> Iterator[bytes]:
        step = 1 << 16
        for start in range(0, len(body), step):
            yield body[start : start + step]
            time.sleep(self._seconds * step / self._size)
