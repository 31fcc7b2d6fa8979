"""Files out of the door: exact, whole or not at all."""

import asyncio
import hashlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cypd.doors import page_cache
from cypd.doors.asgi import ZEROCOPY_SEND, Application, Message, Receive, Scope, Send
from cypd.doors.plain import sendfile
from cypd.doors.plain.turns import Turns
from tests.doors.apps import answer
from tests.doors.client import Client
from tests.doors.conftest import OpenDoor, OpenEither, until

CONTENT = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(128 * 1024))  # 4 MiB
SIZE = len(CONTENT)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("files") / "content"
    file.write_bytes(CONTENT)
    return file


@pytest.fixture
def file(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def open_descriptors() -> int:
    """Those of this process, but libuv's spare one, which it opens with its first stream."""
    names = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    return sum(os.path.lexists(name) and os.readlink(name) != os.devnull for name in names)


async def until_closed(client: Client) -> None:
    """Read to the end. Raises ConnectionResetError if that is a reset."""
    while await client.receive():
        pass


def sending(*messages: Message, length: int | None = None) -> Application:
    """An application that sends ``messages`` after a response start."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        headers = [] if length is None else [(b"content-length", b"%d" % length)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for message in messages:
            await send(message)

    return app


def piece(file: int, offset: int, count: int, *, more: bool = False) -> Message:
    return {
        "type": ZEROCOPY_SEND,
        "file": file,
        "offset": offset,
        "count": count,
        "more_body": more,
    }


def sending_whole(path: Path) -> Application:
    """An application that sends a file from its first byte to its last."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        with path.open("rb") as source:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": ZEROCOPY_SEND, "file": source})

    return app


@pytest.mark.parametrize(
    ("offset", "count"),
    [(0, SIZE), (0, 1), (1, SIZE - 1), (SIZE - 1, 1), (4095, 4098), (1000, 2_000_000), (5, 0)],
)
async def test_exact(open_either: OpenEither, file: int, offset: int, count: int) -> None:
    """Offset and count mean what they say, with or without a declared length."""
    for length in (count, None):
        opened = await open_either(sending(piece(file, offset, count), length=length))
        client = await opened.client()
        for _ in range(2):
            response = await client.get()

            assert response.body == CONTENT[offset : offset + count]
            assert response.headers[b"content-length"] == b"%d" % count


@pytest.mark.parametrize("length", [2_000_010, None])
async def test_pieces(open_either: OpenEither, file: int, length: int | None) -> None:
    """Files and bytes may take turns in one response, chunked or not."""
    app = sending(
        {"type": "http.response.body", "body": b"12345", "more_body": True},
        piece(file, 0, 1_000_000, more=True),
        {"type": "http.response.body", "body": b"67890", "more_body": True},
        piece(file, 3_000_000, 1_000_000, more=True),
        {"type": "http.response.body"},
        length=length,
    )
    opened = await open_either(app)
    client = await opened.client()

    for _ in range(2):
        response = await client.get()
        assert (
            response.body
            == b"12345" + CONTENT[:1_000_000] + b"67890" + CONTENT[3_000_000:4_000_000]
        )


async def test_last_piece_is_a_file(open_either: OpenEither, file: int) -> None:
    """A chunked response may end with a file."""
    opened = await open_either(sending(piece(file, 0, 10, more=True), piece(file, 10, 10)))
    client = await opened.client()

    assert (await client.get()).body == CONTENT[:20]
    assert (await client.get()).body == CONTENT[:20]


async def test_defaults(open_either: OpenEither, path: Path) -> None:
    """A file object without offset and count is sent from where it stands to its end."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        with path.open("rb") as source:
            source.seek(SIZE - 100)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": ZEROCOPY_SEND, "file": source})

    opened = await open_either(app)
    client = await opened.client()

    assert (await client.get()).body == CONTENT[-100:]


async def test_head(open_either: OpenEither, file: int) -> None:
    """An answer to HEAD says the length and sends no byte of the file."""
    opened = await open_either(sending(piece(file, 0, SIZE)))
    client = await opened.client()
    await client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")

    response = await client.answer(to_head=True)

    assert response.headers[b"content-length"] == b"%d" % SIZE
    assert (await client.get()).body == CONTENT


async def test_head_leaves_with_the_file(
    open_door: OpenDoor, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only sendfile moves the body; the response head is the only other write."""
    read = []
    monkeypatch.setattr(os, "read", lambda *_: read.append("read"))
    monkeypatch.setattr(os, "pread", lambda *_: read.append("pread"))
    opened = await open_door(sending(piece(file, 0, 100)))
    client = await opened.client()
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")

    received = await client.receive()

    assert received.endswith(b"\r\n\r\n" + CONTENT[:100])
    assert read == []


