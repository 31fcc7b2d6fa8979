"""A client that keeps its connection, as registry clients do."""

from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPConnection
from types import TracebackType
from typing import Self

from tests.daemon import Daemon, Response, basic


class Client:
    """Requests of the administrator on one connection."""

    def __init__(self, daemon: Daemon, timeout: float = 30) -> None:
        self._connection = HTTPConnection("127.0.0.1", daemon.port, timeout=timeout)
        self._authorization = {"Authorization": basic(daemon.user, daemon.password)}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def connect(self) -> None:
        """Connect, and send nothing yet."""
        self._connection.connect()

    def close(self) -> None:
        """Go away."""
        self._connection.close()

    def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Send a request and return the answer, also one that came before the body's end."""
        fields = self._authorization | dict(headers or {})
        if self._connection.sock is None:
            self._connection.connect()  # without one there is no answer to wait for
        with suppress(BrokenPipeError, ConnectionResetError):
            self._connection.request(method, path, body, fields)
        response = self._connection.getresponse()
        return Response(response.status, response.headers, response.read())

    def begin(self, method: str, path: str, body: bytes, *, of: int) -> None:
        """Send a request's head and the first bytes of its body, which has ``of`` bytes."""
        self._connection.putrequest(method, path)
        for name, value in (*self._authorization.items(), ("Content-Length", str(of))):
            self._connection.putheader(name, value)
        self._connection.endheaders()
        self._connection.send(body)

    def finish(self, body: bytes) -> Response:
        """Send the rest of what ``begin`` began and return the answer."""
        self._connection.send(body)
        response = self._connection.getresponse()
        return Response(response.status, response.headers, response.read())

    def push(self, repository: str, digest: str, content: bytes) -> int:
        """Push a blob in one request and return the status."""
        path = f"/v2/{repository}/blobs/uploads/?digest={digest}"
        return self.send("POST", path, content).status

    def open_session(self, repository: str) -> str:
        """Open an upload session and return its location."""
        response = self.send("POST", f"/v2/{repository}/blobs/uploads/")

        assert response.status == 202
        return response.headers["Location"]
