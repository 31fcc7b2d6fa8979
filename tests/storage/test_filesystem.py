"""What only files have: names, modes, order on disk, locks, and disks that fail."""

import asyncio
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cypd.oci.digest import Digest
from cypd.registry.ports import BlobMissing, Fatal, Inline, Unavailable, UploadBusy
from cypd.storage import staged, staging
from cypd.storage.filesystem import FilesystemStorage
from cypd.storage.small import SmallBlobs

LARGE = bytes(range(256)) * 2048


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[FilesystemStorage]:
    """A storage in an empty folder."""
    storage = FilesystemStorage(tmp_path)
    yield storage
    storage.close()


async def store(storage: FilesystemStorage, content: bytes) -> Digest:
    """Store a blob."""
    digest = Digest.of(content)
    async with storage.stage("an-upload", "sha256") as blob:
        await blob.write(content)
        async with storage.place(blob, digest):
            pass
    return digest


async def test_a_blob_is_a_read_only_file_under_its_digest(
    storage: FilesystemStorage, tmp_path: Path
) -> None:
    """Path, mode and content are what the documentation says."""
    digest = await store(storage, LARGE)
    path = tmp_path / "blobs" / "sha256" / digest.hex[:2] / digest.hex

    assert LARGE == path.read_bytes()
    assert path.stat().st_mode & 0o7777 == 0o440
    folders = [folder for folder, _, _ in os.walk(tmp_path / "blobs")]
    assert {0o700} == {os.stat(folder).st_mode & 0o777 for folder in folders}


async def test_the_order_on_disk_never_changes(
    storage: FilesystemStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes durable, then the name, then the folder: a crash never leaves a name without bytes."""
    calls: list[str] = []
    for call in ("fchmod", "fdatasync", "rename", "fsync"):
        real = getattr(os, call)

        def spy(*arguments: object, call: str = call, real: object = real) -> object:
            calls.append(call)
            assert callable(real)
            return real(*arguments)

        monkeypatch.setattr(os, call, spy)
    await store(storage, LARGE)

    assert calls == ["fchmod", "fdatasync", "rename", "fsync"]


async def test_a_restart_goes_on_where_the_file_ends(tmp_path: Path) -> None:
    """A new process rebuilds the hash from the file and ends in the right digest."""
    first = FilesystemStorage(tmp_path)
    async with first.stage("an-upload", "sha256") as blob:
        await blob.write(LARGE[:300_000])
    first.close()
    second = FilesystemStorage(tmp_path)
    assert await second.staged_size("an-upload") == 300_000
    async with second.stage("an-upload", "sha256") as blob:
        await blob.write(LARGE[300_000:])
        async with second.place(blob, Digest.of(LARGE)):
            pass

    assert await second.has(Digest.of(LARGE), len(LARGE))
    second.close()


async def test_bytes_are_never_read_again_while_the_process_lives(
    storage: FilesystemStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the requests of an upload its running hash is remembered."""

    def forbidden(*_: object) -> None:
        pytest.fail("read again")

    async with storage.stage("an-upload", "sha256") as blob:
        await blob.write(LARGE)
    monkeypatch.setattr(os, "pread", forbidden)
    digest = Digest.of(LARGE)
    async with storage.stage("an-upload", "sha256") as blob, storage.place(blob, digest):
        assert await storage.has(digest, len(LARGE))


async def test_two_processes_can_not_write_to_one_upload(tmp_path: Path) -> None:
    """The lock is the file's, so it holds between workers."""
    one, two = FilesystemStorage(tmp_path), FilesystemStorage(tmp_path)
    async with one.stage("an-upload", "sha256"):
        with pytest.raises(UploadBusy):
            async with two.stage("an-upload", "sha256"):
                pytest.fail("two writers")
    one.close()
    two.close()


async def test_a_placed_blob_is_never_written_to_by_a_late_writer(
    storage: FilesystemStorage, tmp_path: Path
) -> None:
    """Who waited for an upload's lock while it became a blob does not get to write to the blob."""
    late = os.open(tmp_path / "uploads" / "an-upload", os.O_RDWR | os.O_CREAT)
    await store(storage, LARGE)
    with pytest.raises(UploadBusy):
        staging.lock_staged(late, tmp_path / "uploads" / "an-upload")
    os.close(late)


@pytest.mark.parametrize("upload_id", ["", "..", "../x", "a/b", "a\0b", "x" * 65, "ä"])
async def test_ids_never_become_paths(storage: FilesystemStorage, upload_id: str) -> None:
    """What is not an id the registry made is refused before any file is touched."""
    with pytest.raises(ValueError, match="not an upload's id"):
        await storage.staged_size(upload_id)


@pytest.mark.parametrize("call", ["fdatasync", "fsync", "rename", "pwrite"])
@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.EIO, Fatal), (errno.ENOSPC, Unavailable), (errno.EDQUOT, Unavailable)],
)
async def test_a_failing_disk_places_nothing(
    storage: FilesystemStorage,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    number: int,
    kind: type[Exception],
) -> None:
    """EIO ends the process, a full disk refuses; a sync that failed is never tried again."""
    calls = 0

    def fail(*_: object) -> None:
        nonlocal calls
        calls += 1
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(kind):
        await store(storage, LARGE)
    monkeypatch.undo()

    assert calls == 1
    if call != "fsync":  # with fsync of the folder failed, the name may or may not last
        assert not await storage.has(Digest.of(LARGE), len(LARGE))
    await storage.discard("an-upload")
    await store(storage, LARGE)
    assert await storage.has(Digest.of(LARGE), len(LARGE))


