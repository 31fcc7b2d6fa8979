"""The folder in which uploads grow: a file each, named by the upload's id, locked by who writes.

Every engine that writes to this machine's disk first has one.
"""

import asyncio
import errno
import fcntl
import os
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from cypd.registry.ports import Fatal, Unavailable, UploadBusy
from cypd.storage.staged import Progress

T = TypeVar("T")

_STAGE = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_UPLOAD_ID = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)
# Disk full, quota full, out of descriptors or memory: it passes, and nothing is lost by it.
_PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
# Enough to keep a disk's queue busy with fdatasync while hashing on every core.
_THREADS = 16
# Hashes of open uploads that are kept between their requests; past it the oldest is read again.
_REMEMBERED = 1024


class StagingFolder:
    """Uploads in ``folder``, which exists, and the threads that work on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="storage")
        self._remembered: OrderedDict[str, Progress] = OrderedDict()

    def close(self) -> None:
        """Wait for running work and stop the threads."""
        self.pool.shutdown()

    def offload(self, function: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
        """Run a function in a thread; errors of the file system get their meaning."""
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self.pool, _translated, function, *arguments)

    def path(self, upload_id: str) -> Path:
        """Return where an upload's bytes are; only for ids that the registry made."""
        if not _UPLOAD_ID.fullmatch(upload_id):
            raise ValueError(f"not an upload's id: {upload_id!r}")
        return self.folder / upload_id

    def size(self, upload_id: str) -> int:
        """Return how many bytes an upload has; 0 if there is none."""
        try:
            return self.path(upload_id).stat().st_size
        except FileNotFoundError:
            return 0

    async def idle(self, since: float) -> Sequence[str]:
        """Return the uploads that were last written to before that time (unix seconds)."""
        return await self.offload(_older_than, str(self.folder), since)

    def remember(self, upload_id: str, progress: Progress) -> None:
        """Keep an upload's running hash until its next request."""
        self._remembered[upload_id] = progress
        if len(self._remembered) > _REMEMBERED:
            self._remembered.popitem(last=False)

    def recall(self, upload_id: str) -> Progress | None:
        """Return an upload's running hash, if it was kept, and keep it no longer."""
        return self._remembered.pop(upload_id, None)


@contextmanager
def translating(*, is_read: bool = False) -> Iterator[None]:
    """Give an error of the file system the meaning it has for the registry.

    A sector that can't be read spoils one blob; only a write that fails puts all others in doubt.
    """
    try:
        yield
    except OSError as error:
        if error.errno == errno.EIO and not is_read:
            raise Fatal(f"storage: {error}") from error
        if error.errno in _PASSING:
            raise Unavailable(f"storage: {os.strerror(error.errno)}") from error
        raise


def _translated(function: Callable[..., T], *arguments: Any) -> T:
    with translating():
        return function(*arguments)


def open_staged(path: Path) -> int:
    """Return a descriptor of an upload's file, made if need be, and locked; or ``UploadBusy``."""
    descriptor = os.open(path, _STAGE, 0o600)
    try:
        lock_staged(descriptor, path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def lock_staged(descriptor: int, path: Path) -> None:
    """Lock an upload's file for as long as it is open; raise ``UploadBusy`` if it is locked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UploadBusy(path.name) from None
    # The one who held the lock may have placed this very file meanwhile: it is a blob then, and
    # must not be written to any more.
    with suppress(FileNotFoundError):
        if os.fstat(descriptor).st_ino == path.stat().st_ino:
            return
    raise UploadBusy(path.name)


def _older_than(folder: str, moment: float) -> list[str]:
    older = []
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # it has become a blob meanwhile
                if _UPLOAD_ID.fullmatch(entry.name) and entry.stat().st_mtime < moment:
                    older.append(entry.name)
    return older