@pytest.mark.parametrize("length", [SIZE + 1, None])
async def test_short_file(
    open_either: OpenEither, file: int, length: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that is shorter than promised cuts the connection; nothing is made up."""
    more = length is None
    opened = await open_either(sending(piece(file, 0, SIZE + 1, more=more), length=length))
    client = await opened.client()
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 2)

    received = await client.read_all()

    assert received.count(b"HTTP/1.1") == 1
    assert len(received.split(b"\r\n\r\n", 1)[1]) < SIZE + 1024  # of chunk sizes
    assert "shorter" in caplog.text


async def test_file_shortened_meanwhile(open_either: OpenEither, tmp_path: Path) -> None:
    """A file that shrinks while it is sent cuts the connection, too."""
    shrinking = tmp_path / "shrinking"
    shrinking.write_bytes(bytes(64 << 20))

    opened = await open_either(sending_whole(shrinking))
    client = await opened.client(receive_buffer=65_536)
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await client.receive()
    os.truncate(shrinking, 1 << 20)

    assert len(await client.read_all()) < 64 << 20


@pytest.mark.parametrize("reset", [True, False])
async def test_early_close(
    open_door: OpenDoor, path: Path, caplog: pytest.LogCaptureFixture, *, reset: bool
) -> None:
    """Clients that have seen enough cost no descriptor and no line in the log."""
    ended = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await sending_whole(path)(scope, receive, send)
        finally:
            ended.set()

    opened = await open_door(app)
    before = open_descriptors()
    for _ in range(10):
        ended.clear()
        client = await opened.client(receive_buffer=4096)
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await client.receive()
        client.reset() if reset else client.close()
        await asyncio.wait_for(ended.wait(), 2)
    await until(lambda: opened.door.connections == 0)
    await until(lambda: open_descriptors() <= before)

    assert caplog.text == ""


async def test_stalled_reader(open_door: OpenDoor, path: Path) -> None:
    """A client that stops reading a file is reaped, and the kernel forgets what it was sent."""
    opened = await open_door(sending_whole(path))
    before = open_descriptors()
    client = await opened.client(receive_buffer=4096)
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await asyncio.sleep(0.8)

    await until(lambda: opened.door.connections == 0)
    await until(lambda: open_descriptors() <= before + 1)  # the client's own
    with pytest.raises(ConnectionResetError):
        await until_closed(client)


async def test_cancelled(open_door: OpenDoor, file: int) -> None:
    """A transfer that its application gives up cuts the connection: half a file is no answer."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            async with asyncio.timeout(0.05):
                await send(piece(file, 0, SIZE))
        except TimeoutError:
            return

    opened = await open_door(app, eager=False)
    client = await opened.client(receive_buffer=4096)
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await asyncio.sleep(0.1)

    assert len(await client.read_all()) < SIZE


async def test_other_messages_wait(open_door: OpenDoor, file: int) -> None:
    """Nothing can be sent into the middle of a file."""
    refused = asyncio.Event()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        transfer = asyncio.ensure_future(send(piece(file, 0, SIZE)))
        await asyncio.sleep(0.02)
        try:
            await send({"type": "http.response.body", "body": b"x"})
        except RuntimeError:
            refused.set()
        await transfer

    opened = await open_door(app)
    client = await opened.client(receive_buffer=65_536)
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await asyncio.sleep(0.05)

    assert (await client.answer()).body == CONTENT
    assert refused.is_set()


@pytest.fixture
def cold(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[int]]:
    """Makes each megabyte of every file cold until it has been read ahead."""
    warmed: list[int] = []
    preadv = os.preadv

    def probe(file: int, buffers: list[bytearray], offset: int, flags: int = 0) -> int:
        if flags == os.RWF_NOWAIT and not any(
            start <= offset < start + sendfile.SLICE for start in warmed
        ):
            raise BlockingIOError
        return preadv(file, buffers, offset, flags)

    def read_ahead(file: int, offset: int, _size: int, _ahead: int) -> None:
        warmed.append(offset)
        os.close(file)

    monkeypatch.setattr(os, "preadv", probe)
    monkeypatch.setattr(page_cache, "_read_ahead", read_ahead)
    return lambda: warmed


async def test_cold_file(open_either: OpenEither, file: int, cold: Callable[[], list[int]]) -> None:
    """A file that is not in memory is read ahead off the loop, slice by slice."""
    opened = await open_either(sending(piece(file, 10, SIZE - 10), length=SIZE - 10))
    client = await opened.client()

    assert (await client.get()).body == CONTENT[10:]
    assert len(cold()) >= 4


async def test_disk_error(
    open_either: OpenEither, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that cannot be read is no answer."""

    def broken(*_: object) -> int:
        raise BlockingIOError

    def failing(file: int, *_: int) -> None:
        os.close(file)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", broken)
    monkeypatch.setattr(page_cache, "_read_ahead", failing)
    opened = await open_either(sending(piece(file, 0, SIZE)))

    assert b"HTTP/1.1 200" not in await opened.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")


def test_read_ahead(path: Path) -> None:
    """Reading ahead leaves no descriptor behind, and past the end it is harmless."""
    before = open_descriptors()
    page_cache._read_ahead(os.open(path, os.O_RDONLY), SIZE - 10, 100, 1000)

    assert open_descriptors() == before


async def test_filesystem_that_cannot_tell(
    open_either: OpenEither, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where RWF_NOWAIT is not supported a file counts as warm."""

    def unsupported(*_: object) -> int:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "preadv", unsupported)
    opened = await open_either(sending(piece(file, 0, SIZE)))
    client = await opened.client()

    assert (await client.get()).body == CONTENT


async def test_file_behind_queued_bytes(open_door: OpenDoor, file: int) -> None:
    """A file waits until what was sent before it has left."""
    sent = 0

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200})
        (connection,) = opened.door._connections
        while not connection.transport.get_write_buffer_size():
            await send({"type": "http.response.body", "body": b"x" * 30_000, "more_body": True})
            sent += 30_000
        await send(piece(file, 0, SIZE))

    opened = await open_door(app)
    client = await opened.client(receive_buffer=65_536)
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await asyncio.sleep(0.05)

    assert (await client.answer()).body == b"x" * sent + CONTENT


