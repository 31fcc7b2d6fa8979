"""What applications may do with one request, and what the client sees of it."""

import asyncio
import logging
import re
from contextvars import ContextVar

import pytest
from blacksheep import Application as BlackSheep
from blacksheep import Request, get, post, text

from cypd.doors.asgi import (
    REQUEST_SLABS,
    ZEROCOPY_SEND,
    Message,
    Receive,
    Scope,
    Send,
)
from cypd.doors.plain import Lifespan
from cypd.doors.tls import TlsDoor
from tests.doors.apps import Recorder, answer, echo, hello
from tests.doors.conftest import OpenDoor, OpenEither, until

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
GET_OLD = b"GET / HTTP/1.0\r\n\r\n"
START: Message = {"type": "http.response.start", "status": 200, "headers": []}


async def test_scope(open_either: OpenEither) -> None:
    """The scope says what ASGI 2.4 asks for."""
    app = Recorder()
    opened = await open_either(app)
    client = await opened.client()

    await client.get("/a%20b?c=%20d", headers=b"X-Y: z\r\n")

    (scope,) = app.scopes
    extensions = set(scope.pop("extensions"))
    is_tls = isinstance(opened.door, TlsDoor)
    assert extensions == {ZEROCOPY_SEND} | ({REQUEST_SLABS} if is_tls else set())
    assert scope == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "https" if is_tls else "http",
        "path": "/a b",
        "raw_path": b"/a%20b",
        "query_string": b"c=%20d",
        "root_path": "",
        "headers": [(b"host", b"a"), (b"x-y", b"z")],
        "client": client.sock.getsockname(),
        "server": opened.address,
    }


async def test_one_write(open_door: OpenDoor) -> None:
    """A small answer is one segment, dated, with its length and without a product name."""
    opened = await open_door(hello)
    client = await opened.client()

    await client.send(GET)
    received = await client.receive()

    assert re.fullmatch(
        rb"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ndate: [^\r]+ GMT\r\n\r\nhello", received
    )


