"""Request bodies: slabs, back-pressure and clients that go away."""

import asyncio
import hashlib
from dataclasses import replace

import pytest

from cypd.doors.asgi import REQUEST_SLABS, Message, Receive, Scope, Send
from cypd.doors.plain.slabs import Slab, SlabPool
from tests.doors.apps import Recorder, answer
from tests.doors.conftest import QUICK, OpenDoor, OpenEither

SLAB = 128 * 1024  # more than the first read can bring
SMALL_SLABS = replace(QUICK, slab_bytes=SLAB, rate_window=30)
BODY = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(32 * 1024))  # 1 MiB


def by_length(body: bytes) -> bytes:
    return b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def by_chunks(body: bytes, size: int = 32 * 1024) -> bytes:
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    return (
        b"PATCH / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
        + b"0\r\n\r\n"
    )


REQUESTS = {
    "length": by_length(BODY),
    "chunks of 32 KiB": by_chunks(BODY),
    "chunks of 1000 bytes": by_chunks(BODY, 1000),
    "one chunk": by_chunks(BODY, len(BODY)),
}


@pytest.mark.parametrize("slabs", [True, False])
@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("slab_bytes", [16 * 1024, SLAB])
async def test_exact(open_either: OpenEither, name: str, slab_bytes: int, *, slabs: bool) -> None:
    """Every byte of a body arrives once, in order, however it was framed."""
    app = Recorder(slabs=slabs)
    opened = await open_either(app, limits=replace(SMALL_SLABS, slab_bytes=slab_bytes))
    client = await opened.client()

    await client.send(REQUESTS[name] * 2)
    assert [(await client.answer()).body for _ in range(2)] == [b"1", b"2"]

    assert app.bodies == [(BODY, True)] * 2


async def test_slab_contract(open_door: OpenDoor) -> None:
    """A slab stays as it is until the second call after the one that gave it."""
    kept: list[bytes] = []

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        receive = scope["extensions"][REQUEST_SLABS]["receive"]
        last: memoryview | None = None
        while True:
            message = await receive()
            if last is not None:
                kept.append(bytes(last))  # one call later: still whole
            assert isinstance(message["body"], memoryview)
            last = message["body"]
            if not message["more_body"]:
                kept.append(bytes(last))
                break
        await answer(send)

    opened = await open_door(app, limits=SMALL_SLABS)
    client = await opened.client()
    await client.send(by_length(BODY))

    assert (await client.answer()).status == 200
    assert b"".join(kept) == BODY
    assert {SLAB} == {len(piece) for piece in kept[:-1]}


async def test_slabs_are_two(open_door: OpenDoor) -> None:
    """However long the body, it goes through two slabs, which then serve the next request."""
    seen: set[int] = set()

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        receive = scope["extensions"][REQUEST_SLABS]["receive"]
        while True:
            message = await receive()
            seen.add(id(message["body"].obj))
            if not message["more_body"]:
                break
        await answer(send)

    opened = await open_door(app, limits=SMALL_SLABS)
    client = await opened.client()
    for _ in range(3):
        await client.send(by_length(BODY))
        await client.answer()

    assert len(seen) == 2


@pytest.mark.alone
@pytest.mark.parametrize("part", range(0, 64, 7))
@pytest.mark.parametrize("reset", [True, False])
async def test_cut(open_either: OpenEither, part: int, *, reset: bool) -> None:
    """A client that goes leaves the application all it had sent, then a disconnect."""
    app = Recorder()
    opened = await open_either(app, limits=SMALL_SLABS)
    head = len(by_length(BODY)) - len(BODY)
    size = len(BODY) * part // 64
    client = await opened.client()
    await client.send(by_length(BODY)[: head + size])
    await asyncio.sleep(0.05)  # RST overtakes what the kernel has not handed over
    if reset:
        client.reset()
    else:
        client.close()
    await asyncio.wait_for(app.heard.wait(), 2)

    assert app.bodies == [(BODY[:size], False)]