async def test_not_a_file(
    open_either: OpenEither, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What ``sendfile`` refuses is the application's fault, and the log says so."""
    directory = os.open(tmp_path, os.O_RDONLY)
    opened = await open_either(sending(piece(directory, 0, 10), length=10))

    await opened.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    os.close(directory)

    assert "request failed" in caplog.text


async def test_client_goes_while_the_disk_works(
    open_door: OpenDoor, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read-ahead that nobody waits for any more ends without a trace."""
    release = threading.Event()

    def cold(*_: object) -> int:
        raise BlockingIOError

    def slow(file: int, *_: int) -> None:
        release.wait(2)
        os.close(file)

    monkeypatch.setattr(os, "preadv", cold)
    monkeypatch.setattr(page_cache, "_read_ahead", slow)
    opened = await open_door(sending(piece(file, 0, SIZE)))
    before = open_descriptors()
    client = await opened.client()
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await asyncio.sleep(0.02)
    client.reset()
    await asyncio.sleep(0.02)
    assert opened.door.connections == 0
    release.set()

    await until(lambda: open_descriptors() <= before)


async def test_many_at_once(open_door: OpenDoor, path: Path) -> None:
    """Fifty transfers at once are all exact."""
    opened = await open_door(sending_whole(path))

    async def pull() -> bool:
        client = await opened.client()
        return (await client.get()).body == CONTENT

    assert all(await asyncio.gather(*(pull() for _ in range(50))))


async def test_small_answers_in_between(open_either: OpenEither, path: Path) -> None:
    """A transfer gives way: other connections are answered while it runs."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/small":
            await answer(send, b"small")
        else:
            await sending_whole(path)(scope, receive, send)

    opened = await open_either(app)
    slow, other = await opened.client(receive_buffer=4096), await opened.client()
    await slow.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await slow.receive()

    assert (await other.get("/small")).body == b"small"


async def test_a_head_that_leaves_in_parts(path: Path) -> None:
    """No byte of the file goes out before the last byte of the head."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        far = socket.create_connection(listening.getsockname())
        near, _ = listening.accept()
    near.setblocking(False)
    far.setblocking(False)
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
    connection: Any = SimpleNamespace(
        door=SimpleNamespace(loop=loop, turns=Turns(loop)),
        source="a",
        transport=SimpleNamespace(get_extra_info=lambda _: near),
    )
    head = b"h" * (1 << 20)  # far more than a socket takes at once
    content = path.read_bytes()
    with path.open("rb") as file:
        pump = sendfile.Pump(connection, head, file.fileno(), 0, len(content))
        sending = asyncio.ensure_future(pump.run())
        received = bytearray()
        while len(received) < len(head) + len(content):
            piece = await loop.sock_recv(far, 1 << 20)
            assert piece
            received += piece
        await sending
        pump.close()
    near.close()
    far.close()

    assert bytes(received) == head + content
