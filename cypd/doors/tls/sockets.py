"""What only the kernel knows: Granian does not tell which connections it has.

It owns their descriptors, so they are looked at through duplicates.
"""

import fcntl
import os
import re
import select
import socket
import stat
import struct
import termios
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

Address = tuple[str, int]

# struct tcp_info: tcpi_bytes_acked, tcpi_bytes_received; Linux 4.1
_MOVED = struct.Struct("=120xQQ")
_INT = struct.Struct("i")  # tcp(7), SIOCOUTQ

_ANYWHERE = frozenset(("0.0.0.0", "::"))  # noqa: S104 - compared with, not bound


def connections(listening: Address) -> Iterator[socket.socket]:
    """Yield a duplicate of each connection that came in at ``listening``, for the moment."""
    host, port = listening
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError), _duplicate(int(name)) as sock:
            if _is_ours(sock, host, port):
                yield sock


def _duplicate(descriptor: int) -> socket.socket:
    """Raises OSError for what is no socket, or was closed meanwhile."""
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        raise OSError("no socket")
    return socket.socket(fileno=os.dup(descriptor))


def _is_ours(sock: socket.socket, host: str, port: int) -> bool:
    if sock.family not in {socket.AF_INET, socket.AF_INET6} or sock.type != socket.SOCK_STREAM:
        return False
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return False
    own = sock.getsockname()
    return own[1] == port and (host in _ANYWHERE or own[0] == host)


class Silence(NamedTuple):
    """A connection that nothing is under way on, and what has gone over it up to then."""

    peer: tuple[object, ...]
    acked: int
    received: int


def silence(connection: socket.socket) -> Silence | None:
    """Return how far a connection is, if all that was sent has been taken; else ``None``.

    Raises OSError for one that has ended.
    """
    (unsent,) = _INT.unpack(fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(_INT.size)))
    if unsent:
        return None
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _MOVED.size)
    return Silence(connection.getpeername(), *_MOVED.unpack(info))


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
