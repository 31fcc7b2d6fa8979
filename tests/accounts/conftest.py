"""A house of accounts, and the time of day in it."""

import pytest

from cypd.metadata.memory.accounts import MemoryAccounts
from tests.accounts.house import Clock, House


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time, stopped."""
    return Clock(monkeypatch)


@pytest.fixture
def house() -> House:
    """Nobody yet."""
    return House(MemoryAccounts())
