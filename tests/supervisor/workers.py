"""A service of several workers, and requests to the one of them that a test wants."""

import os
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path

from tests.attacks.watch import tcp_sockets
from tests.crash.client import Client
from tests.crash.mortal import Mortal
from tests.daemon import Response, Supervised, basic


class Service(Mortal, Supervised):
    """Two workers unless told otherwise, with a configuration file that tests may write anew."""

    def __init__(
        self, directory: Path, environment: Mapping[str, str] | None = None, *, workers: int = 2
    ) -> None:
        super().__init__(directory, {"CYPD_SERVER_WORKERS": str(workers), **(environment or {})})
        self.count = workers
        self._by: int | None = None
        self.file = directory / "cypd.toml"
        self.file.touch()
        self.command = (*Supervised.command, "--config", str(self.file))

    def start(self, deadline: float = 120) -> None:
        """Return when all workers serve."""
        super().start(deadline)
        self.wait_until_complete(deadline)

    def wait_until_complete(self, deadline: float = 120) -> list[int]:
        """Return the workers once there are as many as there should be, and all answer."""
        end = time.monotonic() + deadline
        while True:
            pids = self.workers()
            if len(pids) == self.count and all(self.listens(pid) for pid in pids):
                return pids
            assert time.monotonic() < end, f"workers: {pids}{self._tail()}"
            time.sleep(0.05)

    def listens(self, pid: int) -> bool:
        """Tell whether a worker accepts connections: it has an epoll instance that says so."""
        with suppress(OSError):
            folder = Path(f"/proc/{pid}")
            held = {
                it.name
                for it in (folder / "fd").iterdir()
                if it.readlink().name == f"socket:[{self._inode()}]"
            }
            for it in (folder / "fdinfo").iterdir():
                for line in it.read_text().splitlines():
                    if line.startswith("tfd:") and line.split()[1] in held:
                        return True
        return False

    def _inode(self) -> str:
        return next((it.inode for it in tcp_sockets() if it.listens and it.port == self.port), "")

    def hang_up(self) -> None:
        """Send SIGHUP to the supervisor."""
        os.kill(self.pid, signal.SIGHUP)

    def swap(self, deadline: float = 120) -> list[int]:
        """Send SIGHUP; return the new workers when those of before are gone."""
        before = set(self.workers())
        self.hang_up()
        end = time.monotonic() + deadline
        while before & set(self.workers()):
            assert time.monotonic() < end, f"the workers of before stay{self._tail()}"
            time.sleep(0.05)
        return self.wait_until_complete(deadline)

    @contextmanager
    def only(self, pid: int) -> Iterator[None]:
        """Have one worker accept whatever comes: the others stand still."""
        others = [it for it in self.workers() if it != pid]
        for other in others:
            os.kill(other, signal.SIGSTOP)
        try:
            yield
        finally:
            for other in others:
                os.kill(other, signal.SIGCONT)

    @contextmanager
    def client_of(self, pid: int) -> Iterator[Client]:
        """Return a client whose connection is with one worker."""
        with Client(self) as client:
            with self.only(pid):
                assert client.send("GET", "/healthz").status == 200
            yield client

    @contextmanager
    def by(self, pid: int) -> Iterator[None]:
        """Have one worker answer each ``request`` of the block."""
        self._by = pid
        try:
            yield
        finally:
            self._by = None

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterable[bytes] | None = None,
        auth: bool = True,
        timeout: float = 30,
    ) -> Response:
        """Send a request as ``Daemon`` does."""
        if self._by is None:
            return super().request(
                method, path, headers=headers, body=body, auth=auth, timeout=timeout
            )
        fields = {"Authorization": basic(self.user, self.password)} if auth else {}
        connection = HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            with self.only(self._by):
                connection.request("GET", "/healthz")
                assert connection.getresponse().read() == b"alive\n"
            connection.request(method, path, body, fields | dict(headers or {}))
            response = connection.getresponse()
            return Response(response.status, response.headers, response.read())
        finally:
            connection.close()
