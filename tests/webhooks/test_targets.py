"""Which targets a webhook may have."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cypd.webhooks.targets import Targets
from tests.webhooks.targets import INSIDE, NO_TARGETS

EVERYBODY = Targets([])
# Refused beyond what the standard library calls not global (which depends on its version).
RESERVED = [
    IPv4Network(network) for network in ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32")
]


def refusal(targets: Targets, url: str) -> str:
    """Return why a URL is refused, ``""`` if it is not."""
    try:
        targets.check(url)
    except ValueError as error:
        return str(error)
    return ""


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_dialled_only_if_it_is_global(ip: IPv4Address) -> None:
    """The rule agrees with IANA's registry as the standard library has it, less multicast."""
    is_public = ip.is_global and not ip.is_multicast
    reserved = any(ip in network for network in RESERVED)

    assert (is_public and not reserved) == EVERYBODY.permits(str(ip))


@given(st.ip_addresses(v=6))
def test_an_ipv6_address_is_dialled_only_if_it_is_global_unicast(ip: IPv6Address) -> None:
    """What is let through is global unicast to the standard library as well."""
    if EVERYBODY.permits(str(ip)):
        carried = ip.ipv4_mapped or ip.sixtofour or ip.teredo
        embedded = carried or int(ip) >> 32 in (0, 0xFFFF0000, 0x64FF9B << 64)
        assert embedded or (ip.is_global and not ip.is_multicast and not ip.is_site_local)


@given(ip=st.ip_addresses(v=4), tail=st.integers(0, (1 << 80) - 1))
@example(ip=IPv4Address("127.0.0.1"), tail=1)
@example(ip=IPv4Address("169.254.169.254"), tail=0)
@example(ip=IPv4Address("8.8.8.8"), tail=1)
def test_an_ipv4_address_is_judged_alike_in_every_ipv6_form(ip: IPv4Address, tail: int) -> None:
    """Mapped, compatible, translated, NAT64, 6to4 and Teredo are no way around the rule."""
    number, public = int(ip), int(IPv4Address("8.8.8.8"))
    teredo = 0x20010000 << 96 | (tail & 0xFFFFFFFF) << 32
    forms = [
        number,
        0xFFFF << 32 | number,
        0xFFFF << 48 | number,
        0x64FF9B << 96 | number,
        0x2002 << 112 | number << 80 | tail,
        teredo | public << 64 | number ^ 0xFFFFFFFF,
        teredo | number << 64 | public ^ 0xFFFFFFFF,
    ]
    for targets in (EVERYBODY, Targets(["10.0.0.0/8", "127.0.0.0/8"])):
        verdicts = {
            str(IPv6Address(form)): targets.permits(str(IPv6Address(form))) for form in forms
        }
        assert dict.fromkeys(verdicts, targets.permits(str(ip))) == verdicts


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.31.255.255"),
        *("192.168.0.1", "198.18.0.1", "192.0.2.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
        *("100.100.100.200", "168.63.129.16", "192.0.0.192"),
        *("::", "::1", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1"),
        *("2001:db8::1", "3fff::1", "2001:20::1", "100::1", "64:ff9b:1::808:808", "5f00::1"),
        *("2606:4700::1%eth0", "127.1", "0177.0.0.1", "2130706433", "0x7f.0.0.1", "8.8.8.8 "),
        *("8.8.8.8\n", "[2606:4700::1]", "example.com", "", "\ud800", "８.8.8.8"),
    ],
)
def test_an_inside_address_and_what_is_none_are_not_dialled(address: str) -> None:
    """Private, local, special, scoped and malformed addresses are refused by default."""
    assert not EVERYBODY.permits(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "2a00:1450::1"])
def test_everybodys_addresses_are_dialled(address: str) -> None:
    """Addresses of the public Internet need no configuration."""
    assert EVERYBODY.permits(address)


