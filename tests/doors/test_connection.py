"""What happens on one connection over time."""

import asyncio
import contextlib
import logging
from dataclasses import replace

import pytest

from cypd.doors.asgi import Receive, Scope, Send
from cypd.doors.plain import Limits, PlainDoor
from tests.doors.apps import Recorder, answer, echo, hello, whole_body
from tests.doors.client import Client
from tests.doors.conftest import QUICK, OpenDoor, OpenEither, until

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
GET_CLOSE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
PUT_5 = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
PUT_BIG = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n"


async def closed(client: Client, patience: float = 2) -> bool:
    """True if the door closes in time and sends nothing before."""
    try:
        return await client.receive(patience) == b""
    except ConnectionResetError:
        return True


async def test_keep_alive(open_door: OpenDoor) -> None:
    """One connection serves many requests."""
    app = Recorder()
    opened = await open_door(app)
    client = await opened.client()

    for number in range(1, 6):
        assert (await client.get()).body == b"%d" % number
    assert opened.door.connections == 1
    assert opened.door.active == 0


async def test_close(open_door: OpenDoor) -> None:
    """``Connection: close`` is answered in kind, and nothing after it is read."""
    app = Recorder()
    opened = await open_door(app)

    received = await opened.ask(GET_CLOSE + GET)

    assert received.count(b"HTTP/1.1 200") == 1
    assert b"connection: close\r\n" in received
    assert len(app.scopes) == 1


async def test_pipelining(open_door: OpenDoor) -> None:
    """Pipelined requests are answered in their order, bodies and slow ones included."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body, _ = await whole_body(receive)
        if "slow" in scope["path"]:
            await asyncio.sleep(0.02)
        await answer(send, scope["path"].encode() + body)

    opened = await open_door(app)
    client = await opened.client()
    await client.send(
        b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"
        b"PUT /length HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
        b"PUT /slow/chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\ndef\r\n0\r\n\r\n"
        b"GET /last HTTP/1.1\r\nHost: a\r\n\r\n"
    )

    bodies = [(await client.answer()).body for _ in range(4)]

    assert bodies == [b"/slow", b"/lengthabc", b"/slow/chunkeddef", b"/last"]


async def test_pipelining_many(open_door: OpenDoor) -> None:
    """Ten thousand pipelined requests get ten thousand answers, and never wait in memory."""
    waiting: list[int] = []

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        (connection,) = opened.door._connections
        waiting.append(len(connection.pending))
        await answer(send, b"hello")

    opened = await open_door(app)
    client = await opened.client()
    sending = asyncio.ensure_future(client.send(GET * 10_000))

    for _ in range(10_000):
        assert (await client.answer()).body == b"hello"
    await sending
    assert max(waiting) <= 2 * 64 * 1024


async def test_pipelining_to_the_end(open_door: OpenDoor) -> None:
    """A client that pipelines and then closes its side gets every answer."""
    opened = await open_door(hello)
    client = await opened.client()
    await client.send(GET * 500)
    client.finish()

    assert (await client.read_all()).count(b"hello") == 500


async def test_pipelining_is_bounded(open_door: OpenDoor) -> None:
    """While a request is answered, only so much is read ahead."""
    release = asyncio.Event()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await release.wait()
        await answer(send)

    opened = await open_door(app)
    client = await opened.client()
    sending = asyncio.ensure_future(client.send(GET * 400_000))
    await asyncio.sleep(0.1)
    (connection,) = opened.door._connections
    held = len(connection.pending)
    sending.cancel()
    release.set()

    assert held <= 2 * 64 * 1024


async def test_unread_answers_stop_the_requests(open_door: OpenDoor) -> None:
    """A client that pipelines and does not read is not served without end."""
    count = 0

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        nonlocal count
        count += 1
        await answer(send, b"x" * 10_000)

    opened = await open_door(app)
    client = await opened.client(receive_buffer=4096)
    sending = asyncio.ensure_future(client.send(GET * 20_000))
    await asyncio.sleep(0.15)
    sending.cancel()

    assert count < 2000


async def test_two_writes_one_request(open_door: OpenDoor) -> None:
    """A request in pieces is one request."""
    opened = await open_door(echo)
    client = await opened.client()

    for piece in (PUT_5[:20], PUT_5[20:], b"\r\n12", b"345"):
        await client.send(piece)
        await asyncio.sleep(0.01)

    assert (await client.answer()).body == b"12345"


async def test_bare_lf_is_refused_at_once(open_door: OpenDoor) -> None:
    """A head that ends in bare LF is not waited for until it times out."""
    opened = await open_door(hello, limits=Limits())

    assert (await opened.ask(b"GET / HTTP/1.1\nHost: a\n\n")).startswith(b"HTTP/1.1 400 ")


async def test_half_close(open_door: OpenDoor) -> None:
    """A client that closes its sending side still gets its answers, then the end."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.02)
        await answer(send, b"late")

    opened = await open_door(app)
    client = await opened.client()
    await client.send(GET + GET)
    client.finish()

    assert (await client.read_all()).count(b"late") == 2


