"""An HTTP/1.1 client that costs little: one blocking socket, and bodies it never looks at."""

import base64
import mmap
import socket
import ssl
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

Body = Sequence[bytes | memoryview]

PATIENCE = 60
IOV_MAX = 1024  # buffers one sendmsg(2) takes
CHUNK = 32 * 1024  # what Go's HTTP client, and so docker push, puts into one chunk
NOWHERE = mmap.mmap(-1, 4 << 20)  # stands for a buffer and is never written to


class Answer(NamedTuple):
    """The head of a response and its body, if it was asked for."""

    status: int
    fields: dict[str, str]
    body: bytes = b""


class Connection:
    """A connection kept alive. Its credentials, if any, go with every request.

    ``window`` bounds how far the server may send ahead of what was received, ``patience`` the
    seconds that it has for taking what is sent at once, or for giving the next byte.
    """

    def __init__(
        self,
        port: int,
        credentials: str | None = None,
        window: int = 0,
        address: str = "",
        *,
        patience: int = PATIENCE,
    ) -> None:
        self.socket = socket.socket()
        if address:  # of the client, on the loopback
            self.socket.bind((address, 0))
        if window:  # to be known before the handshake
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Time limits of the kernel's: those of Python need a poll(2) before every call.
        limit = struct.pack("ll", patience, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        self._always = f"Host: 127.0.0.1:{port}\r\n"
        if credentials is not None:
            basic = base64.b64encode(credentials.encode()).decode()
            self._always += f"Authorization: Basic {basic}\r\n"

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
        """Hang up."""
        self.socket.close()

    def request(self, method: str, path: str, fields: str = "", body: Body = ()) -> Answer:
        """Send a request, return its answer. ``fields`` end with CR LF each and frame the body."""
        self.send(method, path, fields, body)
        answer, body_start = self._receive_head()
        pieces = [body_start]
        missing = int(answer.fields.get("content-length", 0)) - len(body_start)
        while missing > 0:
            pieces.append(self._receive(missing))
            missing -= len(pieces[-1])
        return answer._replace(body=b"".join(pieces))

    def head(self, path: str) -> int:
        """Ask with HEAD; return the status."""
        self.send("HEAD", path)
        return self._receive_head()[0].status

    def discard(self, path: str) -> int:
        """GET a path, let the kernel drop the body, return its size."""
        self.send("GET", path)
        answer, body_start = self._receive_head()
        if answer.status != 200:
            raise ConnectionError(f"GET {path}: {answer.status}")
        size = int(answer.fields["content-length"])
        missing = size - len(body_start)
        while missing > 0:
            # tcp(7): MSG_TRUNC discards the bytes instead of copying them
            got = self.socket.recv_into(NOWHERE, min(missing, len(NOWHERE)), socket.MSG_TRUNC)
            if not got:
                raise ConnectionError(f"GET {path}: {missing} of {size} bytes are missing")
            missing -= got
        return size

    def send(self, method: str, path: str, fields: str = "", body: Body = ()) -> None:
        """Send a request and leave its answer where it is."""
        head = f"{method} {path} HTTP/1.1\r\n{self._always}{fields}\r\n".encode()
        for parts in _batches([head, *body], IOV_MAX):
            if self.socket.sendmsg(parts) != sum(map(len, parts)):
                raise ConnectionError(f"{method} {path}: the server stopped reading")

    def _receive_head(self) -> tuple[Answer, bytes]:
        """Return the head of the next response and what came of the body along with it."""
        data = b""
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self._receive(16 * 1024)
        status_line, *lines = data[:end].decode("latin-1").split("\r\n")
        fields = {}
        for line in lines:
            name, _, value = line.partition(":")
            fields[name.lower()] = value.strip()
        return Answer(int(status_line.split(" ", 2)[1]), fields), data[end + 4 :]

    def _receive(self, limit: int) -> bytes:
        data = self.socket.recv(limit)
        if not data:
            raise ConnectionError("the server hung up")
        return data


class TlsConnection(Connection):
    """The same inside TLS; ``authority`` (PEM) has signed the server's certificate."""

    def __init__(self, port: int, authority: Path, window: int = 0) -> None:
        super().__init__(port, window=window)
        context = ssl.create_default_context(cafile=authority)
        self._tls = context.wrap_socket(self.socket, server_hostname="127.0.0.1")
        self.socket = self._tls
        self._buffer = bytearray(256 * 1024)

    @property
    def cipher(self) -> str:
        """What both sides have agreed on."""
        return f"{self._tls.version()} {(self._tls.cipher() or ('none',))[0]}"

    def discard(self, path: str) -> int:
        """GET a path, decrypt the body and look at none of it, return its size."""
        self.send("GET", path)
        answer, body_start = self._receive_head()
        if answer.status != 200:
            raise ConnectionError(f"GET {path}: {answer.status}")
        size = int(answer.fields["content-length"])
        missing = size - len(body_start)
        while missing > 0:
            got = self._tls.recv_into(self._buffer)
            if not got:
                raise ConnectionError(f"GET {path}: {missing} of {size} bytes are missing")
            missing -= got
        return size

    def send(self, method: str, path: str, fields: str = "", body: Body = ()) -> None:
        """Send a request and leave its answer where it is."""
        head = f"{method} {path} HTTP/1.1\r\n{self._always}{fields}\r\n".encode()
        self._tls.sendall(b"".join((head, *body)))


def in_chunks(content: memoryview) -> Iterator[bytes | memoryview]:
    """Yield a body in chunked transfer coding (RFC 9112 7.1), as docker push sends it."""
    for start in range(0, len(content), CHUNK):
        chunk = content[start : start + CHUNK]
        yield b"%x\r\n" % len(chunk)
        yield chunk
        yield b"\r\n"
    yield b"0\r\n\r\n"


def _batches(parts: Body, size: int) -> Iterable[Body]:
    return (parts[start : start + size] for start in range(0, len(parts), size))
