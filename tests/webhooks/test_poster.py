"""Posting a webhook: what arrives, and what comes of a target that misbehaves."""

import asyncio
import gzip
import socket
from asyncio import StreamReader, StreamWriter

import pytest

from cypd.webhooks.poster import Poster
from cypd.webhooks.posting import Undeliverable
from cypd.webhooks.targets import Targets
from tests.webhooks.house import LOOPBACK, OK, Resolve, failure, poster
from tests.webhooks.receiver import (
    Behaviour,
    Receiver,
    Request,
    closes,
    repeats,
    replies,
    request,
    resets,
    starts,
)

BROKE = "the connection broke before the answer was complete"
NOT_HTTP = "what it answered is not HTTP"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_a_delivery_arrives_as_it_was_given() -> None:
    """One POST with the body's bytes, the headers given and a few of its own."""
    seen: list[Request] = []
    body = '{"event": "püsh"}'.encode()
    async with Receiver(replies(OK, seen)) as receiver, poster(*LOOPBACK) as sender:
        answer = await sender.post(receiver.url(), {"X-Webhook-Event": "push"}, body)

    assert (answer.status, answer.body) == (200, b"ok")
    assert answer.duration > 0
    (got,) = seen
    assert got.line == "POST /hook?token=s3cret HTTP/1.1"
    assert got.body == body
    assert dict(got.headers) == {
        "host": f"127.0.0.1:{receiver.port}",
        "accept": "*/*",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
        "user-agent": "cypd",
        "x-webhook-event": "push",
    }


async def test_headers_given_take_the_place_of_its_own() -> None:
    """A header given in any case is sent once; an empty body has a length."""
    seen: list[Request] = []
    given_headers = {"content-type": "application/cloudevents+json", "user-agent": "hooks"}
    async with Receiver(replies(OK, seen)) as receiver, poster(*LOOPBACK) as sender:
        await sender.post(receiver.url(), given_headers, b"")

    (got,) = seen
    assert len({name for name, _ in got.headers}) == len(got.headers)
    assert given_headers.items() <= dict(got.headers).items()
    assert got.body == b""


@pytest.mark.parametrize("status", [204, 301, 302, 307, 308, 404, 500, 503])
async def test_an_answer_is_returned_whatever_its_status(status: int) -> None:
    """It is up to the caller what an error is worth; a redirect's target sees no request."""
    async with Receiver(replies(OK)) as elsewhere:
        head = f"HTTP/1.1 {status} Some\r\nLocation: {elsewhere.url()}\r\nContent-Length: 0\r\n\r\n"
        async with Receiver(replies(head.encode())) as receiver, poster(*LOOPBACK) as sender:
            answer = await sender.post(receiver.url(), {}, b"{}")

    assert (status, b"") == (answer.status, answer.body)
    assert (receiver.connections, elsewhere.connections) == (1, 0)


async def test_a_body_is_cut_at_64_kib() -> None:
    """Of an answer without end the first 64 KiB are kept and the connection is dropped."""
    length = b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n"
    until_closed = b"HTTP/1.1 200 OK\r\n\r\n"
    chunk = b"1000\r\n" + b"x" * 4096 + b"\r\n"
    for start, again in ((length, b"x" * 4096), (CHUNKED, chunk), (until_closed, b"x" * 4096)):
        async with Receiver(repeats(start, again)) as receiver, poster(*LOOPBACK) as sender:
            answer = await sender.post(receiver.url(), {}, b"{}")
        assert answer[:2] == (200, b"x" * 65536)


async def test_a_compressed_body_stays_compressed() -> None:
    """A small answer that would unfold to a large one takes no more memory than it has bytes."""
    bomb = gzip.compress(b"\0" * (64 << 20))
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n"
    async with Receiver(replies(head.encode() + bomb)) as receiver, poster(*LOOPBACK) as sender:
        answer = await sender.post(receiver.url(), {}, b"{}")

    assert answer.body == bomb[:65536]


