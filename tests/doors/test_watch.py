"""Clients that are too slow for the TLS door, and those that only seem to be."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from cypd.doors.asgi import Receive, Scope, Send
from tests.doors.apps import answer, hello
from tests.doors.client import Client
from tests.doors.conftest import QUICK, OpenTls, until

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
# hyper's own times are longer than any of these tests.
WATCHFUL = replace(QUICK, keep_alive=60)


async def _dribble(client: Client, data: bytes) -> None:
    with contextlib.suppress(OSError):
        for number in range(len(data)):
            await client.send(data[number : number + 1])
            await asyncio.sleep(0.03)


@pytest.fixture
async def dribbling() -> AsyncIterator[set[asyncio.Task[None]]]:
    """What sends slowly; it ends with the test."""
    tasks: set[asyncio.Task[None]] = set()
    yield tasks
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("is_plain", [True, False])
async def test_a_head_that_comes_byte_by_byte(
    open_tls: OpenTls, dribbling: set[asyncio.Task[None]], *, is_plain: bool
) -> None:
    """Of TLS or of HTTP: who has come and never gets to a request is sent away."""
    opened = await open_tls(hello, limits=WATCHFUL)
    if is_plain:
        client = await Client.connect(opened.address)
        opened.clients.append(client)
        hello_of_tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)
        dribbling.add(asyncio.create_task(_dribble(client, hello_of_tls)))
    else:
        client = await opened.client()
        dribbling.add(asyncio.create_task(_dribble(client, b"GET / HTTP/1.1\r\nX: " + b"x" * 500)))

    await until(lambda: opened.door.connections == 1)
    await until(lambda: opened.door.connections == 0)


async def test_a_reader_below_the_rate(open_tls: OpenTls) -> None:
    """Who takes less than the rate for a window is cut off, though it takes some all the time."""
    size = 64 << 20

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await answer(send, bytes(size))

    opened = await open_tls(app, limits=replace(WATCHFUL, rate=1 << 30, rate_window=1.0))
    client = await opened.client(receive_buffer=32_768)
    await client.send(GET)
    received = 0
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        async with asyncio.timeout(20):
            while piece := await client.receive():
                received += len(piece)
                await asyncio.sleep(0.01)

    assert 0 < received < size
    await until(lambda: opened.door.connections == 0)


async def test_bodies_that_come_byte_by_byte(
    open_tls: OpenTls, dribbling: set[asyncio.Task[None]]
) -> None:
    """Who is too slow with a body is sent away, though more of it may come any time."""

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    opened = await open_tls(app, limits=replace(WATCHFUL, rate_window=0.3))
    for _ in range(30):
        client = await opened.client()
        await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
        dribbling.add(asyncio.create_task(_dribble(client, b"x" * 1000)))

    await until(lambda: opened.door.active > 0)
    await until(lambda: opened.door.connections == 0)


async def test_who_takes_its_time_between_requests(open_tls: OpenTls) -> None:
    """Idle before its first request, and after it, for longer than a head may take."""
    opened = await open_tls(hello, limits=WATCHFUL)
    client = await opened.client()
    for _ in range(3):
        await asyncio.sleep(3 * WATCHFUL.header)

        assert (await client.get()).body == b"hello"


async def test_a_slow_application(open_tls: OpenTls) -> None:
    """Who waits for an answer that takes longer than all windows gets it."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await asyncio.sleep(4 * WATCHFUL.rate_window)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(4):
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await asyncio.sleep(2 * WATCHFUL.rate_window)
        await send({"type": "http.response.body"})

    opened = await open_tls(app, limits=WATCHFUL)
    client = await opened.client()

    assert (await client.get()).body == b"xxxx"


async def test_a_second_head_is_not_watched(
    open_tls: OpenTls, dribbling: set[asyncio.Task[None]]
) -> None:
    """Who has asked before may send what looks like a dribble: by HTTP/2 it tells what it read."""
    opened = await open_tls(hello, limits=WATCHFUL)
    client = await opened.client()
    await client.get()
    head = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
    task = asyncio.create_task(_dribble(client, head))
    dribbling.add(task)
    await task

    assert (await client.answer()).body == b"hello"
