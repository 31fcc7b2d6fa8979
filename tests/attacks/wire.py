"""Raw requests over one connection: exactly the bytes of the test, and answers read by framing."""

import socket
import threading
from collections.abc import Iterable
from contextlib import suppress
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self, cast

from tests.daemon import PASSWORD, USER, basic

AUTHORIZATION = basic(USER, PASSWORD)
PATIENCE = 20.0  # seconds; an answer that takes longer counts as a stuck connection
Fields = Iterable[tuple[str, str]]


class Answer(NamedTuple):
    """A response, framing taken off."""

    status: int
    headers: dict[str, str]
    body: bytes
    head: bytes


class Closed(Exception):
    """The connection ended where an answer, or the rest of one, was due."""


class Wire:
    """One connection to the daemon."""

    def __init__(self, port: int, *, receive_buffer: int = 0, address: str = "") -> None:
        self.socket = socket.socket()
        self.socket.settimeout(PATIENCE)
        try:
            if receive_buffer:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            if address:
                self.socket.bind((address, 0))
            self.socket.connect(("127.0.0.1", port))
        except OSError:  # the daemon may reset a connection before connect(2) returns
            self.socket.close()
            raise
        self._file = cast("BinaryIO", self.socket.makefile("rb"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close both directions; what is still being sent ends with it."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self._file.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes as they are; that the daemon has closed shows when reading."""
        with suppress(OSError):
            self.socket.sendall(data)

    def send_meanwhile(self, data: bytes) -> threading.Thread:
        """Send in a thread, for more than the buffers between us hold."""
        thread = threading.Thread(target=self.send, args=(data,), daemon=True)
        thread.start()
        return thread

    def finish(self) -> None:
        """Say that no more will come; reading goes on."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def answer(self, method: str = "GET") -> Answer:
        """Read one answer; raise ``Closed`` where the connection ends before it does."""
        head = self.head()
        lines = head.decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ")[1])
        headers: dict[str, str] = {}
        for line in filter(None, lines[1:]):
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        return Answer(status, headers, self._body(method, status, headers), head)

    def head(self) -> bytes:
        """Read the head of an answer."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self._line()
        return head

    def take(self, size: int) -> bytes:
        """Read exactly so many bytes."""
        data = self.up_to(size)
        if len(data) < size:
            raise Closed(f"{len(data)} of {size} bytes came")
        return data

    def up_to(self, size: int) -> bytes:
        """Read so many bytes, or what comes before the end."""
        pieces = []
        try:
            while size and (piece := self._file.read(min(size, 1 << 20))):
                pieces.append(piece)
                size -= len(piece)
        except ConnectionResetError:
            pass
        return b"".join(pieces)

    def rest(self) -> bytes:
        """Read all that comes before the daemon closes."""
        return self.up_to(1 << 40)

    def _line(self) -> bytes:
        try:
            line = self._file.readline(1 << 20)
        except ConnectionResetError:
            line = b""
        if not line.endswith(b"\n"):
            raise Closed(f"after {line!r}")
        return line

    def _body(self, method: str, status: int, headers: dict[str, str]) -> bytes:
        if method == "HEAD" or status < 200 or status in (204, 304):
            return b""
        if "content-length" in headers:
            return self.take(int(headers["content-length"]))
        if headers.get("transfer-encoding") == "chunked":
            return self._chunks()
        return self.rest()

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self._line(), 16):
            body += self.take(size)
            self._line()
        self._line()
        return body


def request(
    method: str,
    target: str,
    body: bytes | None = None,
    fields: Fields = (),
    *,
    auth: bool = True,
) -> bytes:
    """Return a request's bytes; a Content-Length comes with a body unless ``fields`` frame it."""
    given = [("Host", "registry"), *fields]
    if auth and not any(name == "Authorization" for name, _ in given):
        given.append(("Authorization", AUTHORIZATION))
    framed = {"Content-Length", "Transfer-Encoding"} & {name for name, _ in given}
    if body is not None and not framed:
        given.append(("Content-Length", str(len(body))))
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in given)]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b"")


def chunked(body: bytes, size: int = 65536) -> bytes:
    """Return a body in the chunked coding, its last chunk included."""
    pieces = (body[at : at + size] for at in range(0, len(body), size))
    return b"".join(b"%x\r\n%b\r\n" % (len(it), it) for it in pieces) + b"0\r\n\r\n"


def ask(
    port: int,
    method: str,
    target: str,
    body: bytes | None = None,
    fields: Fields = (),
    *,
    auth: bool = True,
) -> Answer:
    """Send one request on a connection of its own."""
    with Wire(port) as wire:
        wire.send_meanwhile(request(method, target, body, fields, auth=auth))
        return wire.answer(method)
