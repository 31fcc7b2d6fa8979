"""The contract of ``AccountStore``, clause by clause, for every engine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cypd.accounts.ports import AccountStore, User
from cypd.metadata.lmdb import LmdbMetadata
from cypd.metadata.memory import MemoryMetadata


@pytest.fixture(params=["memory", "lmdb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AccountStore]:
    """Each engine, empty."""
    if request.param == "memory":
        yield MemoryMetadata().accounts
        return
    metadata = LmdbMetadata(tmp_path / "metadata", 16 << 20)
    yield metadata.accounts
    metadata.close()


@pytest.mark.parametrize("text", ["", "a" * 1000, "é", "\0", "../x"])
def test_any_text_may_be_asked_for(store: AccountStore, text: str) -> None:
    """What came from a request as a name is looked up, never a fault."""
    assert store.user(text) is None


async def test_a_user_is_replaced_by_name(store: AccountStore) -> None:
    """The last put is what is read."""
    await store.put_user(User("admin", "one", is_admin=True))
    await store.put_user(User("admin", "two", is_admin=True))

    assert User("admin", "two", is_admin=True) == store.user("admin")
