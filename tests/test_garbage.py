"""When reference cycles are looked for."""

import asyncio
import contextlib
import gc
import weakref
from collections.abc import Iterator

import pytest

from cypd import garbage


class Cycle:
    """Refers to itself."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def settled() -> Iterator[None]:
    """The collector as a worker has it; afterwards as it was."""
    thresholds = gc.get_threshold()
    garbage.settle()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()


def _old_cycle() -> "weakref.ref[Cycle]":
    """Return a cycle that nobody refers to, and that the young collections have passed."""
    cycle = Cycle()
    gc.collect(1)
    return weakref.ref(cycle)


async def _collect(connections: int) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.2):
            await garbage.collect(lambda: connections, look_seconds=0.01)


def test_nothing_is_looked_through_by_itself() -> None:
    """However many objects come to stay, no full collection begins in their midst."""
    full = gc.get_stats()[2]["collections"]
    kept = [[number] for number in range(500_000)]

    assert gc.get_stats()[2]["collections"] == full
    assert len(kept) == 500_000


def test_cycles_go_when_few_connections_are_open() -> None:
    """What refers to itself is found all the same, in a quiet moment."""
    cycle = _old_cycle()
    asyncio.run(_collect(connections=100))

    assert cycle() is None


def test_a_crowd_is_left_alone() -> None:
    """With many connections open nobody waits for a full collection."""
    cycle = _old_cycle()
    asyncio.run(_collect(connections=101))

    assert cycle() is not None