async def test_half_close_with_half_a_request(open_door: OpenDoor) -> None:
    """A request that can never be whole ends the connection."""
    opened = await open_door(hello)
    client = await opened.client()
    await client.send(GET + GET[:10])
    client.finish()

    assert (await client.read_all()).endswith(b"hello")


async def test_waiting_answers_go_on(open_door: OpenDoor) -> None:
    """Requests that waited for the client to read are answered when it does."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await answer(send, b"x" * 60_000)

    opened = await open_door(app)
    client = await opened.client(receive_buffer=65_536)
    await client.send(GET * 300)
    await asyncio.sleep(0.05)

    for _ in range(300):
        assert len((await client.answer()).body) == 60_000


async def test_repr(open_door: OpenDoor) -> None:
    """Live objects say what they are doing."""
    shown: list[str] = []

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        shown.extend(map(repr, opened.door._connections))
        await answer(send)

    opened = await open_door(app)
    client = await opened.client()
    await client.get("/x")

    (connection,) = shown
    assert "<Head GET b'/x' HTTP/1.1> started=False" in connection


async def test_idle_eof(open_either: OpenEither) -> None:
    """A client that goes between requests leaves nothing behind."""
    opened = await open_either(hello)
    client = await opened.client()
    await client.get()
    assert opened.door.connections == 1
    client.close()

    await until(lambda: opened.door.connections == 0)


# 100-continue (RFC 9110 section 10.1.1)


async def test_continue(open_either: OpenEither) -> None:
    """100 is sent when the application asks for the body, once."""
    asked = asyncio.Event()

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await asked.wait()
        body, _ = await whole_body(receive)
        await answer(send, body)

    opened = await open_either(app)
    client = await opened.client()
    await client.send(PUT_5 + b"Expect: 100-continue\r\n\r\n")
    with pytest.raises(TimeoutError):
        await client.receive(0.05)
    asked.set()

    assert (await client.answer()).status == 100
    await client.send(b"12")
    await client.send(b"345")
    assert (await client.answer()).body == b"12345"
    assert (await client.get()).status == 200


async def test_continue_not_wanted(open_door: OpenDoor) -> None:
    """A final status without reading closes, for the body may come or not."""
    opened = await open_door(hello)
    client = await opened.client()
    await client.send(PUT_5 + b"Expect: 100-continue\r\n\r\n")

    response = await client.answer()

    assert response.status == 200
    assert response.headers[b"connection"] == b"close"
    assert await closed(client)


async def test_continue_not_needed(open_door: OpenDoor) -> None:
    """No 100 for a body that is there already."""
    opened = await open_door(echo)
    client = await opened.client()
    await client.send(PUT_5 + b"Expect: 100-continue\r\n\r\n12345")

    assert (await client.answer()).status == 200


async def test_continue_not_after_the_start(open_either: OpenEither) -> None:
    """No 100 in the middle of a response."""

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await receive()
        await send({"type": "http.response.body", "body": b"b"})

    opened = await open_either(app)
    client = await opened.client()
    await client.send(PUT_5 + b"Expect: 100-continue\r\n\r\n")
    await asyncio.sleep(0.02)
    await client.send(b"12345")

    assert (await client.answer()).body == b"ab"


# Answers before the body was read (RFC 9112 section 9.6)


async def test_early_answer(open_door: OpenDoor) -> None:
    """A client that goes on sending gets the early answer whole, and then the end."""
    opened = await open_door(hello)
    client = await opened.client()
    await client.send(PUT_BIG)
    response = await client.answer()
    sent = 0
    with pytest.raises((ConnectionResetError, BrokenPipeError, TimeoutError)):  # noqa: PT012
        while sent < 100_000_000:
            await asyncio.wait_for(client.loop.sock_sendall(client.sock, b"x" * 65_536), 1)
            sent += 65_536

    assert response.headers[b"connection"] == b"close"
    assert response.body == b"hello"


async def test_early_answer_survives_the_body(open_either: OpenEither) -> None:
    """Bytes that nobody reads do not destroy the answer: no RST before it is read."""
    opened = await open_either(hello)
    client = await opened.client()
    await client.send(PUT_BIG + b"x" * 300_000)
    await asyncio.sleep(0.05)

    assert (await client.answer()).body == b"hello"


async def test_ignored_body_that_is_there(open_door: OpenDoor) -> None:
    """A body that came with its head need not be read: the connection stays."""
    opened = await open_door(hello)
    client = await opened.client()

    await client.send(PUT_5 + b"\r\n12345" + GET)

    assert [(await client.answer()).status for _ in range(2)] == [200, 200]


async def test_body_is_no_request(open_door: OpenDoor) -> None:
    """An unread body is never taken for the next request."""
    app = hello
    opened = await open_door(app)

    received = await opened.ask(PUT_BIG + GET * 10)

    assert received.count(b"HTTP/1.1") == 1


async def test_malformed_body_in_the_middle(open_door: OpenDoor) -> None:
    """A framing error after the first chunk is a 400, and the application hears of the end."""
    app = Recorder()
    opened = await open_door(app)
    client = await opened.client()
    await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345")
    await asyncio.sleep(0.05)
    await client.send(b"zz\r\n" + GET)

    received = await client.read_all()

    assert received.startswith(b"HTTP/1.1 400 ")
    assert received.count(b"HTTP/1.1") == 1
    assert app.bodies == [(b"12345", False)]


async def test_malformed_body_after_the_start(open_door: OpenDoor) -> None:
    """After the response has begun, a framing error cuts the connection."""

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await whole_body(receive)
        await send({"type": "http.response.body", "body": b"b"})

    opened = await open_door(app)
    client = await opened.client()
    await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    await asyncio.sleep(0.02)
    await client.send(b"zz\r\n")

    with pytest.raises((EOFError, ConnectionResetError)):
        await client.answer()


# Time


async def test_slow_head(open_door: OpenDoor) -> None:
    """A head that does not end in time is a 408, however steadily it trickles."""
    opened = await open_door(hello)
    client = await opened.client()

    async def trickle() -> None:
        for byte in GET * 100:
            await client.send(bytes([byte]))
            await asyncio.sleep(0.02)

    trickling = asyncio.ensure_future(trickle())
    received = await client.receive()
    trickling.cancel()

    assert received.startswith(b"HTTP/1.1 408 ")


async def test_idle(open_door: OpenDoor) -> None:
    """An idle connection is closed without a word, before and after a request."""
    opened = await open_door(hello)
    fresh = await opened.client()
    used = await opened.client()
    await used.get()

    assert await closed(fresh)
    assert await closed(used)
    assert opened.door.connections == 0


async def test_slow_body(open_door: OpenDoor) -> None:
    """A body below the least rate is a 408; the application keeps what came."""
    app = Recorder()
    opened = await open_door(app)
    client = await opened.client()
    await client.send(PUT_BIG + b"abc")

    received = await client.read_all()

    assert received.startswith(b"HTTP/1.1 408 ")
    assert app.bodies == [(b"abc", False)]


async def test_steady_body(open_door: OpenDoor) -> None:
    """A body at a fair rate may take longer than any window."""
    opened = await open_door(echo)
    client = await opened.client()
    await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000\r\n\r\n")
    for _ in range(20):
        await client.send(b"x" * 500)
        await asyncio.sleep(0.03)

    assert len((await client.answer()).body) == 10_000


async def test_steady_body_after_a_fast_one(open_door: OpenDoor) -> None:
    """The rate of one body is not held against the next on the same connection."""
    opened = await open_door(echo)
    client = await opened.client()
    for _ in range(2):
        await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 400000\r\n\r\n")
        for size in (396_000, *[500] * 8):
            await client.send(b"x" * size)
            await asyncio.sleep(0.03)
        assert len((await client.answer()).body) == 400_000


@pytest.mark.alone
async def test_slow_reader(open_door: OpenDoor) -> None:
    """A client that does not read its answer is cut off, and the application is told."""
    outcome = asyncio.Event()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        try:
            for _ in range(1000):
                await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
        except OSError:
            outcome.set()
            raise

    opened = await open_door(app)
    client = await opened.client(receive_buffer=4096)
    await client.send(GET)

    await asyncio.wait_for(outcome.wait(), 3)
    await asyncio.sleep(0.05)
    assert opened.door.connections == 0


@pytest.mark.alone
async def test_slow_reader_of_the_last_answer(open_door: OpenDoor) -> None:
    """Nor can it keep a connection by not reading the last bytes."""
    answered = asyncio.Event()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        (connection,) = opened.door._connections
        while not connection.transport.get_write_buffer_size():
            await send({"type": "http.response.body", "body": b"x" * 30_000, "more_body": True})
        await send({"type": "http.response.body"})
        answered.set()

    opened = await open_door(app)
    client = await opened.client(receive_buffer=4096)
    await client.send(GET_CLOSE)
    await asyncio.wait_for(answered.wait(), 2)
    assert opened.door.connections == 1
    await asyncio.sleep(0.8)

    assert opened.door.connections == 0


async def test_slow_application(open_door: OpenDoor) -> None:
    """An application may think as long as it likes."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.5)
        await answer(send, b"thought")

    opened = await open_door(app)
    client = await opened.client()

    assert (await client.get()).body == b"thought"


