"""When Python looks for reference cycles: the young ones always, all of them when few are there.

A full collection visits every object of every open connection. In the middle of 5,000 of them that
takes 180 ms (and CPython starts one whenever a quarter has been added), while everybody waits. Next
to nothing in here is a cycle that lives long enough to need one.
"""

import asyncio
import gc
import time
from collections.abc import Callable
from typing import Final

_FEW: Final = 100  # connections, whose objects are visited in a few milliseconds
_NEVER: Final = 2**31 - 1
_LOOK_SECONDS: Final = 60.0
_MOST_SECONDS: Final = 3600.0


def settle() -> None:
    """Spare what was built to stay, and start no full collection by itself any more."""
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, _NEVER)


async def collect(connections: Callable[[], int], look_seconds: float = _LOOK_SECONDS) -> None:
    """Collect whenever few connections are open, and once an hour however many there are."""
    last = time.monotonic()
    while True:
        await asyncio.sleep(look_seconds)
        if connections() <= _FEW or time.monotonic() - last >= _MOST_SECONDS:
            gc.collect()
            last = time.monotonic()
