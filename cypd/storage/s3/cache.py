"""Copies of blobs on this machine's disk, for the next who pull them: by ``sendfile`` then.

::

    <algorithm>-<hex>     0400, complete, verified, durable; its atime: when it was last asked for
    .<algorithm>-<hex>    being filled, locked by who fills it
    .total                how many bytes all of them have together; its lock is who may change that

All processes share the folder. What is there is only ever a copy: it may be deleted at any time.
"""

import asyncio
import fcntl
import logging
import os
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from cypd.oci.digest import Digest, hasher
from cypd.registry.ports import Unavailable
from cypd.storage.filesystem import OpenFile

log = logging.getLogger(__name__)

Read = Callable[[int, int], AsyncGenerator[bytes, None]]
"""Gives bytes of a blob from the store: from where, and how many."""

_FILL = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_TOTAL_BYTES = 20
_PIECE_BYTES = 256 << 10
# When there is no room, some more is made: to look through all copies takes a while.
_SLACK = 10
# One blob may take that part of the room at most.
_SHARE = 2
_TOUCH_SECONDS = 60.0


class _Busy(Exception):
    """Another process fills it."""


class DiskCache:
    """At most ``limit`` bytes of copies in ``folder``, which is made if it does not exist."""

    def __init__(
        self, folder: Path, limit: int, offload: Callable[..., "asyncio.Future[Any]"]
    ) -> None:
        self._folder = folder
        self._limit = limit
        self._offload = offload
        self._fillings: dict[Digest, Filling] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._total() as total:
            total.set(self._make_room(0))

    async def close(self) -> None:
        """Stop filling."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def get(self, digest: Digest, size: int) -> OpenFile | None:
        """Return a copy, open, if there is one."""
        path = self._path(digest)
        try:
            file = OpenFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC), size)
        except FileNotFoundError:
            return None
        found = os.fstat(file.fileno())
        if found.st_size != size:
            file.close()
            return None
        now = time.time()
        if now - found.st_atime > _TOUCH_SECONDS:  # by hand: most disks are mounted relatime
            os.utime(file.fileno(), (now, found.st_mtime))
        return file

    def takes(self, size: int) -> bool:
        """Tell whether blobs of that size are kept."""
        return size <= self._limit // _SHARE

    def fill(self, digest: Digest, size: int, read: Read) -> "Filling":
        """Return a blob that is on its way here: all who want it share one way."""
        filling = self._fillings.get(digest)
        if filling is None:
            filling = self._fillings[digest] = Filling(size, read)
            task = asyncio.get_running_loop().create_task(self._fill(digest, filling))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return filling

    def forget(self, digest: Digest) -> None:
        """Drop a copy; who reads it goes on reading it."""
        with suppress(FileNotFoundError):
            size = self._path(digest).stat().st_size
            with self._total() as total:
                self._path(digest).unlink()
                total.set(total.value - size)

    def _path(self, digest: Digest) -> Path:
        return self._folder / f"{digest.algorithm}-{digest.hex}"

    async def _fill(self, digest: Digest, filling: "Filling") -> None:
        path = self._path(digest)
        partial = path.with_name(f".{path.name}")
        try:
            descriptor = await self._offload(self._reserve, partial, filling.size)
            try:
                await filling.run(descriptor, digest, self._offload)
                await self._offload(_finish, descriptor, partial, path)
            except BaseException:
                with self._total() as total:
                    partial.unlink(missing_ok=True)
                    total.set(total.value - filling.size)
                raise
            finally:
                filling.release()
        except _Busy:
            pass
        except (OSError, Unavailable) as error:
            log.warning("blob %s is not kept here: %s", digest, error)
        finally:
            del self._fillings[digest]
            filling.end()

    def _reserve(self, partial: Path, size: int) -> int:
        """Return a locked file of that size, empty, which counts already."""
        with self._total() as total:
            if total.value + size > self._limit:
                total.set(self._make_room(size))
            descriptor = os.open(partial, _FILL, 0o600)
            try:
                _lock(descriptor)
                before = os.fstat(descriptor).st_size  # a crash left it
                os.ftruncate(descriptor, 0)
                os.ftruncate(descriptor, size)
            except BaseException:
                os.close(descriptor)
                raise
            total.set(total.value + size - before)
            return descriptor

    def _make_room(self, size: int) -> int:
        """Remove what was asked for least lately until ``size`` bytes fit; return what is left."""
        copies = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name != ".total" and not _is_dead(entry):
                    found = entry.stat()
                    copies.append((found.st_atime, found.st_size, entry.name))
        left = sum(size for _, size, _ in copies)
        if left + size <= self._limit:
            return left
        for _, freed, name in sorted(copies):
            if left + size <= self._limit - self._limit // _SLACK:
                break
            if not name.startswith("."):
                (self._folder / name).unlink(missing_ok=True)
                left -= freed
        return left

    @contextmanager
    def _total(self) -> Iterator["_Total"]:
        descriptor = os.open(self._folder / ".total", _FILL, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield _Total(descriptor)
        finally:
            os.close(descriptor)


class _Total(NamedTuple):
    """The bytes of all copies, while nobody else may change them."""

    descriptor: int

    @property
    def value(self) -> int:
        return int(os.pread(self.descriptor, _TOTAL_BYTES, 0) or 0)

    def set(self, value: int) -> None:
        os.pwrite(self.descriptor, f"{value:<{_TOTAL_BYTES}}".encode(), 0)


class Filling:
    """A blob that is written to the disk while others read it already."""

    def __init__(self, size: int, read: Read) -> None:
        self.size = size
        self._read = read
        self._descriptor = -1
        self._users = 0
        self._written = 0
        self._is_over = False
        self._waiting: list[asyncio.Future[None]] = []

    async def run(
        self, descriptor: int, digest: Digest, offload: Callable[..., "asyncio.Future[Any]"]
    ) -> None:
        """Write the blob; raise OSError if it is not what the digest says."""
        self._descriptor = descriptor
        self._users += 1
        running = hasher(digest.algorithm)

        def write(piece: bytes, offset: int) -> None:
            running.update(piece)
            while piece:
                written = os.pwrite(descriptor, piece, offset)
                piece, offset = piece[written:], offset + written

        async with aclosing(self._read(0, self.size)) as pieces:
            async for piece in pieces:
                await offload(write, piece, self._written)
                self._written += len(piece)
                self._wake()
        if running.hexdigest() != digest.hex:
            raise OSError("the store has other bytes under its name: push it again to heal it")

    async def read(self, start: int, count: int) -> AsyncGenerator[bytes, None]:
        """Yield bytes as they arrive; those that never do come from the store, not by the disk."""
        stop = start + count
        self._users += 1
        try:
            while start < stop and (self._has(start) or not self._is_over):
                if not self._has(start):
                    await self._progress()
                    continue
                wanted = min(_PIECE_BYTES, self._written - start, stop - start)
                piece = os.pread(self._descriptor, wanted, start)
                start += len(piece)
                yield piece
        finally:
            self.release()
        if start < stop:
            async with aclosing(self._read(start, stop - start)) as pieces:
                async for piece in pieces:
                    yield piece

    def end(self) -> None:
        """Let nobody wait any more."""
        self._is_over = True
        self._wake()

    def release(self) -> None:
        """Close the file when nobody needs it any more."""
        self._users -= 1
        if self._users <= 0 and self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _has(self, offset: int) -> bool:
        return offset < self._written and self._descriptor >= 0

    async def _progress(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        await waiter

    def _wake(self) -> None:
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
        self._waiting.clear()


def _finish(descriptor: int, partial: Path, path: Path) -> None:
    os.fchmod(descriptor, 0o400)
    os.fdatasync(descriptor)
    partial.rename(path)


def _lock(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _Busy from None


def _is_dead(entry: "os.DirEntry[str]") -> bool:
    """Remove what a process that was killed has begun to fill."""
    if not entry.name.startswith("."):
        return False
    with suppress(FileNotFoundError):
        descriptor = os.open(entry.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            _lock(descriptor)
            os.unlink(entry.path)
        except _Busy:
            return False
        finally:
            os.close(descriptor)
    return True