@pytest.mark.parametrize("part", range(64))
async def test_half_closed(open_door: OpenDoor, part: int) -> None:
    """At every 1/64 of a chunked body, an end that comes too early is told from a whole body."""
    app = Recorder()
    opened = await open_door(app, limits=SMALL_SLABS)
    request = by_chunks(BODY[: 64 * 1024], 1024)
    client = await opened.client()
    head = request.index(b"\r\n\r\n") + 4
    await client.send(request[: head + (len(request) - head) * part // 64])
    client.finish()
    await asyncio.wait_for(app.heard.wait(), 2)

    ((body, complete),) = app.bodies
    assert not complete
    assert BODY.startswith(body)
    assert len(body) >= 1024 * part - 2048


@pytest.mark.alone
async def test_back_pressure(open_door: OpenDoor) -> None:
    """While the application does not ask, nothing is read: the client has to wait."""
    release = asyncio.Event()

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        receive = scope["extensions"][REQUEST_SLABS]["receive"]
        await receive()
        await release.wait()
        while (await receive())["more_body"]:
            pass
        await answer(send)

    opened = await open_door(app, limits=SMALL_SLABS)
    client = await opened.client()
    body = BODY * 32
    sending = asyncio.ensure_future(client.send(by_length(body)))
    await asyncio.sleep(0.2)
    (connection,) = opened.door._connections
    stalled = not sending.done()
    pending = len(connection.pending)
    release.set()
    await sending

    assert stalled
    assert pending == 0
    assert (await client.answer()).status == 200


async def test_partial_slab_after_a_pause(open_door: OpenDoor) -> None:
    """A slab that is not full is handed over when the client pauses."""
    pieces: asyncio.Queue[Message] = asyncio.Queue()

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        receive = scope["extensions"][REQUEST_SLABS]["receive"]
        while True:
            message = await receive()
            pieces.put_nowait({**message, "body": bytes(message["body"])})
            if not message["more_body"]:
                break
        await answer(send)

    opened = await open_door(app, limits=SMALL_SLABS)
    client = await opened.client()
    await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n")
    for piece in (b"12345", b"67890"):
        await client.send(piece)
        assert (await asyncio.wait_for(pieces.get(), 2))["body"] == piece


async def test_receive_after_the_body(open_either: OpenEither) -> None:
    """After the last piece ``receive`` waits for the client to go."""
    last: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
    read = asyncio.Event()

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        while (await receive())["more_body"]:
            pass
        read.set()
        last.set_result(await receive())

    opened = await open_either(app)
    client = await opened.client()
    await client.send(by_length(b"12345"))
    await asyncio.wait_for(read.wait(), 10)
    await asyncio.sleep(0.02)
    waited = not last.done()
    client.reset()

    assert waited
    assert (await asyncio.wait_for(last, 10))["type"] == "http.disconnect"


async def test_receive_is_cancelled(open_either: OpenEither) -> None:
    """An application that gives up waiting for a body can still answer."""

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(0.05):
                await receive()
        except TimeoutError:
            await answer(send, b"gave up", 408)

    opened = await open_either(app)
    client = await opened.client()
    await client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n")

    assert (await client.answer()).status == 408


def test_slab_in_use_is_not_reused() -> None:
    """A slab that a thread still looks at is never given to another request."""
    pool = SlabPool(16, spare=4)
    slab = pool.borrow()
    view = slab.give(8)
    part = view[2:4]
    pool.give_back(slab)

    assert pool.borrow() is not slab
    assert len(part) == 2


def test_slabs_are_reused() -> None:
    """A slab that nobody looks at serves again; spare ones are bounded."""
    pool = SlabPool(16, spare=1)
    first, second = pool.borrow(), pool.borrow()
    view = first.give(8)
    pool.give_back(first)
    pool.give_back(second)

    assert repr(pool) == "<SlabPool 1 free of 16 bytes>"
    assert pool.borrow() is first
    with pytest.raises(ValueError, match="released"):
        view[0]


def test_take_back_twice() -> None:
    """Taking back what was not given is no error."""
    slab = Slab(8)

    assert slab.take_back()
    slab.give(4)
    assert slab.take_back()
    assert slab.take_back()
