"""Events as they happen, for those who wait for them."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable

from cypd.events.ports import EventStore, Numbered

_LOOK_SECONDS = 0.5
_STEP = 100
HEARTBEAT_SECONDS = 15.0


class Feed:
    """Follows the events of all processes: it asks the store, which knows them all."""

    def __init__(self, store: EventStore, is_ending: Callable[[], bool]) -> None:
        """``is_ending``: whether this process is about to end, and so are those who wait."""
        self._store = store
        self._is_ending = is_ending

    def last_number(self) -> int:
        """Return the number of the last event."""
        return self._store.last_number()

    def first_number(self) -> int:
        """Return the number of the first event that is kept; of the next one, if none is."""
        kept = self._store.events(after=0, limit=1)
        return kept[0].number if kept else self.last_number() + 1

    async def follow(self, after: int) -> AsyncGenerator[Numbered | None, None]:
        """Yield each event after that number, for as long as it is asked; None when all is quiet.

        What follows a long silence may be of one second or of an hour: a receiver that sees
        nothing for two heartbeats has lost its connection.
        """
        spoke = time.monotonic()
        while not self._is_ending():
            found = self._store.events(after=after, limit=_STEP)
            for numbered in found:
                yield numbered
                after, spoke = numbered.number, time.monotonic()
            if found:
                await asyncio.sleep(0)
                continue
            if time.monotonic() - spoke >= HEARTBEAT_SECONDS:
                yield None
                spoke = time.monotonic()
            await asyncio.sleep(_LOOK_SECONDS)
