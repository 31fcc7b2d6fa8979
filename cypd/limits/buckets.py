"""Token buckets, one a key, in memory that is bounded however many keys there are."""

from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import Final

# Some 250 bytes each: 8 MiB. Who is forgotten, for not having been heard of for longest, begins
# anew, so all that many addresses gain by it is what as many addresses have anyway.
KEYS: Final = 32 * 1024


class Buckets:
    """``rate`` units a second for each key, and ``burst`` seconds' worth of them at once.

    Of a key only one time is kept: when its bucket is full again (the "generic cell rate
    algorithm"). Seconds throughout.
    """

    def __init__(
        self, rate: float, burst: float, clock: Callable[[], float] = monotonic, keys: int = KEYS
    ) -> None:
        self.rate = rate
        self._seconds = 1 / rate  # a unit takes
        self._burst = max(burst, self._seconds)  # or nothing would ever fit
        self._clock = clock
        self._keys = keys
        self._full: OrderedDict[str, float] = OrderedDict()

    def try_take(self, key: str) -> float:
        """Take one unit and return 0; or take nothing and return when to try again."""
        now = self._clock()
        full = self._full.get(key, 0.0)
        after = max(now, full) + self._seconds
        wait = after - now - self._burst
        if wait > 0:
            return wait
        self._keep(key, after)
        return 0.0

    def take(self, key: str, units: int) -> float:
        """Take units, on credit if need be; return how long to wait before using them."""
        now = self._clock()
        debt = max(self._full.get(key, 0.0) - now, 0.0)
        self._keep(key, now + debt + units * self._seconds)
        return max(debt - self._burst, 0.0)

    def _keep(self, key: str, full: float) -> None:
        known = self._full
        known[key] = full
        known.move_to_end(key)
        if len(known) > self._keys:
            known.popitem(last=False)
