"""Counting what keys have had."""

import sys
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cypd.limits.buckets import Buckets


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_then_the_rate() -> None:
    """After a pause a burst is let through, then as many as the rate allows."""
    clock = Clock()
    buckets = Buckets(2, 5, clock)

    assert [buckets.try_take("a") for _ in range(10)] == [0.0] * 10
    assert buckets.try_take("a") == pytest.approx(0.5)
    assert buckets.try_take("b") == 0.0
    clock.now += 0.5
    assert buckets.try_take("a") == 0.0
    assert buckets.try_take("a") == pytest.approx(0.5)
    clock.now += 1000
    assert [buckets.try_take("a") for _ in range(10)] == [0.0] * 10
    assert buckets.try_take("a") > 0


def test_a_rate_below_one_lets_one_through() -> None:
    """A burst shorter than the time of one unit still has room for one."""
    clock = Clock()
    buckets = Buckets(0.01, 1, clock)

    assert buckets.try_take("a") == 0.0
    assert buckets.try_take("a") == pytest.approx(100)


def test_credit_is_paid_by_waiting() -> None:
    """What is taken on credit makes the next one wait, for as long as the rate needs."""
    clock = Clock()
    buckets = Buckets(100, 1, clock)

    assert buckets.take("a", 100) == 0.0
    assert buckets.take("a", 300) == 0.0
    assert buckets.take("a", 100) == pytest.approx(3)
    clock.now += 4
    assert buckets.take("a", 1) == pytest.approx(0)


@given(st.lists(st.floats(0, 3), min_size=1, max_size=60))
def test_never_more_than_burst_and_rate(pauses: list[float]) -> None:
    """However requests come, what is let through stays within the burst and the rate since."""
    clock = Clock()
    buckets = Buckets(3, 2, clock)
    start, passed = clock.now, 0
    for pause in pauses:
        clock.now += pause
        if buckets.try_take("a") == 0.0:
            passed += 1
        assert passed <= 3 * (clock.now - start) + 3 * 2 + 1e-6


def test_a_million_keys_take_bounded_memory() -> None:
    """Of a million sources the newest are kept, in 16 MiB; who is forgotten begins anew."""
    clock = Clock()
    buckets = Buckets(1, 1, clock)
    buckets.try_take("first")
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for number in range(1_000_000):
        buckets.try_take(f"2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::")
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert after - before < 16 << 20
    assert buckets.try_take("2001:db8:f:423f::") > 0  # the last one
    assert buckets.try_take("first") == 0.0
    assert sys.getsizeof(buckets) < 1000
