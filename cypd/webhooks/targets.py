"""Which targets a webhook may have: everybody's addresses, and of ours only those allowed.

A project's owner writes the URL, the daemon dials it from inside. So a URL is refused when it is
written, as far as it tells, and an address each time it is about to be dialled: what a name stands
for can change in between.
"""

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from yarl import URL

MAX_URL = 2048
_NOT_ALLOWED = "the target's address is not allowed"

# IANA's registries of special-purpose addresses; two ranges that clouds keep for themselves
# (192.0.0.0/24 in whole: Oracle's metadata is at .192; 168.63.129.16: Azure's host); and of IPv6
# all but 2000::/3, the only block from which global unicast addresses are given out.
_NEVER = tuple(
    map(
        ip_network,
        (
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
            *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16"),
            *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3"),
            "168.63.129.16/32",
            *("::/3", "4000::/2", "8000::/1", "2001::/23", "2001:db8::/32", "3fff::/20"),
        ),
    )
)
# Where an IPv6 address carries an IPv4 address: bits from its end, and what they are XORed with.
_CARRIERS = (
    (IPv6Network("::/96"), ((0, 0),)),  # IPv4-compatible, RFC 4291 2.5.5.1
    (IPv6Network("::ffff:0:0/96"), ((0, 0),)),  # IPv4-mapped, RFC 4291 2.5.5.2
    (IPv6Network("::ffff:0:0:0/96"), ((0, 0),)),  # IPv4-translated, RFC 7915
    (IPv6Network("64:ff9b::/96"), ((0, 0),)),  # NAT64, RFC 6052
    (IPv6Network("2002::/16"), ((80, 0),)),  # 6to4, RFC 3056
    (IPv6Network("2001::/32"), ((64, 0), (0, 0xFFFFFFFF))),  # Teredo: server, client, RFC 4380 4
)

_AUTHORITY = re.compile(r"(?:\[[^\]]*\]|[^:\[\]]+)(?::([0-9]{1,5}))?", re.ASCII)
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*", re.ASCII)
# WHATWG URL, "ends in a number": such a host is an IPv4 address or none at all, whatever
# inet_aton(3) makes of it (2130706433, 0x7f.1, 0177.0.0.1 and 127.1 are all loopback to it).
_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)", re.ASCII)


class Targets:
    """The rule; ``allow_networks`` (CIDR notation) are let through although they are not global."""

    def __init__(self, allow_networks: Sequence[str]) -> None:
        """Raise ValueError, which names the network, for one that is not CIDR notation."""
        self._allowed = tuple(map(_network, allow_networks))

    def permits(self, address: str) -> bool:
        """Tell if an IP address, as it stands in a socket address, may be dialled."""
        try:
            ip = ip_address(address)
        except ValueError:
            return False
        if "%" in address:  # a zone is a link of this host, RFC 4007
            return False
        return self._permits(ip)

    def _permits(self, ip: IPv4Address | IPv6Address) -> bool:
        if any(ip in network for network in self._allowed):
            return True
        carried = _carried(ip)
        if carried:
            return all(map(self._permits, carried))
        return not any(ip in network for network in _NEVER)

    def check(self, url: str) -> None:
        """Raise ValueError with the reason, which repeats nothing of ``url``, for a bad target.

        Names are not resolved: what they stand for is judged when they are dialled.
        """
        if len(url) > MAX_URL:
            raise ValueError(f"it is longer than {MAX_URL} characters")
        if not url.isprintable() or " " in url or "\\" in url:
            raise ValueError("it has a space, a control character or a backslash")
        scheme, _, rest = url.partition("://")
        if scheme.lower() not in ("http", "https"):
            raise ValueError("it does not start with http:// or https://")
        authority = re.split("[/?#]", rest, maxsplit=1)[0]
        if "#" in rest or not rest.removeprefix(authority).isascii():
            raise ValueError("it has a fragment, or a path that is not ASCII")
        if "@" in authority:
            raise ValueError("it has a user name or password; use a header for those")
        match = _AUTHORITY.fullmatch(authority)
        if not match or not 1 <= int(match[1] or 80) <= 65535:
            raise ValueError("it has no host, or a port that is not 1 to 65535")
        self._check_host(_dialled_host(url), is_literal=authority.startswith("["))

    def _check_host(self, host: str, *, is_literal: bool) -> None:
        if is_literal or _NUMBER.fullmatch(host.rstrip(".")):
            if not self.permits(host):
                raise ValueError(_NOT_ALLOWED)
            return
        name = host.removesuffix(".")
        if not _NAME.fullmatch(name):
            raise ValueError("its host is not a name that DNS could know")
        # RFC 6761 6.3: these are loopback everywhere.
        is_local = name == "localhost" or name.endswith(".localhost")
        if is_local and not (self.permits("127.0.0.1") or self.permits("::1")):
            raise ValueError(_NOT_ALLOWED)


def _dialled_host(url: str) -> str:
    # The HTTP client takes the host from a yarl.URL too: another parser could see another one.
    try:
        return URL(url).raw_host or ""
    except ValueError:
        raise ValueError("its host is not valid") from None


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError:
        message = f"{text!r} is not a network in CIDR notation, like 10.0.0.0/8 or fd00::/8"
        raise ValueError(message) from None


def _carried(ip: IPv4Address | IPv6Address) -> list[IPv4Address]:
    for network, places in _CARRIERS:
        if ip in network:
            return [IPv4Address((int(ip) >> shift & 0xFFFFFFFF) ^ mask) for shift, mask in places]
    return []
