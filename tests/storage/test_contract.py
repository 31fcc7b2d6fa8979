"""The contract of ``BlobStorage``, clause by clause, for every engine."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cypd.oci.digest import Algorithm, Digest
from cypd.registry.ports import (
    INLINE_BYTES,
    BlobMissing,
    BlobStorage,
    DigestMismatch,
    Inline,
    Remote,
    UploadBusy,
)
from cypd.storage.filesystem import FilesystemStorage
from cypd.storage.memory import MemoryStorage
from cypd.storage.moving import MovingStorage
from cypd.storage.s3 import open_s3
from tests.weed import Weed

FUTURE = time.time() + 1e6
LARGE = bytes(range(256)) * 2048
PART = 5 << 20


@pytest.fixture(params=["memory", "filesystem", "s3", "moving"])
async def storage(
    request: pytest.FixtureRequest, tmp_path: Path, weed: Weed
) -> AsyncIterator[BlobStorage]:
    """Each engine, empty."""
    if request.param == "memory":
        yield MemoryStorage()
    elif request.param == "s3":
        async with open_s3(weed.settings(part_size=PART), tmp_path) as remote:
            yield remote
    else:
        storage = FilesystemStorage(tmp_path)
        is_moving = request.param == "moving"
        yield MovingStorage(storage, MemoryStorage()) if is_moving else storage
        storage.close()


async def store(storage: BlobStorage, *pieces: bytes, algorithm: Algorithm = "sha256") -> Digest:
    """Store a blob in pieces."""
    digest = Digest.of(b"".join(pieces), algorithm)
    async with storage.stage("an-upload", algorithm) as staged:
        for piece in pieces:
            await staged.write(piece)
        async with storage.place(staged, digest):
            pass
    return digest


async def read(storage: BlobStorage, digest: Digest, size: int) -> bytes:
    """Read a blob back."""
    content = await storage.open(digest, size)
    try:
        assert size == content.size
        if isinstance(content, Inline):
            return content.data
        if isinstance(content, Remote):
            return b"".join([piece async for piece in content.read(0, size)])
        with open(content.fileno(), "rb", closefd=False) as file:
            return file.read()
    finally:
        content.close()


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("size", [0, 1, INLINE_BYTES, INLINE_BYTES + 1, len(LARGE)])
async def test_what_is_placed_is_read(
    storage: BlobStorage, size: int, algorithm: Algorithm
) -> None:
    """The exact bytes come back, under the digest alone."""
    content = LARGE[:size]
    digest = await store(storage, content[: size // 3], content[size // 3 :], algorithm=algorithm)

    assert await storage.has(digest, size)
    assert content == await read(storage, digest, size)
    assert await storage.staged_size("an-upload") == 0
    assert not await storage.staged_uploads(idle_since=FUTURE)


async def test_what_is_not_there_is_missing(storage: BlobStorage) -> None:
    """So is a blob of another size than the link says."""
    digest = await store(storage, b"content")
    for absent, size in ((Digest.of(b"other"), 5), (digest, 6), (digest, 100_000)):
        assert not await storage.has(absent, size)
        with pytest.raises(BlobMissing):
            await storage.open(absent, size)


async def test_staged_bytes_stay_between_requests(storage: BlobStorage) -> None:
    """Each opening goes on where the last one ended."""
    for number in range(4):
        async with storage.stage("an-upload", "sha256") as staged:
            assert number * 100_000 == staged.size
            await staged.write(LARGE[number * 100_000 : (number + 1) * 100_000])
    assert await storage.staged_size("an-upload") == 400_000
    digest = Digest.of(LARGE[:400_000])
    with pytest.raises(BlobMissing):
        await storage.open(digest, 400_000)
    async with storage.stage("an-upload", "sha256") as staged, storage.place(staged, digest):
        assert await storage.has(digest, 400_000)


async def test_the_algorithm_may_change_at_the_end(storage: BlobStorage) -> None:
    """Bytes that were hashed with one algorithm can be placed under another's digest."""
    async with storage.stage("an-upload", "sha256") as staged:
        await staged.write(LARGE)
    digest = Digest.of(LARGE + b"end", "sha512")
    async with storage.stage("an-upload", "sha512") as staged:
        await staged.write(b"end")
        async with storage.place(staged, digest):
            pass

    assert await read(storage, digest, len(LARGE) + 3) == LARGE + b"end"


async def test_a_wrong_digest_places_nothing(storage: BlobStorage) -> None:
    """The bytes stay staged, and after a rollback so do the earlier ones alone."""
    async with storage.stage("an-upload", "sha256") as staged:
        await staged.write(b"kept ")
    async with storage.stage("an-upload", "sha256") as staged:
        await staged.write(b"wrong")
        with pytest.raises(DigestMismatch):
            async with storage.place(staged, Digest.of(b"other")):
                pytest.fail("placed")
        await staged.rollback()
        assert staged.size == 5
    assert await storage.staged_size("an-upload") == 5
    async with storage.stage("an-upload", "sha256") as staged:
        await staged.write(b"right")
        async with storage.place(staged, Digest.of(b"kept right")):
            pass
    assert await read(storage, Digest.of(b"kept right"), 10) == b"kept right"


