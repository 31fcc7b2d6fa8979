"""Where a webhook goes: to the vetted address and, by TLS, to the name in its URL."""

import ssl

import pytest
import trustme

from cypd.webhooks.poster import Poster
from cypd.webhooks.posting import Answer, Undeliverable
from cypd.webhooks.targets import Targets
from tests.webhooks.house import LOOPBACK, OK, Resolve, failure, poster
from tests.webhooks.receiver import Receiver, closes, replies, starts
from tests.webhooks.targets import INSIDE, NO_TARGETS

REFUSED = "refused: the target's address is not allowed"


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
