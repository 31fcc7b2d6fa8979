"""Moving all blobs from one storage to another."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest

from cypd.metadata.memory import MemoryMetadata
from cypd.oci.digest import ALGORITHMS, Algorithm, Digest
from cypd.registry.ports import (
    BlobMissing,
    BlobStorage,
    Inline,
    StagedBlob,
    Unavailable,
    Upload,
)
from cypd.storage import migration
from cypd.storage.filesystem import FilesystemStorage
from cypd.storage.memory import MemoryStorage
from cypd.storage.migration import Migration
from cypd.storage.moving import MovingStorage
from cypd.storage.reading import pieces
from cypd.storage.use import emptying, in_use, migrating
from tests.samples import create_projects, name

APP = name("library/app")
SIZES = (0, 1, 70_000, 3_000_001)


@pytest.fixture
def files(tmp_path: Path) -> Iterator[FilesystemStorage]:
    """An empty storage of files."""
    storage = FilesystemStorage(tmp_path / "files")
    yield storage
    storage.close()


@pytest.fixture
def metadata() -> MemoryMetadata:
    """Metadata with a project that holds nothing."""
    metadata = MemoryMetadata()
    create_projects(metadata.projects, "library")
    return metadata


def migration_of(
    metadata: MemoryMetadata,
    source: BlobStorage,
    target: BlobStorage,
    *,
    rate: int = 0,
    verify: bool = False,
) -> Migration:
    """Return a run that copies two blobs at a time."""
    return Migration(metadata.registry, source, target, jobs=2, rate=rate, verify=verify)


async def store(storage: BlobStorage, content: bytes, algorithm: Algorithm = "sha256") -> Digest:
    """Store a blob that nobody holds."""
    digest = Digest.of(content, algorithm)
    async with storage.stage("an-upload", algorithm) as staged:
        await staged.write(content)
        async with storage.place(staged, digest):
            pass
    return digest


async def push(metadata: MemoryMetadata, storage: BlobStorage) -> dict[Digest, bytes]:
    """Store and link blobs of many sizes, with both algorithms."""
    blobs = {}
    for number, size in enumerate(SIZES):
        content = Random(number).randbytes(size)
        for algorithm in ALGORITHMS:
            digest = await store(storage, content, algorithm)
            await metadata.registry.link_blob(APP, digest, size, upload_id=None)
            blobs[digest] = content
    return blobs


async def read(storage: BlobStorage, digest: Digest, size: int) -> bytes:
    """Read a blob to its end."""
    content = await storage.open(digest, size)
    try:
        return b"".join([piece async for piece in pieces(content)])
    finally:
        content.close()


@pytest.mark.parametrize("way", ["in", "out"])
async def test_everything_held_is_copied_and_nothing_else(
    metadata: MemoryMetadata, files: FilesystemStorage, way: str
) -> None:
    """The target then has each held blob to the last byte; the source has what it had."""
    source, target = (files, MemoryStorage()) if way == "in" else (MemoryStorage(), files)
    blobs = await push(metadata, source)
    garbage = await store(source, b"garbage")
    run = migration_of(metadata, source, target)
    await run.run()

    progress, size = run.progress, sum(map(len, blobs.values()))
    assert (progress.blobs, progress.size) == (len(blobs), size)
    assert (progress.copied, progress.copied_size) == (len(blobs), size)
    assert not progress.failed
    for digest, content in blobs.items():
        assert await read(target, digest, len(content)) == content
        assert await source.has(digest, len(content))
    assert not await target.has(garbage, 7)
    assert not await target.staged_uploads(idle_since=time.time() + 1e6)


async def test_a_second_run_copies_only_what_came_meanwhile(metadata: MemoryMetadata) -> None:
    """What is there is not read again."""
    source, target = MemoryStorage(), MemoryStorage()
    blobs = await push(metadata, source)
    await migration_of(metadata, source, target).run()
    late = await store(source, b"late")
    await metadata.registry.link_blob(APP, late, 4, upload_id=None)
    again = migration_of(metadata, source, target)
    await again.run()

    assert (again.progress.copied, again.progress.copied_size) == (1, 4)
    assert (again.progress.present, again.progress.present_size) == (
        len(blobs),
        sum(map(len, blobs.values())),
    )


async def test_a_blob_is_gone_on_with_where_the_last_run_ended(
    metadata: MemoryMetadata, files: FilesystemStorage
) -> None:
    """A run that is cut off in the middle of a blob costs none of its bytes twice."""
    source, size = MemoryStorage(), 8 << 20
    content = Random(7).randbytes(size)
    digest = await store(source, content)
    await metadata.registry.link_blob(APP, digest, size, upload_id=None)
    cut = _Cut(files, after=3_000_000)
    with pytest.raises(RuntimeError, match="cut"):
        await migration_of(metadata, source, cut).run()
    again = migration_of(metadata, source, files)
    await again.run()

    assert again.progress.copied_size == size - 3_000_000
    assert await read(files, digest, size) == content


async def test_a_wrong_beginning_is_begun_again(
    metadata: MemoryMetadata, files: FilesystemStorage
) -> None:
    """Bytes of an earlier run that are not the blob's do not keep it from being copied."""
    source, content = MemoryStorage(), b"content"
    digest = await store(source, content)
    await metadata.registry.link_blob(APP, digest, 7, upload_id=None)
    async with files.stage(f"moving-{digest.hex[:56]}", "sha256") as staged:
        await staged.write(b"CON")
    run = migration_of(metadata, source, files)
    await run.run()

    assert (run.progress.copied, run.progress.failed) == (1, {})
    assert await read(files, digest, 7) == content