async def test_one_writer_at_a_time(storage: BlobStorage) -> None:
    """A second one is refused until the first is done, and loses nothing of it."""
    async with storage.stage("an-upload", "sha256") as staged:
        with pytest.raises(UploadBusy):
            async with storage.stage("an-upload", "sha256"):
                pytest.fail("two writers")
        await staged.write(b"content")
    assert await storage.staged_size("an-upload") == 7


async def test_what_is_discarded_is_gone(storage: BlobStorage) -> None:
    """Repeating it, or discarding what never was, changes nothing."""
    async with storage.stage("an-upload", "sha256") as staged:
        await staged.write(b"content")
    for _ in range(2):
        await storage.discard("an-upload")
    assert await storage.staged_size("an-upload") == 0
    assert not await storage.staged_uploads(idle_since=FUTURE)


async def test_a_discarded_upload_can_not_be_placed(storage: BlobStorage) -> None:
    """A session that is cancelled while its last request runs ends without a blob."""
    digest = Digest.of(b"content")
    async with storage.stage("an-upload", "sha256") as staged:
        await staged.write(b"content")
        await staged.flush()
        await storage.discard("an-upload")
        with pytest.raises(UploadBusy):
            async with storage.place(staged, digest):
                pytest.fail("placed")
    assert not await storage.has(digest, 7)


async def test_idle_uploads_are_those_nobody_wrote_to(storage: BlobStorage) -> None:
    """The last write counts."""
    async with storage.stage("an-upload", "sha256") as staged:
        await staged.write(b"content")

    assert list(await storage.staged_uploads(idle_since=FUTURE)) == ["an-upload"]
    assert not await storage.staged_uploads(idle_since=time.time() - 60)


async def test_collection_takes_what_is_old_and_not_held(storage: BlobStorage) -> None:
    """Held blobs and young ones stay."""
    held = await store(storage, b"held")
    free = await store(storage, b"free")

    assert await storage.collect(lambda _: False, placed_before=time.time() - 60) == 0
    assert await storage.collect(lambda digest: digest == held, placed_before=FUTURE) == 1
    assert await storage.has(held, 4)
    assert not await storage.has(free, 4)


async def test_collection_tells_what_it_leaves_for_now(storage: BlobStorage) -> None:
    """The size of each blob that nobody holds and that is too young; nothing of held ones."""
    held = await store(storage, b"held")
    await store(storage, b"free")
    await store(storage, LARGE)
    sizes: list[int] = []
    await storage.collect(
        lambda digest: digest == held, placed_before=time.time() - 60, spared=sizes.append
    )
    assert sorted(sizes) == [4, len(LARGE)]

    sizes.clear()
    await storage.collect(lambda digest: digest == held, placed_before=FUTURE, spared=sizes.append)
    assert sizes == []


async def test_collection_waits_for_who_is_about_to_link(storage: BlobStorage) -> None:
    """Between placing a blob and linking it, nobody takes it away, however old the file is."""
    await store(storage, b"content")
    digest = Digest.of(b"content")
    linked = False
    async with storage.stage("another-upload", "sha256") as staged:
        await staged.write(b"content")
        async with storage.place(staged, digest):
            sweep = asyncio.ensure_future(storage.collect(lambda _: linked, placed_before=FUTURE))
            await asyncio.sleep(0.05)
            assert await storage.has(digest, 7)
            linked = True
    await sweep
    assert await storage.has(digest, 7)


async def test_a_push_heals_a_blob_that_is_there(storage: BlobStorage) -> None:
    """Placing a blob a second time replaces the file; who reads the first goes on reading it."""
    digest = await store(storage, LARGE)
    before = await storage.open(digest, len(LARGE))
    await store(storage, LARGE)

    assert LARGE == await read(storage, digest, len(LARGE))
    assert len(LARGE) == before.size
    before.close()


async def test_what_is_right_is_good(storage: BlobStorage) -> None:
    """A blob that is as it was pushed passes, whatever its size, and its bytes are paced."""
    paced = 0

    async def spend(count: int) -> None:
        nonlocal paced
        paced += count

    for size in (0, 1, INLINE_BYTES, len(LARGE) - 1):
        digest = await store(storage, LARGE[:size])
        before = paced
        assert await storage.verify(digest, size, spend) == "good"
        assert paced - before >= size
        assert await read(storage, digest, size) == LARGE[:size]
    assert await storage.verify(Digest.of(b"never pushed"), 12, spend) == "missing"
