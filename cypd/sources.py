"""Who counts as one client: an address, or all addresses that one customer has by IPv6."""

import socket

_MAPPED = bytes(10) + b"\xff\xff"


def source(host: str) -> str:
    """Return what stands for the client at an address as a socket tells it.

    An IPv6 address counts with its /64, the least that a customer gets (RFC 6177); one that holds
    an IPv4 address (RFC 4291 section 2.5.5.2) as that.
    """
    if ":" not in host:
        return host
    try:
        packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except OSError:
        return host
    if packed.startswith(_MAPPED):
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    return socket.inet_ntop(socket.AF_INET6, packed[:8] + bytes(8))
