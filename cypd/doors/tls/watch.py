"""The clients that are too slow: Granian does not tell who they are, the kernel does.

hyper bounds the time for a request's head by what it waits for the next request, and waits for a
reader as long as it takes; of a handshake nobody knows.
"""

import asyncio
from collections import deque
from collections.abc import Collection
from contextlib import suppress
from typing import Any, NamedTuple

from cypd.doors.plain.limits import Limits
from cypd.doors.tls import sockets as kernel

_LOOKS = 16  # descriptors in one turn of the loop
_MARKS = 6  # in a window, from which it is looked back


class Watch:
    """Looks at every connection once in ``limits.sweep``, and hangs up on who is too slow.

    That is who takes less than ``limits.rate`` bytes a second for ``limits.rate_window`` seconds,
    and who has come and dribbles for more than ``limits.header`` without having asked anything.
    """

    def __init__(self, addresses: Collection[kernel.Address], limits: Limits) -> None:
        self._addresses = addresses
        self._limits = limits
        self._news = _News(set(), set())
        self._clients: dict[Any, _Client] = {}

    def heard(self, client: kernel.Address) -> None:
        """Note that a client has sent a request."""
        self._news.asked.add(client[1])

    def give_up(self, client: kernel.Address) -> None:
        """End the connection with a client soon: its request is over, and was not answered.

        Where the rest of a body may still come, hyper waits for it, and does not read it.
        """
        self._news.lost.add(client)

    async def run(self) -> None:
        """Look until it is cancelled."""
        while True:
            # Before the list: who has asked already is in it.
            news, self._news = self._news, _News(set(), set())
            try:
                # In a thread: the kernel takes a microsecond for each.
                descriptors = await asyncio.to_thread(kernel.descriptors)
            except OSError:  # there is none left to ask with
                self._news = _News(news.asked | self._news.asked, news.lost | self._news.lost)
                await asyncio.sleep(self._limits.sweep)
                continue
            await self._sweep(descriptors, news)

    async def _sweep(self, descriptors: list[int], news: "_News") -> None:
        now = asyncio.get_running_loop().time()
        before, self._clients = self._clients, {}
        pause = self._limits.sweep / (len(descriptors) // _LOOKS + 1)
        for start in range(0, len(descriptors), _LOOKS):
            for descriptor in descriptors[start : start + _LOOKS]:
                with suppress(OSError):  # of somebody else, or the client was faster
                    self._look(descriptor, now, before, news)
            await asyncio.sleep(pause)

    def _look(
        self, descriptor: int, now: float, before: dict[Any, "_Client"], news: "_News"
    ) -> None:
        with kernel.connection(descriptor, self._addresses) as sock:
            peer, progress = sock.getpeername(), kernel.progress(sock)
            client = before.get(peer)
            if client is None or progress.acked < client.progress.acked:  # another one
                client = _Client(progress)
            client.has_asked |= peer[1] in news.asked
            if peer[:2] in news.lost or client.is_too_slow(now, progress, self._limits):
                kernel.hang_up(sock)
            else:
                self._clients[peer] = client


class _News(NamedTuple):
    """What was heard of clients since the last look."""

    asked: set[int]
    """Ports, of whatever host: nobody is ended for being in here."""
    lost: set[kernel.Address]


class _Client:
    """What a connection has done from one look to the next."""

    __slots__ = ("_coming", "_late", "_taken", "has_asked", "progress")

    def __init__(self, progress: kernel.Progress) -> None:
        self.progress = progress
        self.has_asked = False
        self._taken = deque[tuple[float, int]]()  # by when how much, while there is more to take
        self._coming: float | None = None  # since when it sends, without an answer
        self._late = 0  # looks that saw it do so for too long

    def is_too_slow(self, now: float, progress: kernel.Progress, limits: Limits) -> bool:
        """Compare with the last look."""
        last, self.progress = self.progress, progress
        if not progress.is_sending:
            self._taken.clear()
        elif self._reads_too_slowly(now, progress.acked, limits):
            return True
        has_come = progress.received > last.received and progress.acked == last.acked
        return has_come and not self.has_asked and self._dribbles(now, limits)

    def _reads_too_slowly(self, now: float, acked: int, limits: Limits) -> bool:
        """Tell whether the last window was too slow, wherever it began.

        Windows one after the other would forgive who fills his buffers in the first of them.
        """
        taken, window = self._taken, limits.rate_window
        if not taken or now - taken[-1][0] >= window / _MARKS:
            taken.append((now, acked))
        since, before = taken[0]
        if now - since < window:
            return False
        taken.popleft()
        return acked - before < limits.rate * window

    def _dribbles(self, now: float, limits: Limits) -> bool:
        if self._coming is None:
            self._coming = now
        # Twice: a first request may just have come, and not be heard of yet.
        self._late += now - self._coming > limits.header
        return self._late > 1
