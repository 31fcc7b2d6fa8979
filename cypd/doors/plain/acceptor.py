"""New connections, one for each turn of the loop.

libuv accepts until the queue is empty, so of several processes that share a listening socket the
first to wake up would take a burst alone. One at a time leaves the rest to whoever is idle.
"""

import asyncio
import errno
import logging
import os
import resource
import socket
import struct
from collections.abc import Callable
from typing import Final

_log = logging.getLogger(__name__)

# One in so many descriptors is kept from connections, for the files that their requests open.
_KEPT: Final = 8
_BURST: Final = 0.002  # seconds between two connections that came together
_PAUSE: Final = 0.05  # seconds without accepting, where the kernel lacks something
_QUIET: Final = 10.0  # seconds between two lines of the log
_NO_LINGER: Final = struct.pack("ii", 1, 0)
# accept(2): it passes on network errors of the new connection, to be treated like EAGAIN.
_NOTHING_THERE: Final = frozenset(
    (
        *(errno.EAGAIN, errno.EINTR, errno.ECONNABORTED, errno.EPROTO, errno.ENOPROTOOPT),
        *(errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH),
        *(errno.ENONET, errno.EOPNOTSUPP, errno.EPERM),
    )
)

Take = Callable[[socket.socket, object], bool]
"""Takes a connection and its peer's address; False if there is no room for it."""


def reset(sock: socket.socket) -> None:
    """Make the close of a connection an RST, with which the kernel's buffers go at once."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)


class Acceptor:
    """Accepts on one listening socket, until ``stop``, which closes it.

    Other processes that hold the socket go on, and have what the kernel still queues; ``shared``
    tells that there are some.

    What there is no room or no descriptor for is reset at once: a client that would only wait to
    be accepted had better try again.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, take: Take, *, shared: bool
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._take = take
        self._is_shared = shared
        self._spare: int | None = None  # a descriptor to accept with when there is no other
        self._resume: asyncio.TimerHandle | None = None
        self._last = 0.0  # when the last one came
        self._turned_away = 0  # since the last line of the log
        self._quiet_until = 0.0

    def start(self, backlog: int) -> None:
        """Listen."""
        self._sock.setblocking(False)
        self._sock.listen(backlog)
        self._spare = os.open("/", os.O_PATH | os.O_CLOEXEC)
        self._loop.add_reader(self._sock, self._accept)

    def stop(self) -> None:
        """Hear of no connection any more."""
        if self._resume is not None:
            self._resume.cancel()
        self._loop.remove_reader(self._sock)
        self._sock.close()
        self._give_spare()

    def _accept(self) -> None:
        if self._is_shared:
            self._share()
        try:
            sock, address = self._sock.accept()
        except OSError as error:
            self._failed(error)
            return
        # POSIX: a new descriptor is the lowest that is free, so its number tells how many are open.
        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if sock.fileno() >= most - most // _KEPT:
            self._turn_away(sock, "file descriptors")
        elif not self._take(sock, address):
            self._turn_away(sock, "room for connections")

    def _share(self) -> None:
        """Let others have the core before the next one of a burst is taken.

        Who is awake would take all of it, while processes that were woken wait to be scheduled.
        """
        now = self._loop.time()
        if now - self._last < _BURST:
            os.sched_yield()
        self._last = now

    def _turn_away(self, sock: socket.socket, lacking: str) -> None:
        reset(sock)
        sock.close()
        self._turned_away += 1
        self._complain(f"not enough {lacking}")

    def _complain(self, reason: str) -> None:
        now = self._loop.time()
        if now >= self._quiet_until:
            self._quiet_until = now + _QUIET
            _log.warning("%s; new connections turned away: %d", reason, self._turned_away)
            self._turned_away = 0

    def _failed(self, error: OSError) -> None:
        if error.errno in _NOTHING_THERE:
            return
        if error.errno in {errno.EMFILE, errno.ENFILE} and self._give_spare():
            try:
                sock, _ = self._sock.accept()
            except OSError:
                pass
            else:
                self._turn_away(sock, "file descriptors")
            if self._take_spare():
                return
        self._complain(error.strerror or str(error))
        self._loop.remove_reader(self._sock)  # or the loop would spin on what it can't take
        self._resume = self._loop.call_later(_PAUSE, self._go_on)

    def _go_on(self) -> None:
        self._resume = None
        if self._spare is None:
            self._take_spare()
        self._loop.add_reader(self._sock, self._accept)

    def _give_spare(self) -> bool:
        if self._spare is None:
            return False
        os.close(self._spare)
        self._spare = None
        return True

    def _take_spare(self) -> bool:
        try:
            self._spare = os.open("/", os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return False
        return True
