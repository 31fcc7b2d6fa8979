"""Who sends next, of all that have a large file under way and a socket that takes more of it.

Answers that are small do not come here: they are sent when they are made. Between two spans of
large ones every other event of the loop has its turn, however many large ones there are.
"""

import asyncio
from collections import OrderedDict, deque
from time import monotonic
from typing import Final, Protocol

# Seconds of sending before everything else has its turn: what a small answer waits for at most.
SPAN: Final = 0.001


class Sender(Protocol):
    """What waits for its turn."""

    def take_turn(self) -> None:
        """Send a slice."""


class Turns:
    """One slice for each client in turn, whatever number of transfers it has.

    While there is time for all, nobody waits, and all of this costs a look at the clock.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: OrderedDict[str, deque[Sender]] = OrderedDict()
        self._end = 0.0  # of the present span

    def ask(self, client: str, sender: Sender) -> None:
        """Let ``sender`` take its turn when it has come."""
        waiting, now = self._waiting, monotonic()
        if not waiting:
            if now >= self._end + SPAN:  # the last one is long over
                self._end = now + SPAN
            if now < self._end:
                sender.take_turn()
                return
            self._loop.call_soon(self._run)
        queue = waiting.get(client)
        if queue is None:
            queue = waiting[client] = deque()
        queue.append(sender)

    def _run(self) -> None:
        waiting = self._waiting
        self._end = monotonic() + SPAN
        while True:
            client, queue = waiting.popitem(last=False)
            sender = queue.popleft()
            if queue:
                waiting[client] = queue
            sender.take_turn()
            if not waiting:
                return
            if monotonic() >= self._end:
                break
        self._loop.call_soon(self._run)
