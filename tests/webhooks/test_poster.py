"""Posting a webhook: to the target alone, whatever it does."""

import asyncio
import gzip
import socket
import ssl
import traceback
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import cycle

import aiohttp
import pytest
import trustme
from aiohttp.abc import ResolveResult
from hypothesis import given
from hypothesis import strategies as st

from cypd.webhooks.poster import Answer, Poster, Undeliverable, check_headers
from cypd.webhooks.targets import Targets
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
from tests.webhooks.targets import INSIDE, NO_TARGETS

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
REFUSED = "refused: the target's address is not allowed"
BROKE = "the connection broke before the answer was complete"
NOT_HTTP = "what it answered is not HTTP"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
LOOPBACK = ("127.0.0.0/8",)
SECRET = {"Authorization": "Bearer s3cret"}


@asynccontextmanager
async def poster(*networks: str, timeout: float = 30.0) -> AsyncIterator[Poster]:
    """Give a poster that may dial ``networks``, too."""
    poster = Poster(Targets(networks), timeout=timeout)
    try:
        yield poster
    finally:
        await poster.close()


async def failure(poster: Poster, url: str) -> str:
    """Return why a post is undeliverable; neither that nor its traceback tells a secret."""
    with pytest.raises(Undeliverable) as caught:
        await poster.post(url, SECRET, b"{}")
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))
    return str(caught.value)


Resolve = Callable[..., None]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Resolve:
    """Return what sets the answers that DNS gives from now on, one after the other."""

    def answers(*answers: list[str]) -> None:
        turns = cycle(answers)

        async def resolve(
            _self: object, host: str, port: int = 0, family: int = 0
        ) -> list[ResolveResult]:
            addresses = next(turns)
            if not addresses:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            return [
                ResolveResult(
                    hostname=host, host=address, port=port, family=family, proto=0, flags=0
                )
                for address in addresses
            ]

        monkeypatch.setattr(aiohttp.ThreadedResolver, "resolve", resolve)

    return answers


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


@pytest.mark.parametrize("url", INSIDE + NO_TARGETS)
async def test_nothing_arrives_at_a_forbidden_target(url: str, names: Resolve) -> None:
    """By default no connection is made to what is inside, however the URL is spelt."""
    names(["127.0.0.1"])
    async with Receiver(replies(OK), host="") as receiver, poster() as sender:
        target = url.replace("{port}", str(receiver.port))
        assert (await failure(sender, target)).startswith("refused: ")

    assert receiver.connections == 0


