"""A bound on bytes a second, for work beside those who wait for an answer."""

import asyncio
import time


class Pace:
    """``rate`` is bytes a second; 0: no bound."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._free_at = 0.0

    async def spend(self, count: int) -> None:
        """Return when ``count`` bytes more are in order."""
        if self._rate:
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + count / self._rate
            await asyncio.sleep(self._free_at - now)