@pytest.mark.parametrize(
    "behaviour",
    [
        starts(b""),
        starts(b"HTTP/1.1 200 OK\r\nX-A"),
        starts(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"),
        repeats(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n", b"x", 0.01),
        repeats(b"HTTP/1.1 200 OK\r\n", b"A: b\r\n", 0.02),
        repeats(b"", b"HTTP/1.1 102 Processing\r\n\r\n", 0.01),
    ],
    ids=["stalls", "stalls-in-head", "stalls-in-body", "dribbles", "dribbles-head", "processes"],
)
async def test_a_slow_target_ends_at_the_timeout(behaviour: Behaviour) -> None:
    """Neither silence nor a byte now and then holds a delivery, or its connection, any longer."""
    async with Receiver(behaviour) as receiver, poster(*LOOPBACK, timeout=0.3) as sender:
        assert await failure(sender, receiver.url()) == "timed out"

    assert receiver.connections == 1


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        pytest.param(behaviour, reason, id=name)
        for name, behaviour, reason in (
            ("reset", resets, BROKE),
            ("closed", closes, BROKE),
            ("cut", replies(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"), BROKE),
            ("cut-chunks", replies(CHUNKED + b"2\r\nok\r\n"), BROKE),
            ("bad-chunk", replies(CHUNKED + b"2\r\nok\r\nzz\r\n"), NOT_HTTP),
            ("other", replies(b"SSH-2.0-OpenSSH_9.2\r\n"), NOT_HTTP),
            ("bad-header", replies(b"HTTP/1.1 200 OK\r\n\0: s3cret\r\n\r\n"), NOT_HTTP),
            ("long-header", repeats(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 4096), NOT_HTTP),
            ("many-headers", repeats(b"HTTP/1.1 200 OK\r\n", b"A: b\r\n" * 64), NOT_HTTP),
            ("long-line", repeats(b"HTTP/1.1 200 ", b"x" * 4096), NOT_HTTP),
        )
    ],
)
async def test_a_broken_answer_is_none(behaviour: Behaviour, reason: str) -> None:
    """What is cut off, malformed or too large a head is undeliverable, and not tried again."""
    async with Receiver(behaviour) as receiver, poster(*LOOPBACK) as sender:
        assert await failure(sender, receiver.url()) == reason

    assert receiver.connections == 1


async def test_an_answer_that_turns_bad_is_none() -> None:
    """A malformed chunk is undeliverable although a good head and chunk were read before."""

    async def turn(reader: StreamReader, writer: StreamWriter) -> None:
        await request(reader)
        writer.write(CHUNKED + b"2\r\nok\r\n")
        await asyncio.sleep(0.1)
        writer.write(b"zz\r\n")
        await reader.read()

    async with Receiver(turn) as receiver, poster(*LOOPBACK, timeout=0.5) as sender:
        # The HTTP client drops the connection at once, but lets the reader wait for its timeout.
        assert await failure(sender, receiver.url()) in (BROKE, NOT_HTTP, "timed out")


async def test_nobody_there_is_undeliverable(names: Resolve) -> None:
    """A port that nobody listens on and a name without an address are told apart."""
    names([])
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with poster(*LOOPBACK) as sender:
        assert await failure(sender, f"http://127.0.0.1:{port}/?s3cret") == "could not connect"
        expected = "could not connect: the target's name has no address"
        assert await failure(sender, "http://hooks.example/?s3cret") == expected


async def test_a_target_that_takes_no_connection_ends_at_its_own_timeout() -> None:
    """Dialling ends long before a post would."""
    sender = Poster(Targets(LOOPBACK), timeout=3600, connect_timeout=0.2)
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as listener,
        # One connection fills the queue; the kernel drops what asks after that, listen(2).
        socket.create_connection(listener.getsockname()),
    ):
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/?s3cret"
        assert await failure(sender, url) == "timed out"
    await sender.close()


async def test_a_target_cannot_leave_anything_behind(names: Resolve) -> None:
    """Cookies are not kept, and each delivery has a connection of its own."""
    names(["127.0.0.1"])
    seen: list[Request] = []
    cookie = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b; Path=/\r\nContent-Length: 0\r\n\r\n"
    async with Receiver(replies(cookie, seen)) as receiver, poster(*LOOPBACK) as sender:
        for _ in range(2):  # by name: a cookie jar may ignore the cookies of an address
            await sender.post(receiver.url("hooks.example"), {}, b"{}")

    assert receiver.connections == 2
    assert "cookie" not in dict(seen[1].headers)


async def test_a_host_gets_so_many_connections_at_a_time() -> None:
    """More deliveries to one host wait for those under way."""
    live, most = 0, 0

    async def count(reader: StreamReader, writer: StreamWriter) -> None:
        nonlocal live, most
        live += 1
        most = max(most, live)
        await request(reader)
        await asyncio.sleep(0.05)
        live -= 1
        writer.write(OK)

    async with Receiver(count) as receiver, poster(*LOOPBACK) as sender:
        posts = [sender.post(receiver.url(), {}, b"{}") for _ in range(48)]
        answers = await asyncio.gather(*posts)

    assert [answer.status for answer in answers] == [200] * 48
    assert most <= 32


async def test_what_is_under_way_ends_when_it_is_closed_or_cancelled() -> None:
    """A closed poster fails its deliveries, a cancelled delivery drops its connection."""
    async with Receiver(starts(b"HTTP/1.1")) as receiver, poster(*LOOPBACK) as sender:
        posts = [asyncio.create_task(sender.post(receiver.url(), {}, b"{}")) for _ in range(2)]
        while receiver.connections < 2:
            await asyncio.sleep(0.01)
        posts[0].cancel()
        await asyncio.wait(posts[:1])
        await sender.close()
        with pytest.raises(Undeliverable):
            await posts[1]

    assert posts[0].cancelled()
