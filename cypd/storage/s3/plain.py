"""GET over plain HTTP/1.1, for the bytes of blobs: straight from the socket into what is sent on.

A general client copies what it reads twice more, which is a fifth of what a pull costs. This one
reads answers that say their length, as S3 has it for objects, and nothing else.
"""

import asyncio
import contextlib
import re
import socket
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from urllib.parse import urlsplit

_HEAD_BYTES = 32 << 10
_READ_BYTES = 256 << 10
# Nobody is woken for less, as long as more is to come (socket(7), SO_RCVLOWAT): a machine with much
# to do would take a blob in crumbs, and each costs what a large piece does.
_WORTHWHILE_BYTES = 128 << 10
_IDLE_CONNECTIONS = 32
# A store that is always faster than the client must not keep all others from their turn.
_TURN_BYTES = 2 << 20
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})[ \r]")
_FIELD = re.compile(rb"\r\n([!-9;-~]+):[ \t]*([^\r\n]*)")


class UnknownLength(ConnectionError):
    """An answer that does not say how long it is."""


class PlainAnswer:
    """What the store says, and then the body."""

    def __init__(self, connection: "_Connection", head: bytes, rest: bytes) -> None:
        status = _STATUS.match(head)
        fields = {name.lower(): value.strip() for name, value in _FIELD.findall(head)}
        length = fields.get(b"content-length", b"")
        if not status or not length.isdigit() or b"transfer-encoding" in fields:
            raise UnknownLength
        self.status = int(status[1])
        self.is_last = fields.get(b"connection", b"").lower() == b"close"
        self.left = int(length)
        self._connection = connection
        self._rest = rest

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield the body as it comes."""
        turn = 0
        self._connection.expect(self.left - len(self._rest))
        while self.left:
            piece, self._rest = self._rest or await self._connection.receive(_READ_BYTES), b""
            if not piece:
                raise ConnectionError("the store closed the connection")
            self.left -= len(piece)
            self._connection.expect(self.left)
            yield piece
            turn += len(piece)
            if turn > _TURN_BYTES:
                turn = 0
                await asyncio.sleep(0)


class PlainClient:
    """Connections to one store, which are kept for a while."""

    def __init__(self, *, connect_timeout: float, read_timeout: float) -> None:
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout
        self._idle: deque[_Connection] = deque()

    def close(self) -> None:
        """Close the connections that nobody uses."""
        while self._idle:
            self._idle.pop().close()

    @contextlib.asynccontextmanager
    async def get(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[PlainAnswer]:
        """Send a request and give the answer; raises OSError for all that goes wrong."""
        parts = urlsplit(url)
        fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        request = f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\n{fields}\r\n"
        connection, answer = await self._ask(parts.hostname or "", parts.port, request.encode())
        try:
            yield answer
        finally:
            is_done = not answer.left and not answer.is_last
            if is_done and len(self._idle) < _IDLE_CONNECTIONS:
                self._idle.append(connection)
            else:
                connection.close()

    async def _ask(
        self, host: str, port: int | None, request: bytes
    ) -> "tuple[_Connection, PlainAnswer]":
        while self._idle:
            connection = self._idle.pop()
            # The store may have closed it meanwhile; then nothing was done, and a new one is made.
            with contextlib.suppress(ConnectionError):
                return connection, await connection.ask(request)
        connection = await self._connect(host, port or 80)
        return connection, await connection.ask(request)

    async def _connect(self, host: str, port: int) -> "_Connection":
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._connect_timeout):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            for number, (family, kind, protocol, _, address) in enumerate(found, start=1):
                connection = _Connection(socket.socket(family, kind, protocol), self._read_timeout)
                try:
                    await loop.sock_connect(connection.socket, address)
                except BaseException as error:
                    connection.close()
                    if number == len(found) or not isinstance(error, OSError):
                        raise
                else:
                    return connection
        raise OSError(f"{host} has no address")


class _Connection:
    def __init__(self, connected: socket.socket, read_timeout: float) -> None:
        connected.setblocking(False)
        self.socket = connected
        self._read_timeout = read_timeout
        self._least = 1

    def close(self) -> None:
        self.socket.close()

    async def ask(self, request: bytes) -> PlainAnswer:
        """Send a request and return what is answered; the connection is closed if that fails."""
        try:
            await asyncio.get_running_loop().sock_sendall(self.socket, request)
            return PlainAnswer(self, *await self._head())
        except BaseException:
            self.close()
            raise

    async def _head(self) -> tuple[bytes, bytes]:
        """Return the header, and what came with it of the body."""
        received = b""
        while (end := received.find(b"\r\n\r\n")) < 0:
            piece = await self.receive(_HEAD_BYTES)
            received += piece
            if not piece or len(received) > 2 * _HEAD_BYTES:
                raise ConnectionError("an answer without an end of its header")
        return received[:end], received[end + 4 :]

    def expect(self, left: int) -> None:
        """Be woken for as much as is worth it, of ``left`` bytes that are to come."""
        least = _WORTHWHILE_BYTES if left >= _WORTHWHILE_BYTES else 1
        if least != self._least:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, least)
            self._least = least

    async def receive(self, count: int) -> bytes:
        """Return what is there, or what comes next; ``b""`` at the end; raise TimeoutError."""
        is_late = False
        while True:
            try:
                return self.socket.recv(count)
            except BlockingIOError:
                if is_late:
                    raise TimeoutError from None
                is_late = await self._wait()

    async def _wait(self) -> bool:
        """Return when there is enough to read; ``True``: not in time, but perhaps a little."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        loop.add_reader(self.socket, _tell, waiter, False)
        timer = loop.call_later(self._read_timeout, _tell, waiter, True)
        try:
            return await waiter
        finally:
            timer.cancel()
            loop.remove_reader(self.socket)


def _tell(waiter: "asyncio.Future[bool]", is_late: bool) -> None:
    if not waiter.done():
        waiter.set_result(is_late)
