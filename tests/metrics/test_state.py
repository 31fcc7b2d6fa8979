"""What all workers share, as it is told: projects, quotas, webhooks, and in small pieces."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cypd.metadata.lmdb import LmdbMetadata
from cypd.metrics.state import State
from cypd.oci.digest import Digest
from tests.metadata.test_webhooks import made, push
from tests.samples import name, project


@pytest.fixture
def metadata(tmp_path: Path) -> Iterator[LmdbMetadata]:
    """An empty store."""
    store = LmdbMetadata(tmp_path / "metadata", 256 << 20)
    yield store
    store.close()


async def make(metadata: LmdbMetadata, called: str, quota: int, used: int) -> None:
    """Make a project with something in it."""
    await metadata.projects.create_project(project(called, quota))
    if used:
        digest = Digest.of(called.encode())
        repository = name(f"{called}/app")
        await metadata.registry.link_blob(repository, digest, used, upload_id=None)


def state(metadata: LmdbMetadata, tmp_path: Path, named: int = 100) -> State:
    """Return the state over a store."""
    return State(metadata.projects, metadata.webhooks, metadata.figures, tmp_path, named=named)


async def test_the_fullest_and_the_largest_are_named(
    metadata: LmdbMetadata, tmp_path: Path
) -> None:
    """A small one that is nearly full is told of beside a large one; all others are one sum."""
    for number in range(20):
        await make(metadata, f"middle-{number}", quota=1000, used=100 + number)
    await make(metadata, "tiny-and-full", quota=10, used=9)
    await make(metadata, "large", quota=-1, used=5000)
    await make(metadata, "other", quota=100, used=99)
    values = await state(metadata, tmp_path, named=2).values()

    told = {it[1]: numbers for it, numbers in values.items() if it[0] == "cypd_project_used_bytes"}
    rest = sum(100 + number for number in range(20)) + 99
    assert told == {"tiny-and-full": [9], "large": [5000], "other": [rest]}
    quotas = {
        it[1]: numbers for it, numbers in values.items() if it[0] == "cypd_project_quota_bytes"
    }
    assert quotas == {"tiny-and-full": [10], "other": [20 * 1000 + 100]}
    assert values[("cypd_projects",)] == [23]


async def test_nobody_is_named_where_none_shall_be(metadata: LmdbMetadata, tmp_path: Path) -> None:
    """With ``metrics.projects = 0`` there is the sum alone; without projects not even that."""
    empty = await state(metadata, tmp_path, named=0).values()
    assert not [it for it in empty if len(it) > 1]

    await make(metadata, "secret", quota=10, used=9)
    values = await state(metadata, tmp_path, named=0).values()
    assert {it[1] for it in values if len(it) > 1} == {"other"}


async def test_a_webhook_that_waits_is_told(metadata: LmdbMetadata, tmp_path: Path) -> None:
    """Whether the sender has seen to it or not: an age that grows says that something is stuck."""
    await make(metadata, "library", quota=-1, used=0)
    await made(metadata)
    quiet = await state(metadata, tmp_path).values()
    await push(metadata, name("library/app"), "one", at=time.time() - 100)
    stuck = await state(metadata, tmp_path).values()
    await metadata.webhooks.fan_out(limit=10, window=10)
    waiting = await state(metadata, tmp_path).values()

    told = [
        (it[("cypd_webhooks_backlog",)][0], it[("cypd_webhooks_oldest_seconds",)][0])
        for it in (quiet, stuck, waiting)
    ]
    assert [pending for pending, _ in told] == [0, 0, 1]
    assert [round(age / 100) for _, age in told] == [0, 1, 1]


async def test_scans_are_told_where_there_are_any(metadata: LmdbMetadata, tmp_path: Path) -> None:
    """How many wait or run; without scanning there is no such metric."""
    assert ("cypd_scans_queued",) not in await state(metadata, tmp_path).values()
    scanning = State(
        metadata.projects, metadata.webhooks, metadata.figures, tmp_path, named=1, scans=lambda: 7
    )
    assert (await scanning.values())[("cypd_scans_queued",)] == [7]


async def test_others_have_their_turn_meanwhile(metadata: LmdbMetadata, tmp_path: Path) -> None:
    """Of two thousand projects no hundred are looked at in one go."""
    making = [make(metadata, f"project-{number}", 1000, 0) for number in range(2000)]
    await asyncio.gather(*making)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.ensure_future(count())
    values = await state(metadata, tmp_path).values()
    counting.cancel()

    assert values[("cypd_projects",)] == [2000]
    assert turns >= 20
