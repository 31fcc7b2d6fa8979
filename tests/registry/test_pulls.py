"""Counting pulls in memory, and writing them down."""

import asyncio
from collections.abc import Sequence

import pytest

from cypd.access import Act
from cypd.metadata.memory.inventory import MemoryInventory
from cypd.metadata.memory.projects import MemoryProjects
from cypd.metadata.memory.registry import MemoryRegistry
from cypd.metadata.memory.state import State
from cypd.oci.names import Tag
from cypd.registry import pulls
from cypd.registry.inventory_ports import Pulls, Window
from cypd.registry.ports import Unavailable
from cypd.registry.pulls import PullCounter
from tests.samples import ACT, image, name, parsed, project

APP = name("library/app")
MANIFEST = parsed(image())
LATEST = Tag("latest")


class _Inventory(MemoryInventory):
    """A store that may be asked to fail."""

    def __init__(self, state: State) -> None:
        super().__init__(state)
        self.trouble: Exception | None = None
        self.batches: list[int] = []

    async def note_pulls(self, pulls: Sequence[Pulls], *, tell: bool = False) -> None:
        """Note pulls, or raise."""
        await asyncio.sleep(0)
        if self.trouble:
            raise self.trouble
        self.batches.append(len(pulls))
        await super().note_pulls(pulls, tell=tell)

    @property
    def counts(self) -> tuple[int, int, int]:
        """Pulls of the repository, of the manifest and by the tag."""
        return (
            self.list_repositories(None, Window(0, 1)).items[0].pull_count,
            self.list_manifests(APP, Window(0, 1)).items[0].pull_count,
            self.list_tags(APP, Window(0, 1)).items[0].pull_count,
        )


@pytest.fixture
async def store() -> _Inventory:
    """A store with an image under a tag."""
    state = State()
    await MemoryProjects(state).create_project(project())
    await MemoryRegistry(state).put_manifest(
        APP, MANIFEST, [LATEST], inline=True, allow_sparse=True, act=ACT
    )
    return _Inventory(state)


async def test_pulls_are_written_together(store: _Inventory) -> None:
    """By tag and by digest, each once, with the time of the last; a second flush adds nothing."""
    counter = PullCounter(store)
    for at in (5.0, 6.0, 7.0):
        counter.note(APP, MANIFEST.digest, LATEST, Act(at))
    counter.note(APP, MANIFEST.digest, None, Act(8.0))
    assert (0, 0, 0) == store.counts
    await counter.flush()
    await counter.flush()

    assert (4, 4, 3) == store.counts
    assert [2] == store.batches
    assert 7.0 == store.list_tags(APP, Window(0, 1)).items[0].last_pulled_at
    assert 8.0 == store.list_manifests(APP, Window(0, 1)).items[0].last_pulled_at


async def test_what_could_not_be_written_is_written_later(store: _Inventory) -> None:
    """A full disk loses no pull, neither those before nor those during it."""
    counter = PullCounter(store)
    counter.note(APP, MANIFEST.digest, LATEST, ACT)
    store.trouble = Unavailable("full")
    with pytest.raises(Unavailable):
        await counter.flush()
    counter.note(APP, MANIFEST.digest, LATEST, ACT)
    store.trouble = None
    await counter.flush()

    assert (2, 2, 2) == store.counts


async def test_pulls_during_a_flush_are_counted_once(store: _Inventory) -> None:
    """Two flushes at a time, and a pull between, count each pull once."""
    counter = PullCounter(store)
    counter.note(APP, MANIFEST.digest, LATEST, ACT)
    first = asyncio.create_task(counter.flush())
    await asyncio.sleep(0)
    counter.note(APP, MANIFEST.digest, LATEST, ACT)
    await asyncio.gather(first, counter.flush())

    assert (2, 2, 2) == store.counts


async def test_memory_is_bounded(
    store: _Inventory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of too many different things the last are not counted, which one line in the log says."""
    monkeypatch.setattr(pulls, "MAX_KEYS", 2)
    counter = PullCounter(store)
    counter.note(APP, MANIFEST.digest, LATEST, ACT)
    for i in range(5):
        counter.note(name(f"library/other-{i}"), MANIFEST.digest, None, ACT)
    counter.note(APP, MANIFEST.digest, LATEST, ACT)
    await counter.flush()

    assert (2, 2, 2) == store.counts
    assert [2] == store.batches
    assert ["4 pulls of very many things are not counted"] == caplog.messages


async def test_many_are_written_in_pieces(store: _Inventory) -> None:
    """No push waits for more than a thousand of them."""
    counter = PullCounter(store)
    for i in range(2500):
        counter.note(name(f"library/other-{i}"), MANIFEST.digest, None, ACT)
    await counter.flush()

    assert [1000, 1000, 500] == store.batches
