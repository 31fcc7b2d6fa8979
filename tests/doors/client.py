"""A raw HTTP client that sends exactly the bytes it is given."""

import asyncio
import socket
from typing import NamedTuple, Self

PATIENCE = 5.0  # seconds; a test that waits longer has failed


class Answer(NamedTuple):
    """A response, framing taken off."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes


class Client:
    """One connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.loop = asyncio.get_running_loop()
        self.buffer = b""

    @classmethod
    async def connect(cls, address: tuple[str, int], *, receive_buffer: int = 0) -> Self:
        sock = socket.socket()
        sock.setblocking(False)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            await asyncio.get_running_loop().sock_connect(sock, address)
        except OSError:
            sock.close()
            raise
        return cls(sock)

    def close(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        """Close with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sock.close()

    async def send(self, data: bytes) -> None:
        async with asyncio.timeout(PATIENCE):
            await self.loop.sock_sendall(self.sock, data)

    def finish(self) -> None:
        """Send FIN; reading goes on."""
        self.sock.shutdown(socket.SHUT_WR)

    async def receive(self, patience: float = PATIENCE) -> bytes:
        """What comes next; empty when the door has closed. Raises TimeoutError."""
        async with asyncio.timeout(patience):
            return await self.loop.sock_recv(self.sock, 1 << 20)

    async def read_all(self) -> bytes:
        """Everything until the door closes."""
        while True:
            try:
                data = await self.receive()
            except ConnectionResetError:
                data = b""
            if not data:
                everything, self.buffer = self.buffer, b""
                return everything
            self.buffer += data

    async def _need(self, size: int) -> bytes:
        while len(self.buffer) < size:
            data = await self.receive()
            if not data:
                raise EOFError(f"closed after {self.buffer!r}")
            self.buffer += data
        taken, self.buffer = self.buffer[:size], self.buffer[size:]
        return taken

    async def _until(self, end: bytes) -> bytes:
        while end not in self.buffer:
            data = await self.receive()
            if not data:
                raise EOFError(f"closed after {self.buffer!r}")
            self.buffer += data
        return await self._need(self.buffer.index(end) + len(end))

    async def answer(self, *, to_head: bool = False) -> Answer:
        """Read one response. Raises EOFError if it is cut off."""
        lines = (await self._until(b"\r\n\r\n")).split(b"\r\n")
        fields = (line.split(b": ", 1) for line in lines[1:-2])
        headers = {name.lower(): value for name, value in fields}
        status = int(lines[0].split()[1])
        if to_head or status in {100, 204, 304}:
            body = b""
        elif headers.get(b"transfer-encoding") == b"chunked":
            body = await self._chunks()
        elif b"content-length" in headers:
            body = await self._need(int(headers[b"content-length"]))
        else:
            body = await self.read_all()
        return Answer(status, headers, body)

    async def _chunks(self) -> bytes:
        body = b""
        while size := int(await self._until(b"\r\n"), 16):
            body += await self._need(size)
            assert await self._need(2) == b"\r\n"
        assert await self._until(b"\r\n") == b"\r\n"
        return body

    async def get(self, path: str = "/", *, headers: bytes = b"") -> Answer:
        await self.send(b"GET " + path.encode() + b" HTTP/1.1\r\nHost: a\r\n" + headers + b"\r\n")
        return await self.answer()