@given(ip=st.ip_addresses(v=4), other=st.ip_addresses(v=4), length=st.integers(0, 32))
@example(ip=IPv4Address("10.255.255.255"), other=IPv4Address("10.0.0.0"), length=8)
@example(ip=IPv4Address("11.0.0.0"), other=IPv4Address("10.0.0.0"), length=8)
def test_an_allowed_network_lets_its_own_addresses_through_and_no_others(
    ip: IPv4Address, other: IPv4Address, length: int
) -> None:
    """``allow_networks`` adds exactly what it names."""
    network = IPv4Network((other, length), strict=False)

    expected = ip in network or EVERYBODY.permits(str(ip))
    assert expected == Targets(["fd00::/8", str(network)]).permits(str(ip))


def test_an_ipv6_network_is_allowed_without_its_zones() -> None:
    """A unique local network can be allowed; an address with a zone never is."""
    targets = Targets(["fd12:3456::/32", "fe80::/10"])

    assert targets.permits("fd12:3456::1")
    assert targets.permits("fe80::1")
    assert not targets.permits("fd12:3457::1")
    assert not targets.permits("fe80::1%eth0")


@pytest.mark.parametrize("network", ["10.0.0.1/8", "10.0.0.0/33", "inside", "", "fe80::%eth0/64 "])
def test_a_bad_network_is_named(network: str) -> None:
    """The message repeats the network and shows how one is written."""
    with pytest.raises(ValueError, match=r"is not a network in CIDR notation") as caught:
        Targets(["10.0.0.0/8", network])
    assert repr(network) in str(caught.value)


@pytest.mark.parametrize("url", INSIDE + NO_TARGETS)
def test_a_target_inside_is_refused_however_it_is_spelt(url: str) -> None:
    """Each is refused when it is written, with a reason that repeats nothing of it."""
    reason = refusal(EVERYBODY, url.replace("{port}", "8080"))

    assert reason
    assert "s3cret" not in reason


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com",
        "HTTPS://Example.COM:8443/hook?key=%20a&b",
        "https://bücher.example/",
        "http://8.8.8.8:65535/",
        "http://[2606:4700:4700::1111]:1/",
        "https://hooks_1.example.com./",
        "http://intranet/hook",
        "http://1password.com/",
        "http://x/@/a:b",
        "http://localhost.example/",
    ],
)
def test_an_ordinary_target_is_taken(url: str) -> None:
    """Names are taken as they are: what they stand for is judged when they are dialled."""
    assert refusal(EVERYBODY, url) == ""


def test_loopback_is_taken_where_it_is_allowed() -> None:
    """An allowed network opens its literals, and loopback its names, but no odd spelling."""
    v4, v6 = Targets(["127.0.0.0/8"]), Targets(["::1/128"])

    assert "" == refusal(v4, "http://127.0.0.1:80/") == refusal(v4, "http://[::ffff:127.0.0.1]/")
    assert "" == refusal(v4, "http://localhost./") == refusal(v6, "http://a.localhost/")
    assert "" == refusal(v6, "http://[0:0::1]/")
    assert "" == refusal(v4, "http://１２７。0.0.1/")
    for odd in ("http://127.1/", "http://2130706433/", "http://0x7f.0.0.1/", "http://[::1]/"):
        assert refusal(v4, odd)


def test_a_url_has_2048_characters_at_most() -> None:
    """The bound is exact."""
    url = "http://example.com/".ljust(2048, "x")

    assert refusal(EVERYBODY, url) == ""
    assert "2048" in refusal(EVERYBODY, url + "x")


URLS = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["http://", "https://", "HTTP://", "http:/", "file://", "//", ""]),
        st.text() | st.ip_addresses().map(str) | st.from_regex(r"[a-z@:\[\]\.%0-9]{1,12}"),
        st.sampled_from(["", ":80", ":0", ":99999", ":", ":+8"]),
        st.text(max_size=5) | st.sampled_from(["", "/", "/a?b#c", "?x", "#y"]),
    ),
)


@given(st.text() | URLS)
def test_a_url_that_is_taken_can_only_be_plain(url: str) -> None:
    """Any text is refused, or another parser sees a scheme, a host and no user in it too."""
    if not refusal(EVERYBODY, url):
        seen = urlsplit(url)
        assert seen.scheme in ("http", "https")
        assert seen.hostname
        assert seen.username is None
        assert seen.password is None
        assert seen.fragment == ""
        assert 1 <= (seen.port or 80) <= 65535