async def test_what_is_damaged_or_missing_is_named_and_the_rest_copied(
    metadata: MemoryMetadata, files: FilesystemStorage, tmp_path: Path
) -> None:
    """A rotten blob never reaches the target, and stops nobody else."""
    blobs = await push(metadata, files)
    (rotten, content), (absent, _) = [it for it in blobs.items() if len(it[1]) == SIZES[-1]]
    file = tmp_path / "files" / "blobs" / rotten.algorithm / rotten.hex[:2] / rotten.hex
    file.chmod(0o600)
    file.write_bytes(content[:-1] + b"?")
    (tmp_path / "files" / "blobs" / absent.algorithm / absent.hex[:2] / absent.hex).unlink()
    target = MemoryStorage()
    run = migration_of(metadata, files, target)
    await run.run()

    assert run.progress.failed == {rotten: "damaged", absent: "missing"}
    assert run.progress.copied == len(blobs) - 2
    assert not await target.has(rotten, len(content))


async def test_verifying_heals_what_rotted_in_the_target(
    metadata: MemoryMetadata, files: FilesystemStorage, tmp_path: Path
) -> None:
    """With ``verify`` what the target has is read and, if it is wrong, replaced."""
    source = MemoryStorage()
    blobs = await push(metadata, source)
    await migration_of(metadata, source, files).run()
    rotten = next(digest for digest, content in blobs.items() if len(content) == SIZES[-1])
    file = tmp_path / "files" / "blobs" / rotten.algorithm / rotten.hex[:2] / rotten.hex
    file.chmod(0o600)
    with file.open("r+b") as opened:
        opened.write(bytes(10))
    trusting, looking = (migration_of(metadata, source, files, verify=it) for it in (False, True))
    await trusting.run()
    await looking.run()

    assert (trusting.progress.copied, looking.progress.copied) == (0, 1)
    assert await read(files, rotten, SIZES[-1]) == blobs[rotten]


async def test_what_is_deleted_meanwhile_is_no_failure(metadata: MemoryMetadata) -> None:
    """A blob that nobody holds any more when its turn comes is passed over."""
    source = MemoryStorage()
    content = b"content"
    digest = await store(source, content)
    await metadata.registry.link_blob(APP, digest, 7, upload_id=None)
    await source.collect(lambda _: False, placed_before=time.time() + 1)

    async def delete(*_: object) -> int:
        await metadata.registry.unlink_blob(APP, digest)
        raise BlobMissing(digest)

    source.open = delete  # type: ignore[method-assign, assignment]
    run = migration_of(metadata, source, MemoryStorage())
    await run.run()

    assert not run.progress.failed


async def test_the_source_is_removed_only_when_told_to(
    metadata: MemoryMetadata, files: FilesystemStorage
) -> None:
    """Then all of it goes, with the uploads nobody will finish there."""
    target = MemoryStorage()
    blobs = await push(metadata, files)
    async with files.stage("another-upload", "sha256") as staged:
        await staged.write(b"content")
    run = migration_of(metadata, files, target)
    await run.run()
    removed = await run.remove_source()

    assert removed == len(blobs)
    assert not any([await files.has(it, len(content)) for it, content in blobs.items()])
    assert not await files.staged_uploads(idle_since=time.time() + 1e6)
    assert all([await target.has(it, len(content)) for it, content in blobs.items()])


