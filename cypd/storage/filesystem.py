"""Blobs as files, content-addressed, under one root that nobody else writes to.

::

    blobs/<algorithm>/<first 2 hex>/<hex>    0440, complete, durable
    uploads/<upload id>                      0600, growing, locked by who writes
    damaged/<algorithm>-<hex>                blobs with wrong bytes, for people to look at

Paths come from digests and from ids the registry made, never from names.
"""

import asyncio
import errno
import fcntl
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from cypd.oci.digest import ALGORITHMS, Algorithm, Digest
from cypd.oci.errors import OCIError
from cypd.registry.ports import (
    INLINE_BYTES,
    BlobMissing,
    Condition,
    Content,
    DigestMismatch,
    Inline,
    StagedBlob,
    UploadBusy,
    no_matter,
)
from cypd.storage.disk import PIECE_BYTES, DiskFile, move_away
from cypd.storage.small import SmallBlobs
from cypd.storage.staged import Progress, StagedFile, hash_file
from cypd.storage.staging import StagingFolder, open_staged, translating

_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_FOLDER = os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY
_SHARDS = [f"{number:02x}" for number in range(256)]


class OpenFile:
    """An open blob, for ``sendfile(2)``."""

    __slots__ = ("_descriptor", "size")

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self.size = size

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class FilesystemStorage:
    """Blobs under ``root``, which is made if it does not exist."""

    def __init__(self, root: Path) -> None:
        self._blobs = root / "blobs"
        self._damaged = root / "damaged"
        self._staging = StagingFolder(root / "uploads")
        self._small = SmallBlobs()
        _make_layout(root)

    def close(self) -> None:
        """Wait for running work and stop the threads."""
        self._staging.close()

    def _path(self, digest: Digest) -> str:
        return f"{self._blobs}/{digest.algorithm}/{digest.hex[:2]}/{digest.hex}"

    async def has(self, digest: Digest, size: int) -> bool:
        try:
            return os.stat(self._path(digest)).st_size == size
        except FileNotFoundError:
            return False

    async def open(self, digest: Digest, size: int) -> Content:
        if (data := self._small.get(digest)) is not None:
            return Inline(data)
        with translating(is_read=True):
            file = _open(self._path(digest), size)
            if size > INLINE_BYTES:
                return file
            data = await self._read(file)
        if not self._small.put(digest, data):  # rotten, or cut short since it was opened
            raise BlobMissing(digest)
        return Inline(data)

    async def _read(self, file: OpenFile) -> bytes:
        try:
            data = _read_cached(file.fileno(), file.size)
            if data is None:  # not in the page cache: let a thread wait for the disk
                loop = asyncio.get_running_loop()
                data = await loop.run_in_executor(
                    self._staging.pool, os.pread, file.fileno(), file.size, 0
                )
        finally:
            file.close()
        return data

    # --- uploads --------------------------------------------------------------------------------

    @asynccontextmanager
    async def stage(self, upload_id: str, algorithm: Algorithm) -> AsyncIterator[StagedBlob]:
        path = self._staging.path(upload_id)
        remembered = self._staging.recall(upload_id)
        descriptor, progress = await self._staging.offload(
            _open_staged, path, algorithm, remembered
        )
        staged = StagedFile(path, descriptor, progress, self._staging.offload)
        with translating():  # closing writes what is held, going back cuts the file
            try:
                yield staged
            finally:
                reached = await staged.close()
                if reached is not None and path.exists():
                    self._staging.remember(upload_id, reached)

    async def staged_size(self, upload_id: str) -> int:
        return self._staging.size(upload_id)

    @asynccontextmanager
    async def place(self, staged: StagedBlob, digest: Digest) -> AsyncIterator[None]:
        assert isinstance(staged, StagedFile)  # noqa: S101 (a stage of another engine: our fault)
        await staged.settle()
        job = staged.start(_place, staged, digest, self._path(digest))
        try:
            await staged.settle()
        except asyncio.CancelledError:
            job.add_done_callback(_close_result)
            raise
        try:
            yield
        finally:
            os.close(job.result())

    async def discard(self, upload_id: str) -> None:
        path = self._staging.path(upload_id)
        self._staging.recall(upload_id)
        await self._staging.offload(lambda: path.unlink(missing_ok=True))

    async def staged_uploads(self, *, idle_since: float) -> Sequence[str]:
        return await self._staging.idle(idle_since)

    # --- scrubbing ------------------------------------------------------------------------------

    async def verify(
        self, digest: Digest, size: int, spend: Callable[[int], Awaitable[None]]
    ) -> Condition:
        path, offload = self._path(digest), self._staging.offload
        try:
            file = await offload(DiskFile, path, digest)
        except FileNotFoundError:
            return "missing"
        try:
            if file.size == size:
                await _hash(file, spend, offload)
            if file.is_right(size):
                return "good"
            target = str(self._damaged / f"{digest.algorithm}-{digest.hex}")
            was_there = await offload(move_away, path, file.descriptor, target)
        finally:
            file.close()
        return "damaged" if was_there else "good"

    # --- collection -----------------------------------------------------------------------------

    async def collect(
        self,
        is_held: Callable[[Digest], bool],
        *,
        placed_before: float,
        spared: Callable[[int], None] = no_matter,
    ) -> int:
        removed = 0
        for algorithm in ALGORITHMS:
            for shard in _SHARDS:
                folder = f"{self._blobs}/{algorithm}/{shard}"
                removed += await self._staging.offload(
                    _collect_shard, folder, algorithm, is_held, placed_before, spared
                )
        return removed