@pytest.mark.parametrize("url", INSIDE)
async def test_nothing_is_dialled_that_the_rule_forbids(
    url: str, names: Resolve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A URL that got past the check is still refused at the socket, literal or name."""
    names(["127.0.0.1"])
    monkeypatch.setattr(Targets, "check", lambda *_: None)
    async with Receiver(replies(OK), host="") as receiver, poster() as sender:
        await failure(sender, url.replace("{port}", str(receiver.port)))

    assert receiver.connections == 0


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "::1", "0.0.0.0", "::ffff:127.0.0.1", "::ffff:7f00:1", "::127.0.0.1", "::1%lo"],
)
async def test_a_name_that_stands_for_an_inside_address_is_refused(
    address: str, names: Resolve
) -> None:
    """What DNS says is judged as a literal is, and nothing is sent to it."""
    names([address])
    async with Receiver(replies(OK), host="") as receiver, poster() as sender:
        assert await failure(sender, receiver.url("hooks.example")) == REFUSED

    assert receiver.connections == 0


async def test_a_name_is_judged_anew_at_each_dial(names: Resolve) -> None:
    """A name that turns inwards after a good answer is refused: no connection, cache or verdict
    of the first delivery serves the second."""
    names(["127.0.0.2"], ["127.0.0.1"])
    async with Receiver(replies(OK), host="") as receiver, poster("127.0.0.2/32") as sender:
        answer = await sender.post(receiver.url("hooks.example"), {}, b"{}")
        assert await failure(sender, receiver.url("hooks.example")) == REFUSED

    assert answer.status == 200
    assert receiver.connections == 1


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1", "127.0.0.2"],
        ["127.0.0.2", "127.0.0.1"],
        ["::1", "127.0.0.1", "127.0.0.2"],
        ["127.0.0.2", "::1"],
    ],
)
async def test_of_many_addresses_the_refused_are_skipped(
    addresses: list[str], names: Resolve
) -> None:
    """A name with addresses of both kinds is delivered to the allowed one, in whatever order."""
    inside, outside = Receiver(replies(b"")), Receiver(replies(OK), host="127.0.0.2")
    names(addresses)
    async with inside, outside, poster("127.0.0.2/32") as sender:
        for receiver in (inside, outside):
            try:
                await sender.post(receiver.url("hooks.example"), {}, b"{}")
            except Undeliverable as error:
                assert receiver is inside
                assert str(error) in ("could not connect", REFUSED)

    assert (inside.connections, outside.connections) == (0, 1)


async def test_a_name_of_thousands_of_addresses_is_dialled_a_few_times(
    names: Resolve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the loop nor anybody's ports are kept busy by a long answer of DNS."""
    asked: list[str] = []
    monkeypatch.setattr(Targets, "permits", lambda _, address: asked.append(address))
    names([f"10.0.{high}.{low}" for high in range(16) for low in range(256)])
    async with poster() as sender:
        assert await failure(sender, "http://hooks.example/?s3cret") == REFUSED

    assert len(set(asked)) <= 4
    assert len(asked) <= 10


async def test_no_proxy_stands_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's proxy and .netrc do not concern a delivery."""
    async with Receiver(closes) as proxy, Receiver(replies(OK)) as receiver:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        async with poster(*LOOPBACK) as sender:
            await sender.post(receiver.url(), {}, b"{}")

    assert (receiver.connections, proxy.connections) == (1, 0)


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


async def test_a_host_gets_four_connections_at_a_time() -> None:
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
        posts = [sender.post(receiver.url(), {}, b"{}") for _ in range(12)]
        answers = await asyncio.gather(*posts)

    assert [answer.status for answer in answers] == [200] * 12
    assert most <= 4


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


def certified(ca: trustme.CA, name: str) -> ssl.SSLContext:
    """Return a server's TLS for ``name``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(name).configure_cert(context)
    return context


async def post_over_tls(tls: ssl.SSLContext, sender: Poster) -> Answer | str:
    """Return what hooks.example answers, or why it does not."""
    async with Receiver(replies(OK), tls=tls) as receiver:
        try:
            return await sender.post(receiver.url("hooks.example"), {}, b"{}")
        except Undeliverable as error:
            return str(error)


async def test_a_certificate_is_for_the_name_in_the_url(
    names: Resolve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vetted address is dialled, and by TLS the name is what has to be proved."""
    names(["127.0.0.1"])
    ca, trusting = trustme.CA(), ssl.create_default_context()
    ca.configure_trust(trusting)
    async with poster(*LOOPBACK) as sender:
        unknown = await post_over_tls(certified(ca, "hooks.example"), sender)
        monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", trusting)
        good = await post_over_tls(certified(ca, "hooks.example"), sender)
        other = await post_over_tls(certified(ca, "other.example"), sender)

    assert isinstance(good, Answer)
    assert good.status == 200
    assert str(unknown).startswith("TLS: unable to get local issuer certificate")
    assert str(other).startswith("TLS: Hostname mismatch")


async def test_a_target_that_does_not_speak_tls_is_told_so() -> None:
    """https: to a plain server is a failure of TLS."""
    async with (
        Receiver(starts(b"HTTP/1.1 400 Bad\r\n\r\n")) as receiver,
        poster(*LOOPBACK) as sender,
    ):
        reason = await failure(sender, receiver.url().replace("http:", "https:"))

    assert reason.startswith("TLS: ")


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer s3cret"},
        {"X-Token!#$%&'*+.^_`|~1": ""},
        {"Content-Type": "application/json", "Cookie": "a=b", "Proxies": "x", "Tea": "x"},
        {f"X-{number}": "x" for number in range(20)},
        {"X-A": "x" * 4093},
    ],
)
def test_an_ordinary_header_may_be_added(headers: dict[str, str]) -> None:
    """Up to 20 headers of up to 4 KiB each."""
    check_headers(headers)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "Host",
            "content-length",
            "Transfer-Encoding",
            "CONNECTION",
            "Upgrade",
            "TE",  # codespell:ignore te
            "Trailer",
        ),
        *("Keep-Alive", "Expect", "Proxy-Authorization", "proxy-connection"),
        *("X-Webhook-Signature", "x-webhook-anything"),
        *("", "X A", "X:A", "X-A\r\nX-B", "X\x00", "Ä", "X-A ", "(X)", "x" * 4096),
    ],
)
def test_a_header_of_ours_or_none_may_not_be_added(name: str) -> None:
    """What frames the request, signs it, or is no token is refused by name."""
    with pytest.raises(ValueError, match="header ") as caught:
        check_headers({"X-Fine": "s3cret", name: "s3cret"})
    assert repr(name[:64]) in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-A": "s3cret\r\nX-B: c"},
        {"X-A": "s3cret\n"},
        {"X-A": "s3cret\x00"},
        {"X-A": "s3cret\t"},
        {"X-A": "s3cret\x7f"},
        {"X-A": "s3cret\x85"},
        {"X-A": "s3crét"},
        {"X-A": "s3cret\ud800"},
        {"X-A": "s3cret" + "x" * 4088},
        {"x-a": "", "X-A": "s3cret"},
    ],
)
def test_a_header_with_a_bad_value_is_named(headers: dict[str, str]) -> None:
    """The message names the header and keeps its value to itself."""
    with pytest.raises(ValueError, match="header 'X-A' ") as caught:
        check_headers(headers)
    assert "s3c" not in str(caught.value)


def test_more_than_20_headers_are_refused() -> None:
    """The bound is exact."""
    with pytest.raises(ValueError, match="more than 20 headers"):
        check_headers({f"X-{number}": "" for number in range(21)})


@given(st.dictionaries(st.text(max_size=12), st.text(max_size=12), max_size=3))
def test_headers_that_pass_are_lines_of_their_own(headers: dict[str, str]) -> None:
    """Whatever passes reads back from a message as the very same headers."""
    try:
        check_headers(headers)
    except ValueError:
        return
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    read = [line.split(": ", 1) for line in lines.encode("ascii").decode().splitlines()]
    assert list(headers.items()) == [(name, value) for name, value in read]
