"""When a store is asked again, and when it is not asked at all."""

import asyncio
import time

import pytest

from cypd.registry.ports import Unavailable
from cypd.storage.s3 import circuit as module
from cypd.storage.s3.circuit import Circuit, Passing


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        real = asyncio.sleep

        async def sleep(seconds: float) -> None:
            self.now += seconds
            await real(0)

        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(asyncio, "sleep", sleep)


class Service:
    """Fails as often as it is told to."""

    def __init__(self, failures: float) -> None:
        self.failures = failures
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        await asyncio.sleep(0.1)
        if self.calls <= self.failures:
            raise Passing("503")
        return "content"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock of the test's own."""
    return Clock(monkeypatch)


async def test_what_fails_for_once_is_tried_again(clock: Clock) -> None:
    """The caller does not notice."""
    service = Service(3)

    assert await Circuit(longest=30).call(service) == "content"
    assert service.calls == 4


async def test_what_goes_on_failing_is_given_up(clock: Clock) -> None:
    """After a bounded number of attempts, and of seconds."""
    for longest, calls in ((30.0, 6), (0.05, 1)):
        service = Service(float("inf"))
        with pytest.raises(Unavailable, match="503"):
            await Circuit(longest=longest).call(service)
        assert service.calls == calls


async def test_other_errors_are_the_callers(clock: Clock) -> None:
    """They are raised as they are, and are no sign that the store is down."""
    circuit = Circuit(longest=30)

    async def wrong() -> None:
        raise ValueError

    for _ in range(10):
        with pytest.raises(ValueError):  # noqa: PT011 (its kind is all that matters)
            await circuit.call(wrong)
    assert not circuit.is_open


async def test_a_store_that_is_down_is_not_asked(clock: Clock) -> None:
    """Callers are refused at once; one at a time looks whether it is back, then all pass."""
    circuit, service = Circuit(longest=30), Service(float("inf"))
    while not circuit.is_open:
        with pytest.raises(Unavailable):
            await circuit.call(service)
        clock.now += 2
    await asyncio.sleep(0)
    clock.now -= 1.9  # within the pause
    before = service.calls
    with pytest.raises(Unavailable, match="is down"):
        await circuit.call(service)
    assert service.calls == before

    clock.now += 100
    service.failures = before
    found = await asyncio.gather(*(circuit.call(service) for _ in range(5)))
    assert found == ["content"] * 5
    assert not circuit.is_open


async def test_one_look_at_a_time(clock: Clock) -> None:
    """Of those who come when the pause is over one is let through; its failure is everybody's."""
    circuit, service = Circuit(longest=0), Service(float("inf"))
    while not circuit.is_open:
        with pytest.raises(Unavailable):
            await circuit.call(service)
        clock.now += 2
    clock.now += 100
    before = service.calls
    found = await asyncio.gather(*(circuit.call(service) for _ in range(5)), return_exceptions=True)
    assert all(isinstance(it, Unavailable) for it in found)
    assert service.calls == before + 1


async def test_retries_have_a_budget(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many callers fail, they do not ask several times as much together."""
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", float("inf"))
    circuit, service = Circuit(longest=1e9), Service(float("inf"))
    for _ in range(100):
        with pytest.raises(Unavailable):
            await circuit.call(service)

    assert service.calls <= 100 + module._BUDGET