async def stream(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send(START)
    await send({"type": "http.response.body", "body": b"one ", "more_body": True})
    await asyncio.sleep(0)
    await send({"type": "http.response.body", "body": b"", "more_body": True})
    await send({"type": "http.response.body", "body": b"two" * 50_000, "more_body": True})
    await send({"type": "http.response.body"})


async def test_streaming(open_either: OpenEither) -> None:
    """A body of unknown length is chunked, and the connection stays usable."""
    opened = await open_either(stream)
    client = await opened.client()

    for _ in range(2):
        response = await client.get()

        assert response.headers[b"transfer-encoding"] == b"chunked"
        assert response.body == b"one " + b"two" * 50_000


async def test_streaming_to_http_1_0(open_door: OpenDoor) -> None:
    """HTTP/1.0 knows no chunks: the end of the connection is the end of the body."""
    opened = await open_door(stream)

    received = await opened.ask(GET_OLD)

    assert b"chunked" not in received
    assert b"connection: close\r\n" in received
    assert received.endswith(b"\r\n\r\none " + b"two" * 50_000)


async def test_http_1_0_keep_alive(open_door: OpenDoor) -> None:
    """An HTTP/1.0 client that asks for it gets a second answer on its connection."""
    opened = await open_door(hello)
    client = await opened.client()

    for _ in range(2):
        await client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert (await client.answer()).headers[b"connection"] == b"keep-alive"


@pytest.mark.parametrize("app", [hello, stream])
async def test_head(open_either: OpenEither, app: object) -> None:
    """An answer to HEAD has no body, whatever the application sends."""
    opened = await open_either(app)
    client = await opened.client()

    await client.send(HEAD + HEAD)
    for _ in range(2):
        assert (await client.answer(to_head=True)).status == 200

    assert client.buffer == b""


@pytest.mark.parametrize("status", [204, 304])
async def test_no_body(open_either: OpenEither, status: int) -> None:
    """204 and 304 have no body, whatever the application sends."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await answer(send, b"surplus", status)

    opened = await open_either(app)
    client = await opened.client()

    await client.send(GET + GET)
    for _ in range(2):
        response = await client.answer()
        assert response.status == status
        assert b"content-length" not in response.headers

    assert client.buffer == b""


async def test_failure_before_the_start(
    open_either: OpenEither, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception becomes a 500 with a trace id that the log has, too, and nothing else.

    It is the one that the request goes by in all other lines: the client's, if there is one.
    """

    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise ValueError("secret")

    opened = await open_either(app)

    received = await opened.ask(GET + GET)
    named = await opened.ask(GET.replace(b"\r\n\r\n", b"\r\nX-Request-ID: my.id-1\r\n\r\n"))

    assert received.count(b"HTTP/1.1 500 ") == 1
    assert b"secret" not in received
    trace = re.search(rb"trace ([0-9a-f]{8})\n", received)
    assert trace is not None
    assert f"trace={trace[1].decode()}" in caplog.text
    assert named.endswith(b"trace my.id-1\n")
    assert "trace=my.id-1" in caplog.text


async def test_failure_after_start_message(open_either: OpenEither) -> None:
    """As long as no byte has left, a failure is still a 500."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(START)
        raise ValueError

    opened = await open_either(app)

    assert (await opened.ask(HEAD)).startswith(b"HTTP/1.1 500 ")


async def test_failure_in_the_body(open_either: OpenEither) -> None:
    """After the first byte the only honest way to fail is to cut the connection."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(START)
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ValueError

    opened = await open_either(app)
    client = await opened.client()

    await client.send(GET + GET)
    with pytest.raises((EOFError, ConnectionResetError)):
        await client.answer()


@pytest.mark.parametrize("body", [b"four", b"sixsix"])
async def test_wrong_length(
    open_either: OpenEither, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A body that has not its declared length is never sent as if it had."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await answer(send, body, content_length="5")

    opened = await open_either(app)
    client = await opened.client()

    await client.send(GET + GET)
    received = await client.read_all()

    assert b"HTTP/1.1 200" not in received
    assert "declared length" in caplog.text


@pytest.mark.parametrize(
    "messages", [[], [START], [START, {"type": "http.response.body", "more_body": True}]]
)
async def test_unfinished(open_either: OpenEither, messages: list[Message]) -> None:
    """An application that returns early is found out."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    opened = await open_either(app)
    received = await opened.ask(GET)

    assert received.startswith(b"HTTP/1.1 500 ") or not received.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize(
    "messages",
    [
        [{"type": "http.response.body"}],
        [START, START],
        [START, {"type": "http.response.trailers"}],
        [{**START, "headers": [(b"a", b"b\r\nc: d")]}],
        [{**START, "status": 101}],
    ],
)
async def test_misuse(open_either: OpenEither, messages: list[Message]) -> None:
    """Messages that ASGI does not allow are errors of the application: 500."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    opened = await open_either(app)

    assert (await opened.ask(GET)).startswith(b"HTTP/1.1 500 ")


async def test_send_after_the_end(open_either: OpenEither) -> None:
    """A complete response stays complete."""
    raised = asyncio.Event()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await answer(send, b"hello")
        try:
            await send({"type": "http.response.body", "body": b"more"})
        except RuntimeError:
            raised.set()

    opened = await open_either(app)
    client = await opened.client()

    assert (await client.get()).body == b"hello"
    assert raised.is_set()
    assert (await client.get()).body == b"hello"


async def test_close_by_the_application(open_either: OpenEither) -> None:
    """``connection: close`` from the application closes."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await answer(send, connection="close")

    opened = await open_either(app)

    assert (await opened.ask(GET + GET)).count(b"HTTP/1.1 200") == 1


async def test_body_of_any_bytes_type(open_either: OpenEither) -> None:
    """What an application changes after ``send`` does not change what the client gets."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        buffer = bytearray(b"a" * 3_000_000)
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": memoryview(buffer), "more_body": True})
        buffer[:] = b"b" * len(buffer)
        await send({"type": "http.response.body"})

    opened = await open_either(app)
    client = await opened.client(receive_buffer=65_536)

    assert (await client.get()).body == b"a" * 3_000_000


async def test_cancelled_at_once(open_door: OpenDoor) -> None:
    """An application that is cancelled before it waits cuts the connection, silently."""

    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise asyncio.CancelledError

    opened = await open_door(app)

    assert await opened.ask(GET) == b""


async def test_receive_without_body(open_either: OpenEither) -> None:
    """Without a body ``receive`` says so once, then waits for the client to go."""
    received: list[Message] = []
    done = asyncio.Event()

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        received.append(await receive())
        received.append(await receive())
        done.set()

    opened = await open_either(app)
    client = await opened.client()
    await client.send(GET)
    await until(lambda: bool(received))
    await asyncio.sleep(0.02)
    assert len(received) == 1
    client.reset()
    await asyncio.wait_for(done.wait(), 10)

    assert received[0] == {"type": "http.request", "body": b"", "more_body": False}
    assert received[1] == {"type": "http.disconnect"}


async def test_receive_after_the_response(open_either: OpenEither) -> None:
    """Once the response is complete, ``receive`` does not wait any more."""
    last: list[Message] = []

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        watching = asyncio.ensure_future(receive())
        await answer(send)
        last.append(await watching)
        last.append(await receive())

    opened = await open_either(app)
    client = await opened.client()

    assert (await client.get()).status == 200
    assert (await client.get()).status == 200
    assert {"http.disconnect"} == {message["type"] for message in last}


async def test_send_to_nobody(open_either: OpenEither, caplog: pytest.LogCaptureFixture) -> None:
    """``send`` raises OSError once the client has gone; the application runs on, unlogged."""
    outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    begun = asyncio.Event()

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        begun.set()
        await receive()
        try:
            await send(START)
        except OSError:
            outcome.set_result("OSError")
            raise

    opened = await open_either(app)
    client = await opened.client()
    await client.send(GET)
    await asyncio.wait_for(begun.wait(), 10)
    client.reset()

    with caplog.at_level(logging.WARNING):
        assert await asyncio.wait_for(outcome, 10) == "OSError"
        await asyncio.sleep(0)
    assert caplog.text == ""


VARIABLE: ContextVar[str] = ContextVar("VARIABLE", default="unset")


@pytest.mark.parametrize("eager", [True, False])
async def test_context(open_door: OpenDoor, *, eager: bool) -> None:
    """Context variables of one request are not seen by the next, but kept over its waits."""
    seen = []

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        seen.append(VARIABLE.get())
        VARIABLE.set("set")
        await asyncio.sleep(0)
        seen.append(VARIABLE.get())
        await asyncio.sleep(0.001)
        seen.append(VARIABLE.get())
        await answer(send)

    opened = await open_door(app, eager=eager)
    client = await opened.client()
    await client.get()
    await client.get()

    assert seen == ["unset", "set", "set"] * 2


@pytest.mark.parametrize("eager", [True, False])
async def test_eager(open_door: OpenDoor, *, eager: bool) -> None:
    """Eager applications begin without a task; others have one from their first line on."""
    tasks = []

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        tasks.append(asyncio.current_task() is None)
        await asyncio.sleep(0)
        tasks.append(asyncio.current_task() is None)
        await answer(send)

    opened = await open_door(app, eager=eager)
    client = await opened.client()
    await client.get()

    assert tasks == [eager, False]


async def test_timeout_in_a_foreign_application(open_either: OpenEither) -> None:
    """``asyncio.timeout`` works in an application that is not run eagerly."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(5)
        except TimeoutError:
            await answer(send, b"timed out")

    opened = await open_either(app)
    client = await opened.client()

    assert (await client.get()).body == b"timed out"


@pytest.mark.parametrize("eager", [True, False])
async def test_echo(open_door: OpenDoor, *, eager: bool) -> None:
    """A foreign application gets a body and sends it back."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del scope["extensions"]["cypd.request.slabs"]
        await echo(scope, receive, send)

    opened = await open_door(app, eager=eager)
    client = await opened.client()
    body = bytes(range(256)) * 4096
    await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    assert (await client.answer()).body == body


@pytest.mark.alone
async def test_slow_reader_holds_the_application(open_either: OpenEither) -> None:
    """``send`` waits while the client does not read: no response piles up in memory."""
    sent = 0

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        nonlocal sent
        await send(START)
        for _ in range(200):
            await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
            sent += 1
        await send({"type": "http.response.body"})

    opened = await open_either(app)
    client = await opened.client(receive_buffer=256 * 1024)
    await client.send(GET)
    await asyncio.sleep(0.1)
    held = sent
    response = await client.answer()

    assert held < 100
    assert len(response.body) == 20_000_000


async def test_blacksheep(open_either: OpenEither) -> None:
    """A BlackSheep application runs behind the door, its start and stop included."""
    app = BlackSheep()
    order = []

    @app.on_start
    async def started(_: BlackSheep) -> None:
        order.append("start")

    @app.on_stop
    async def stopped(_: BlackSheep) -> None:
        order.append("stop")

    @get("/hello/{name}")
    async def greet(name: str) -> object:
        return text(f"hello {name}")

    @post("/size")
    async def size(request: Request) -> object:
        return text(str(len(await request.read() or b"")))

    async with Lifespan(app):
        opened = await open_either(app)
        client = await opened.client()
        greeting = await client.get("/hello/w%C3%B6rld")
        await client.send(b"POST /size HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n")
        await client.send(b"x" * 300_000)
        counted = await client.answer()

    assert greeting.body.decode() == "hello wörld"
    assert counted.body == b"300000"
    assert order == ["start", "stop"]


async def test_lifespan_failure() -> None:
    """A startup that fails says why."""

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    with pytest.raises(RuntimeError, match="no database"):
        async with Lifespan(app):
            pass


async def test_lifespan_unknown() -> None:
    """An application that knows no lifespan is run without."""

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        raise KeyError(scope["type"])

    async with Lifespan(app):
        pass