def _open(path: str, size: int) -> OpenFile:
    try:
        file = OpenFile(os.open(path, _READ), size)
    except FileNotFoundError:
        raise BlobMissing(path) from None
    if os.fstat(file.fileno()).st_size != size:
        file.close()
        raise BlobMissing(path)
    return file


def _read_cached(descriptor: int, size: int) -> bytes | None:
    """Return the first ``size`` bytes if that takes no disk (preadv2(2), RWF_NOWAIT)."""
    buffer = bytearray(size)
    try:
        count = os.preadv(descriptor, [buffer], 0, os.RWF_NOWAIT) if size else 0
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EOPNOTSUPP):
            return None
        raise
    return bytes(buffer) if count == size else None


def _open_staged(
    path: Path, algorithm: Algorithm, remembered: Progress | None
) -> tuple[int, Progress]:
    descriptor = open_staged(path)
    try:
        size = os.fstat(descriptor).st_size
        if remembered and (remembered.size, remembered.algorithm) == (size, algorithm):
            return descriptor, remembered
        return descriptor, hash_file(descriptor, size, algorithm)
    except BaseException:
        os.close(descriptor)
        raise


def _place(staged: StagedFile, digest: Digest, path: str) -> int:
    """Make the staged file the blob; return the shard's descriptor, locked against collection."""
    if staged.finish() != digest.hex:
        raise DigestMismatch(digest)
    shard = os.open(os.path.dirname(path), _FOLDER)
    try:
        os.fchmod(staged.descriptor, 0o440)
        os.fdatasync(staged.descriptor)
        fcntl.flock(shard, fcntl.LOCK_SH)
        # Over what may stand there already: these bytes were verified a moment ago, those perhaps
        # a year ago, so a push heals a damaged blob. Readers keep the file they opened.
        os.rename(staged.path, path)
        os.fsync(shard)
    except FileNotFoundError:  # the session was cancelled meanwhile
        os.close(shard)
        raise UploadBusy(staged.path.name) from None
    except BaseException:
        # After a failed fsync the pages count as clean: these bytes can't be trusted any more.
        staged.path.unlink(missing_ok=True)
        os.close(shard)
        raise
    return shard


def _close_result(job: asyncio.Future[int]) -> None:
    if not job.cancelled() and job.exception() is None:
        os.close(job.result())


async def _hash(
    file: DiskFile,
    spend: Callable[[int], Awaitable[None]],
    offload: Callable[..., "asyncio.Future[int]"],
) -> None:
    """Hash a file to its end, or to where the disk can't read it."""
    left, count = file.size, 1
    while count:
        await spend(min(left, PIECE_BYTES))
        job = offload(_advance, file)
        try:
            count = await asyncio.shield(job)
        except asyncio.CancelledError:
            await asyncio.wait({job})  # the file is not closed under it
            raise
        left -= count


def _advance(file: DiskFile) -> int:
    try:
        return file.advance()
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return 0  # a sector that can't be read spoils one blob, no other


def _collect_shard(
    folder: str,
    algorithm: Algorithm,
    is_held: Callable[[Digest], bool],
    placed_before: float,
    spared: Callable[[int], None],
) -> int:
    removed = 0
    shard = os.open(folder, _FOLDER)
    try:
        # Whoever places a blob here holds the lock shared until it is linked: what is not held
        # now is in nobody's hands.
        fcntl.flock(shard, fcntl.LOCK_EX)
        with os.scandir(shard) as entries:
            for entry in entries:
                digest = _digest(algorithm, entry.name)
                if digest is None or is_held(digest):
                    continue
                found = entry.stat(follow_symlinks=False)
                # fchmod and rename set the ctime: it tells when the blob was placed.
                if found.st_ctime < placed_before:
                    os.unlink(entry.name, dir_fd=shard)
                    removed += 1
                else:
                    spared(found.st_size)
    finally:
        os.close(shard)
    return removed


def _digest(algorithm: Algorithm, name: str) -> Digest | None:
    try:
        return Digest.parse(f"{algorithm}:{name}")
    except OCIError:  # whoever put it here knows what it is
        return None


def _make_layout(root: Path) -> None:
    """Make the folders and their names durable: fsync of a file does not save its name.

    At every start, for the one that made them may have been killed before its fsync.
    """
    folders = [root, root / "uploads", root / "blobs"]
    for algorithm in ALGORITHMS:
        base = root / "blobs" / algorithm
        folders += [base, *(base / shard for shard in _SHARDS)]
    for folder in folders:
        folder.mkdir(mode=0o700, exist_ok=True)
    for folder in {folder.parent for folder in folders}:
        with suppress(PermissionError):  # the root's parent may be closed to us
            _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, _FOLDER)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