# Stopping


@pytest.mark.alone
async def test_drain(open_either: OpenEither) -> None:
    """Draining closes idle connections at once and lets running requests finish."""
    release = asyncio.Event()

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            await release.wait()
        await answer(send, b"done")

    opened = await open_either(app, limits=replace(QUICK, keep_alive=10))
    idle, busy = await opened.client(), await opened.client()
    await idle.get()
    await busy.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n" + GET)
    await until(lambda: opened.door.active == 1)
    draining = asyncio.ensure_future(opened.door.drain(5))

    assert await closed(idle)
    # Granian lets go of its socket a moment later: what the kernel has queued by then is reset.
    is_plain = isinstance(opened.door, PlainDoor)
    with pytest.raises(ConnectionRefusedError if is_plain else ConnectionError):
        await opened.client()
    assert not draining.done()
    release.set()
    response = await busy.answer()
    assert response.headers[b"connection"] == b"close"
    assert await closed(busy)
    await asyncio.wait_for(draining, 10)
    assert opened.door.connections == 0


async def test_drain_deadline(open_either: OpenEither, caplog: pytest.LogCaptureFixture) -> None:
    """At the deadline what still runs is cancelled, and drain waits for its clean-up."""
    running, cleaned = asyncio.Event(), asyncio.Event()

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        try:
            await receive()
            running.set()
            await asyncio.sleep(60)
        finally:
            cleaned.set()

    opened = await open_either(app)
    client = await opened.client()
    await client.send(GET)
    await running.wait()
    with caplog.at_level(logging.ERROR):
        await opened.door.drain(0.05)

    assert cleaned.is_set()
    assert opened.door.connections == 0
    assert caplog.text == ""
    assert await closed(client)


async def test_drain_without_the_client(open_either: OpenEither) -> None:
    """An application whose client has gone is waited for, too: it may be storing what came."""
    begun, stored = asyncio.Event(), asyncio.Event()

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        begun.set()
        await whole_body(receive)
        await asyncio.sleep(0.1)
        stored.set()

    opened = await open_either(app)
    client = await opened.client()
    await client.send(PUT_BIG)
    await asyncio.wait_for(begun.wait(), 10)
    client.reset()
    await asyncio.sleep(0.02)
    await opened.door.drain(10)

    assert stored.is_set()


async def test_too_many_connections(open_door: OpenDoor) -> None:
    """One connection too many is closed at once; there is room again when one goes."""
    opened = await open_door(hello, limits=replace(QUICK, connections=2))
    first, second = [await opened.client() for _ in range(2)]
    await first.get()
    await second.get()
    with contextlib.suppress(ConnectionResetError):  # it may show as soon as in connect(2)
        assert await closed(await opened.client())
    first.close()
    await asyncio.sleep(0.02)
    assert (await (await opened.client()).get()).body == b"hello"
