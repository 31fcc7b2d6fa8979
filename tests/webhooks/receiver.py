"""A server on this host that does to each of its connections what a test wants done."""

import asyncio
import contextlib
import socket
import ssl
import struct
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import NamedTuple, Self

Behaviour = Callable[[StreamReader, StreamWriter], Awaitable[None]]


class Request(NamedTuple):
    """A request as it came; header names in lower case."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes


class Receiver:
    """Listens while it is entered; leaving it waits until the client has let go of everything."""

    def __init__(
        self, behaviour: Behaviour, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
    ) -> None:
        self._behaviour = behaviour
        self._host = host
        self._tls = tls
        self._tasks: list[asyncio.Task[None]] = []
        self.connections = 0

    async def __aenter__(self) -> Self:
        # Without a host: every address that this one has.
        both = not self._host and socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        listener = socket.create_server((self._host, 0), family=family, dualstack_ipv6=both)
        self.port = listener.getsockname()[1]
        self._server = await asyncio.start_server(self._serve, sock=listener, ssl=self._tls)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._server.close()
        await asyncio.gather(*self._tasks)

    def url(self, host: str = "127.0.0.1") -> str:
        """Return a URL of this server, with a secret in it."""
        return f"http{'s' if self._tls else ''}://{host}:{self.port}/hook?token=s3cret"

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task
        self._tasks.append(task)
        with contextlib.suppress(ConnectionError):
            await self._behaviour(reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def request(reader: StreamReader) -> Request:
    """Read one request with a Content-Length."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    pairs = [line.partition(": ") for line in head[1:] if line]
    headers = [(name.lower(), value) for name, _, value in pairs]
    body = await reader.readexactly(int(dict(headers)["content-length"]))
    return Request(head[0], headers, body)


def replies(answer: bytes, seen: list[Request] | None = None) -> Behaviour:
    """Answer each request alike, and keep it in ``seen``."""

    async def behave(reader: StreamReader, writer: StreamWriter) -> None:
        got = await request(reader)
        if seen is not None:
            seen.append(got)
        writer.write(answer)
        await writer.drain()

    return behave


def starts(answer: bytes) -> Behaviour:
    """Send the start of an answer, then nothing for as long as the client stays."""

    async def behave(reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(answer)
        await reader.read()

    return behave


def repeats(start: bytes, again: bytes, pause: float = 0.0) -> Behaviour:
    """Send ``again`` without end, for as long as the client stays."""

    async def behave(reader: StreamReader, writer: StreamWriter) -> None:
        await request(reader)
        writer.write(start)
        while not (reader.at_eof() or writer.is_closing()):
            writer.write(again)
            await writer.drain()
            await asyncio.sleep(pause)

    return behave


async def resets(reader: StreamReader, writer: StreamWriter) -> None:
    """Reset the connection when the request is there."""
    await request(reader)
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def closes(_reader: StreamReader, _writer: StreamWriter) -> None:
    """Close the connection before a word."""
