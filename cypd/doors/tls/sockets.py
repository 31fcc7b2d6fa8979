"""What only the kernel knows: Granian does not tell which connections it has.

It owns their descriptors, so they are looked at through duplicates.
"""

import os
import re
import select
import socket
import struct
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from cypd.doors.plain.acceptor import reset

Address = tuple[str, int]

# struct tcp_info (Linux 4.6): tcpi_unacked, tcpi_bytes_acked, _bytes_received, tcpi_notsent_bytes
_INFO = struct.Struct("=24xI92xQQ8xI")

_ANYWHERE = frozenset(("0.0.0.0", "::"))  # noqa: S104 - compared with, not bound


def descriptors() -> list[int]:
    """Return those that are open. Raises OSError where there is none left to ask with."""
    return [int(name) for name in os.listdir("/proc/self/fd")]


def connections(listening: Collection[Address]) -> Iterator[socket.socket]:
    """Yield a duplicate of each connection that came in at these addresses, for the moment."""
    with suppress(OSError):
        for descriptor in descriptors():
            with suppress(OSError), connection(descriptor, listening) as sock:
                yield sock


def connection(descriptor: int, listening: Collection[Address]) -> socket.socket:
    """Return a duplicate of a connection that came in at one of these addresses.

    Raises OSError for whatever else the descriptor is.
    """
    # Most are somebody else's, and looked at as they are: a duplicate takes five times as long.
    seen = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=descriptor)
    try:
        _require_ours(seen, listening)
    finally:
        seen.detach()
    sock = socket.socket(fileno=os.dup(descriptor))
    try:
        _require_ours(sock, listening)  # it may be another one since
        sock.getpeername()  # what listens has none
    except OSError:
        sock.close()
        raise
    return sock


def _require_ours(sock: socket.socket, listening: Collection[Address]) -> None:
    own = sock.getsockname()
    if isinstance(own, tuple):  # a name of the internet
        for host, port in listening:
            if own[1] == port and (host in _ANYWHERE or own[0] == host):
                return
    raise OSError("not a connection of this door")


class Progress(NamedTuple):
    """How far a connection is, in bytes that its client has sent and taken."""

    received: int
    acked: int
    is_sending: bool
    """Something was sent that the client has not taken yet."""


def progress(sock: socket.socket) -> Progress:
    """Ask TCP (tcp(7), TCP_INFO). Raises OSError for a connection that has ended."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
    unacked, acked, received, unsent = _INFO.unpack(info)
    return Progress(received, acked, bool(unacked or unsent))


def hang_up(sock: socket.socket) -> None:
    """End a connection, and let the kernel forget what the client has not taken.

    Raises OSError for one that has ended.
    """
    reset(sock)
    sock.shutdown(socket.SHUT_RDWR)


def stop_accepting(descriptor: int) -> None:
    """Make the reactor that waits for connections at ``descriptor`` hear of none any more.

    It must be the only one that does: a duplicate of the listening socket for it alone. What the
    reactor has accepted it keeps. proc(5): an epoll instance tells what it watches in ``fdinfo``.
    """
    watched = re.compile(rf"^tfd:\s+{descriptor}\s", re.MULTILINE)
    for name in os.listdir("/proc/self/fdinfo"):
        with suppress(OSError):
            if watched.search(Path("/proc/self/fdinfo", name).read_text()):
                with select.epoll.fromfd(os.dup(int(name))) as epoll:
                    epoll.unregister(descriptor)
