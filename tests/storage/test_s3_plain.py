"""The client that reads blobs by plain HTTP, against servers that say what a test wants."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from cypd.storage.s3.plain import PlainClient, UnknownLength

Step = bytes | float


class Server:
    """Answers the requests of each connection with the next of its answers, then closes it.

    An answer is bytes, or bytes and seconds to wait in between.
    """

    def __init__(self, connections: Sequence[Sequence[bytes | list[Step]]]) -> None:
        self._connections = list(connections)
        self.requests: list[bytes] = []
        self.accepted = 0
        self.url = ""
        self.serving: set[asyncio.Task[None] | None] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.accepted += 1
        self.serving.add(asyncio.current_task())
        try:
            for answer in self._connections.pop(0):
                self.requests.append(await reader.readuntil(b"\r\n\r\n"))
                for step in answer if isinstance(answer, list) else [answer]:
                    await self._take(step, writer)
        except (asyncio.CancelledError, ConnectionError):
            pass  # the test is over, or the client has enough
        finally:
            writer.transport.abort() if writer.is_closing() else writer.close()

    async def _take(self, step: Step, writer: asyncio.StreamWriter) -> None:
        if isinstance(step, float):
            await asyncio.sleep(step)
            return
        for start in range(0, len(step), 50_000):
            writer.write(step[start : start + 50_000])
            await writer.drain()


@asynccontextmanager
async def answering(*connections: Sequence[bytes | list[Step]]) -> AsyncIterator[Server]:
    """Give a server."""
    server = Server(connections)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/blobs/key?signed=yes"
    try:
        yield server
    finally:
        listening.close()
        for task in filter(None, server.serving):
            task.cancel()
            await asyncio.wait([task])
        await asyncio.sleep(0.05)  # what was closed is gone then


@asynccontextmanager
async def client(read_timeout: float = 10.0) -> AsyncIterator[PlainClient]:
    """Give a client."""
    plain = PlainClient(connect_timeout=10.0, read_timeout=read_timeout)
    try:
        yield plain
    finally:
        plain.close()


def ok(body: bytes, *fields: str) -> bytes:
    """Return an answer with a body."""
    head = ["HTTP/1.1 206 Partial Content", f"Content-Length: {len(body)}", *fields, "", ""]
    return "\r\n".join(head).encode() + body


async def fetch(plain: PlainClient, server: Server) -> bytes:
    """Return the body of an answer."""
    async with plain.get(server.url, {"Range": "bytes=0-9"}) as answer:
        assert answer.status == 206
        return b"".join([piece async for piece in answer.pieces()])


async def test_a_body_comes_whole() -> None:
    """Whatever its size, with the host, the signature and the range in the request."""
    bodies = [bytes(size) for size in (0, 1, 100_000, 5_000_000)]
    async with answering([ok(body) for body in bodies]) as server, client() as plain:
        for body in bodies:
            assert await fetch(plain, server) == body
        assert server.accepted == 1, "one connection for all"
        host = server.url.split("/")[2]
        expected = f"GET /blobs/key?signed=yes HTTP/1.1\r\nHost: {host}\r\nRange: bytes=0-9\r\n\r\n"
        assert server.requests[0] == expected.encode()


async def test_a_connection_that_was_closed_is_replaced() -> None:
    """What was kept too long, or was the last of its kind, fails nobody."""
    last = ok(b"content", "Connection: close")
    async with answering([ok(b"content")], [last], [ok(b"content")]) as server, client() as plain:
        for _ in range(3):
            assert await fetch(plain, server) == b"content"
            await asyncio.sleep(0.05)
        assert server.accepted == 3


async def test_a_body_that_is_not_read_ends_its_connection() -> None:
    """The rest of it must not be taken for the next answer."""
    async with answering([ok(bytes(100_000))], [ok(b"content")]) as server, client() as plain:
        async with plain.get(server.url, {}) as answer:
            assert await anext(answer.pieces())
        assert await fetch(plain, server) == b"content"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"", ConnectionError),
        (b"HTTP/1.1 200 OK\r\nContent-", ConnectionError),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20_000, ConnectionError),
        (b"SSH-2.0-OpenSSH\r\n\r\n", UnknownLength),
        (b"HTTP/1.1 200 OK\r\n\r\ncontent", UnknownLength),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", UnknownLength),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n", UnknownLength),
        (ok(bytes(100))[:-1], ConnectionError),
    ],
)  # fmt: skip
async def test_what_is_no_answer_is_an_error(answer: bytes, kind: type[OSError]) -> None:
    """Cut off, endless, or without a length: nothing of it is taken for a body that is whole."""
    async with answering([answer]) as server, client() as plain:
        with pytest.raises(kind):
            await fetch(plain, server)


async def test_a_server_that_hangs_times_out() -> None:
    """Before its answer, and within its body."""
    for answer in (b"HTTP/1.1 200 OK\r\n", ok(bytes(1000))[:-1]):
        async with answering([[answer, 60.0]]) as server, client(read_timeout=0.3) as plain:
            with pytest.raises(TimeoutError):
                await fetch(plain, server)


async def test_a_slow_server_is_waited_for() -> None:
    """A few bytes in each timeout are enough, although more would be worth more."""
    body = bytes(500_000)
    whole = ok(body)
    steps: list[Step] = [
        whole[:100],
        1.0,
        whole[100:1000],
        1.0,
        whole[1000:2000],
        1.0,
        whole[2000:],
    ]
    async with answering([steps]) as server, client(read_timeout=2.5) as plain:
        assert await fetch(plain, server) == body


async def test_nobody_there_is_an_error() -> None:
    """Neither an address nor a name that leads nowhere hangs."""
    async with client() as plain:
        for url in ("http://127.0.0.1:1/key?", "http://name.invalid/key?"):
            with pytest.raises(OSError):  # noqa: PT011 (refused, or not resolved)
                async with plain.get(url, {}):
                    pytest.fail("answered")