async def test_uploads_that_may_still_end_in_the_source_are_counted(
    metadata: MemoryMetadata, files: FilesystemStorage
) -> None:
    """Only those whose session is open count: all others are litter."""
    for upload_id in ("an-open-one", "an-orphan"):
        async with files.stage(upload_id, "sha256") as staged:
            await staged.write(b"content")
    upload = Upload("an-open-one", APP, "someone", "sha256", 1.0)
    await metadata.registry.open_upload(upload, limit=10)

    assert await migration_of(metadata, files, MemoryStorage()).open_uploads() == 1


async def test_a_storage_that_is_away_for_a_while_ends_nothing(
    metadata: MemoryMetadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again; only one that stays away ends the run."""
    monkeypatch.setattr(migration, "_PAUSES", (0.0, 0.0))
    source, target = MemoryStorage(), MemoryStorage()
    blobs = await push(metadata, source)
    failures = iter([True, True, False, True])
    really = target.staged_size

    async def flaky(upload_id: str) -> int:
        if next(failures, False):
            raise Unavailable("away")
        return await really(upload_id)

    monkeypatch.setattr(target, "staged_size", flaky)
    run = migration_of(metadata, source, target)
    await run.run()
    assert run.progress.copied == len(blobs)

    late = await store(source, b"late")
    await metadata.registry.link_blob(APP, late, 4, upload_id=None)
    failures = iter([True] * 9)
    with pytest.raises(Unavailable):
        await migration_of(metadata, source, target).run()


async def test_a_rate_is_kept(metadata: MemoryMetadata) -> None:
    """No more bytes a second are read than the rate says, over all that is copied at once."""
    source = MemoryStorage()
    blobs = await push(metadata, source)
    started = time.monotonic()
    await migration_of(metadata, source, MemoryStorage(), rate=10_000_000).run()

    assert time.monotonic() - started >= sum(map(len, blobs.values())) / 10_000_000


async def test_an_upload_ends_where_it_began(files: FilesystemStorage) -> None:
    """A session that has bytes in the old storage is finished there; others are in the new one."""
    new = MemoryStorage()
    both = MovingStorage(new, files)
    async with files.stage("an-old-one", "sha256") as staged:
        await staged.write(b"con")
    assert await both.staged_size("an-old-one") == 3
    assert list(await both.staged_uploads(idle_since=time.time() + 1e6)) == ["an-old-one"]
    digest = Digest.of(b"content")
    async with both.stage("an-old-one", "sha256") as staged:
        await staged.write(b"tent")
        async with both.place(staged, digest):
            pass
    fresh = await store(both, b"fresh")

    assert (await files.has(digest, 7), await new.has(digest, 7)) == (True, False)
    assert (await files.has(fresh, 5), await new.has(fresh, 5)) == (False, True)
    assert await both.has(digest, 7)
    assert await both.has(fresh, 5)


async def test_pulls_go_on_from_the_old_one_while_the_new_one_is_away(
    files: FilesystemStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What only the new one may have can't be answered then; it is not told to be missing."""
    new = MemoryStorage()
    both = MovingStorage(new, files)
    digest = await store(files, b"content")

    async def away(*_: object) -> Inline:
        raise Unavailable("away")

    monkeypatch.setattr(new, "open", away)
    assert await read(both, digest, 7) == b"content"
    with pytest.raises(Unavailable):
        await both.open(Digest.of(b"other"), 5)


def test_nothing_is_emptied_that_a_daemon_uses(tmp_path: Path) -> None:
    """Any number may use a storage at a time, or one that wants it alone."""
    with in_use(tmp_path, "s3"), in_use(tmp_path, "s3"), emptying(tmp_path, "filesystem"):
        with pytest.raises(Unavailable), emptying(tmp_path, "s3"):
            pytest.fail("not alone")
        with pytest.raises(Unavailable), in_use(tmp_path, "filesystem"):
            pytest.fail("it is being emptied")
    with migrating(tmp_path), pytest.raises(Unavailable), migrating(tmp_path):
        pytest.fail("two at once")
    with emptying(tmp_path, "s3"):
        pass


class _Cut(FilesystemStorage):
    """Ends after so many bytes were written, as a process that is killed does."""

    def __init__(self, files: FilesystemStorage, after: int) -> None:
        self.__dict__ = files.__dict__
        self._after = after

    @asynccontextmanager
    async def stage(self, upload_id: str, algorithm: Algorithm) -> AsyncIterator[StagedBlob]:
        async with super().stage(upload_id, algorithm) as staged:
            really = staged.write

            async def write(data: bytes | memoryview) -> None:
                await really(data[: self._after - staged.size])
                if staged.size == self._after:
                    await staged.flush()
                    raise RuntimeError("cut")

            staged.write = write  # type: ignore[method-assign]
            yield staged