async def test_short_writes_are_completed(
    storage: FilesystemStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that takes less than it was given is gone on with."""
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real(fd, data[:1000], at))
    digest = await store(storage, LARGE[:50_000] + LARGE)

    assert await storage.has(digest, 50_000 + len(LARGE))
    content = await storage.open(digest, 50_000 + len(LARGE))
    assert os.pread(content.fileno(), len(LARGE), 50_000) == LARGE  # type: ignore[union-attr]
    content.close()


async def test_a_cold_small_blob_is_read_in_a_thread(
    storage: FilesystemStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the page cache does not have never makes the loop wait for the disk."""

    def cold(*_: object) -> int:
        raise BlockingIOError(errno.EAGAIN, "not in the page cache")

    digest = await store(storage, b"content")
    monkeypatch.setattr(os, "preadv", cold)
    content = await storage.open(digest, 7)

    assert content.data == b"content"  # type: ignore[union-attr]


async def test_a_small_blob_is_read_from_disk_once(
    storage: FilesystemStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second time it comes from memory, with no system call at all."""
    digest = await store(storage, b"content")
    await storage.open(digest, 7)
    with monkeypatch.context() as patch:
        for call in ("open", "fstat", "preadv", "pread"):
            patch.setattr(os, call, lambda *_: pytest.fail("a system call"))
        content = await storage.open(digest, 7)

    assert content == Inline(b"content")


async def test_a_small_blob_that_rotted_is_never_served(
    storage: FilesystemStorage, tmp_path: Path
) -> None:
    """What is kept in memory is verified as it comes in; a push heals the file."""
    digest = await store(storage, b"content")
    path = tmp_path / "blobs" / "sha256" / digest.hex[:2] / digest.hex
    path.chmod(0o600)
    path.write_bytes(b"Content")
    with pytest.raises(BlobMissing):
        await storage.open(digest, 7)
    await store(storage, b"content")

    assert await storage.open(digest, 7) == Inline(b"content")


def test_the_memory_for_small_blobs_is_bounded() -> None:
    """What was not asked for the longest goes first."""
    small = SmallBlobs(budget=20)
    blobs = [bytes([number]) * 8 for number in range(3)]
    one, two, three = (Digest.of(blob) for blob in blobs)
    assert small.put(one, blobs[0])
    assert small.put(two, blobs[1])
    small.get(one)
    assert small.put(three, blobs[2])
    assert small.put(three, blobs[2])

    assert [blobs[0], None, blobs[2]] == [small.get(digest) for digest in (one, two, three)]
    assert not small.put(two, b"other")


@pytest.mark.parametrize("call", ["open", "preadv"])
async def test_a_blob_that_can_not_be_read_does_not_end_the_daemon(
    storage: FilesystemStorage, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """EIO of a read is that blob's fault alone; out of descriptors passes."""
    digest = await store(storage, b"content")
    for number, kind in ((errno.EIO, OSError), (errno.EMFILE, Unavailable)):

        def fail(*_: object, number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, call, fail)
        with pytest.raises(kind):
            await storage.open(digest, 7)
        monkeypatch.undo()


async def test_a_cancelled_push_closes_its_file_after_the_thread(
    storage: FilesystemStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a thread writes, the descriptor stays open, though the task is cancelled."""
    real, entered, release = os.pwrite, asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    descriptors: list[int] = []

    def slow(descriptor: int, data: bytes, offset: int) -> int:
        loop.call_soon_threadsafe(entered.set)
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result(5)
        os.fstat(descriptor)  # raises if it was closed
        descriptors.append(descriptor)
        return real(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", slow)
    push = asyncio.ensure_future(store(storage, LARGE))
    await entered.wait()
    push.cancel()
    await asyncio.sleep(0.02)
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await push

    assert descriptors
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptors[0])


@pytest.mark.timeout(300)  # each example makes a storage, with folders that are durable
@given(st.lists(st.binary(max_size=200_000), max_size=5))
async def test_any_pieces_hash_to_the_whole(pieces: list[bytes]) -> None:
    """However a blob is cut into writes, the digest is that of all its bytes."""
    with tempfile.TemporaryDirectory() as folder:
        storage = FilesystemStorage(Path(folder))
        content = b"".join(pieces)
        async with storage.stage("an-upload", "sha256") as blob:
            for piece in pieces:
                await blob.write(piece)
            assert len(content) == blob.size
            async with storage.place(blob, Digest.of(content)):
                pass
        assert await storage.has(Digest.of(content), len(content))
        storage.close()


def test_writeback_starts_at_whole_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every 32 MiB the kernel is told to write out what is complete, once."""
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(
        staged, "_sync_file_range", lambda fd, start, size, flags: told.append((start, size))
    )
    step = staged._WRITEBACK_BYTES
    for before, after in ((0, 10), (step - 1, step), (step, step + 1), (step + 1, 3 * step + 1)):
        staged._start_writeback(0, before, after)

    assert told == [(0, step), (step, 2 * step)]
