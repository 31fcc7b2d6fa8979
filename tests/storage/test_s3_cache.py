"""Copies of blobs on this machine, of blobs in a real store."""

import asyncio
import errno
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cypd.oci.digest import Digest
from cypd.registry.ports import Content, Inline, Remote
from cypd.storage.filesystem import OpenFile
from cypd.storage.s3 import open_s3
from cypd.storage.s3.storage import S3Storage
from cypd.storage.s3.store import Store
from tests.weed import Weed

MIB = 1 << 20
LIMIT = 4 * MIB
CONTENT = os.urandom(2 * MIB)

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
async def storage(tmp_path: Path, weed: Weed) -> AsyncIterator[S3Storage]:
    """An engine with room for a few copies, and with nothing in it."""
    async with open_s3(weed.settings(cache_size=LIMIT), tmp_path) as remote:
        yield remote


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys that are read from the store."""
    keys: list[str] = []
    real = Store.read

    def spy(self: Store, key: str, start: int, count: int) -> Any:
        keys.extend([key] if "/blobs/" in key else [])
        return real(self, key, start, count)

    monkeypatch.setattr(Store, "read", spy)
    return keys


async def store(storage: S3Storage, content: bytes) -> Digest:
    """Store a blob."""
    digest = Digest.of(content)
    async with storage.stage(f"of-{digest.hex[:8]}", "sha256") as staged:
        await staged.write(content)
        async with storage.place(staged, digest):
            pass
    return digest


async def pull(storage: S3Storage, digest: Digest, size: int) -> bytes:
    """Read a whole blob, wherever it comes from."""
    content = await storage.open(digest, size)
    try:
        return await read(content)
    finally:
        content.close()


async def read(content: Content) -> bytes:
    """Read what was opened."""
    if isinstance(content, Remote):
        return b"".join([piece async for piece in content.read(0, content.size)])
    assert not isinstance(content, Inline)
    return os.pread(content.fileno(), content.size, 0)


async def settle(storage: S3Storage) -> None:
    """Return when nothing is being filled."""
    while tasks := storage._cache._tasks:
        await asyncio.wait(tasks)
        await asyncio.sleep(0)


def copies(root: Path) -> list[Path]:
    """Return the files of the cache, finished and not, that have bytes of blobs."""
    return [path for path in (root / "cache").iterdir() if path.name != ".total"]


async def test_the_second_pull_is_a_file(
    storage: S3Storage, tmp_path: Path, weed: Weed, reads: list[str]
) -> None:
    """The first one fills it on its way; another process, or one after it, has it too."""
    digest = await store(storage, CONTENT)
    assert await pull(storage, digest, len(CONTENT)) == CONTENT
    await settle(storage)
    assert len(reads) == 1
    content = await storage.open(digest, len(CONTENT))
    assert isinstance(content, OpenFile)
    assert await read(content) == CONTENT
    content.close()
    other = weed.settings(cache_size=LIMIT)  # with another prefix: it has nothing but the copy
    async with open_s3(other, tmp_path) as second:
        assert await pull(second, digest, len(CONTENT)) == CONTENT
    assert len(reads) == 1


async def test_who_comes_together_shares_one_way(storage: S3Storage, reads: list[str]) -> None:
    """However many want a blob that is not here, it is fetched once."""
    digest = await store(storage, CONTENT)
    contents = [await storage.open(digest, len(CONTENT)) for _ in range(20)]
    found = await asyncio.gather(*map(read, contents))
    for content in contents:
        content.close()

    assert found == [CONTENT] * 20
    assert len(reads) == 1


async def test_what_was_not_asked_for_goes_first(storage: S3Storage, tmp_path: Path) -> None:
    """There are never more bytes than allowed, and the last that were asked for stay."""
    contents = [os.urandom(MIB) for _ in range(8)]
    digests = [await store(storage, content) for content in contents]
    for number, digest in enumerate(digests):
        await pull(storage, digest, MIB)
        await settle(storage)
        assert sum(path.stat().st_size for path in copies(tmp_path)) <= LIMIT
        path = storage._cache._path(digest)
        os.utime(path, (time.time() - 10_000 + number, 0))
        if number:
            (copy := await storage.open(digests[0], MIB)).close()
            assert isinstance(copy, OpenFile), "asked for all the time"
    assert storage._cache._path(digests[-1]).exists()
    assert not storage._cache._path(digests[1]).exists()


async def test_a_blob_that_is_too_large_is_not_kept(storage: S3Storage, tmp_path: Path) -> None:
    """It would take the place of everything else."""
    content = os.urandom(LIMIT // 2 + 1)
    digest = await store(storage, content)

    assert await pull(storage, digest, len(content)) == content
    assert not copies(tmp_path)


async def test_what_is_rotten_is_not_kept(storage: S3Storage, tmp_path: Path) -> None:
    """A copy is what its digest says, whatever the store has."""
    digest = await store(storage, CONTENT)
    bad = bytes(len(CONTENT))
    client, bucket = storage._store._client, storage._store._bucket
    await client.put_object(Bucket=bucket, Key=storage._key(digest), Body=bad)
    await pull(storage, digest, len(CONTENT))
    await settle(storage)
    assert not copies(tmp_path)


async def test_a_push_replaces_the_copy_as_well(storage: S3Storage, tmp_path: Path) -> None:
    """Pushing again heals, wherever the damage is."""
    digest = await store(storage, CONTENT)
    await pull(storage, digest, len(CONTENT))
    await settle(storage)
    assert len(copies(tmp_path)) == 1
    await store(storage, CONTENT)

    assert not copies(tmp_path)


async def test_what_a_crash_has_begun_is_removed(tmp_path: Path, weed: Weed) -> None:
    """And what counts is what is there."""
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / ".sha256-abc").write_bytes(bytes(1000))
    (folder / "sha256-abc").write_bytes(bytes(100))
    (folder / ".total").write_text("999999999")
    async with open_s3(weed.settings(cache_size=LIMIT), tmp_path):
        assert [path.name for path in copies(tmp_path)] == ["sha256-abc"]
        assert int((folder / ".total").read_text()) == 100


async def test_two_processes_fill_a_copy_once(tmp_path: Path, weed: Weed) -> None:
    """The one that comes second is served by the store, and spoils nothing."""
    there = weed.settings(cache_size=LIMIT)
    async with open_s3(there, tmp_path) as one, open_s3(there, tmp_path) as two:
        digest = await store(one, CONTENT)
        found = await asyncio.gather(*(pull(it, digest, len(CONTENT)) for it in (one, two) * 5))
        assert found == [CONTENT] * 10
        await settle(one)
        await settle(two)
        (path,) = copies(tmp_path)
        assert path.read_bytes() == CONTENT
        assert int((tmp_path / "cache" / ".total").read_text()) == len(CONTENT)


async def test_a_full_disk_breaks_no_pull(
    storage: S3Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest comes from the store, not by the disk."""
    digest = await store(storage, CONTENT)
    real = os.pwrite

    def full(descriptor: int, data: bytes, offset: int) -> int:
        if offset > MIB:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    assert await pull(storage, digest, len(CONTENT)) == CONTENT
    await settle(storage)
    monkeypatch.undo()

    assert not copies(tmp_path)
    assert int((tmp_path / "cache" / ".total").read_text()) == 0


async def test_a_client_that_leaves_does_not_stop_the_filling(
    storage: S3Storage, tmp_path: Path
) -> None:
    """The next one has a file."""
    digest = await store(storage, CONTENT)
    content = await storage.open(digest, len(CONTENT))
    assert isinstance(content, Remote)
    pieces = content.read(0, len(CONTENT))
    await anext(pieces)
    await pieces.aclose()
    await settle(storage)

    assert copies(tmp_path)[0].read_bytes() == CONTENT


async def test_a_part_of_a_blob_is_not_kept(storage: S3Storage, tmp_path: Path) -> None:
    """Who asks for the end of a large blob does not wait for all of it."""
    digest = await store(storage, CONTENT)
    content = await storage.open(digest, len(CONTENT))
    assert isinstance(content, Remote)
    assert b"".join([piece async for piece in content.read(MIB, 10)]) == CONTENT[MIB : MIB + 10]

    assert not copies(tmp_path)
