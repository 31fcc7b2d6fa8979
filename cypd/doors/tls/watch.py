"""The clients that are too slow: Granian does not tell who they are, the kernel does.

hyper bounds the time for a request's head by what it waits for the next request, and waits for a
reader as long as it takes; of a handshake nobody knows.
"""

import asyncio
from collections.abc import Collection
from contextlib import suppress
from typing import Any

from cypd.doors.plain.limits import Limits
from cypd.doors.tls import sockets as kernel

_LOOKS = 16  # descriptors in one turn of the loop


class Watch:
    """Looks at every connection once in ``limits.sweep``, and hangs up on who is too slow.

    That is who takes less than ``limits.rate`` bytes a second for ``limits.rate_window`` seconds,
    and who has come and dribbles for more than ``limits.header`` without having asked anything.
    """

    def __init__(self, addresses: Collection[kernel.Address], limits: Limits) -> None:
        self._addresses = addresses
        self._limits = limits
        self._asked: set[int] = set()
        self._clients: dict[Any, _Client] = {}

    def heard(self, port: int) -> None:
        """Note that a client at that port has sent a request."""
        self._asked.add(port)

    async def run(self) -> None:
        """Look until it is cancelled."""
        while True:
            # Before the list: who has asked already is in it.
            asked, self._asked = self._asked, set()
            try:
                # In a thread: the kernel takes a microsecond for each.
                descriptors = await asyncio.to_thread(kernel.descriptors)
            except OSError:  # there is none left to ask with
                await asyncio.sleep(self._limits.sweep)
                continue
            await self._sweep(descriptors, asked)

    async def _sweep(self, descriptors: list[int], asked: set[int]) -> None:
        now = asyncio.get_running_loop().time()
        before, self._clients = self._clients, {}
        pause = self._limits.sweep / (len(descriptors) // _LOOKS + 1)
        for start in range(0, len(descriptors), _LOOKS):
            for descriptor in descriptors[start : start + _LOOKS]:
                with suppress(OSError):  # of somebody else, or the client was faster
                    self._look(descriptor, now, before, asked)
            await asyncio.sleep(pause)

    def _look(
        self, descriptor: int, now: float, before: dict[Any, "_Client"], asked: set[int]
    ) -> None:
        with kernel.connection(descriptor, self._addresses) as sock:
            peer, progress = sock.getpeername(), kernel.progress(sock)
            client = before.get(peer)
            if client is None or progress.acked < client.progress.acked:  # another one
                client = _Client(progress)
            client.has_asked |= peer[1] in asked
            if client.is_too_slow(now, progress, self._limits):
                kernel.hang_up(sock)
            else:
                self._clients[peer] = client


class _Client:
    """What a connection has done from one look to the next."""

    __slots__ = ("_behind", "_coming", "_late", "has_asked", "progress")

    def __init__(self, progress: kernel.Progress) -> None:
        self.progress = progress
        self.has_asked = False
        self._behind: tuple[float, int] | None = None  # since when, and what it had taken by then
        self._coming: float | None = None  # since when it sends, without an answer
        self._late = 0  # looks that saw it do so for too long

    def is_too_slow(self, now: float, progress: kernel.Progress, limits: Limits) -> bool:
        """Compare with the last look."""
        last, self.progress = self.progress, progress
        if not progress.is_sending:
            self._behind = None
        elif self._reads_too_slowly(now, progress.acked, limits):
            return True
        has_come = progress.received > last.received and progress.acked == last.acked
        return has_come and not self.has_asked and self._dribbles(now, limits)

    def _reads_too_slowly(self, now: float, acked: int, limits: Limits) -> bool:
        if self._behind is None:
            self._behind = now, acked
        since, before = self._behind
        if now - since < limits.rate_window:
            return False
        self._behind = now, acked
        return acked - before < limits.rate * limits.rate_window

    def _dribbles(self, now: float, limits: Limits) -> bool:
        if self._coming is None:
            self._coming = now
        # Twice: a first request may just have come, and not be heard of yet.
        self._late += now - self._coming > limits.header
        return self._late > 1
