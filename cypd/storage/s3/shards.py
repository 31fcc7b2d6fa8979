"""Where collecting and placing meet: a lock for all digests that begin alike, over all processes.

Shared from placing a blob until it is linked, exclusive while unheld ones are removed, as the
folders of the filesystem's engine are. But a store is far away: a request to delete may still be on
its way when the one who sent it is dead, and take away a blob that was pushed again meanwhile. So a
lock's file says until when such a request can be carried out; who places has to wait that long.
"""

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from cypd.oci.digest import Digest

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_NOTE_BYTES = 32
_LOOK_SECONDS = 0.02
# No store takes requests whose clock is further from its own (S3: a quarter of an hour).
_FORGET_SECONDS = 3600.0


class Deletions:
    """The right to remove what is not held, of the digests of one shard."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._before = _note(descriptor)

    def announce(self, until: float) -> None:
        """Note that requests to delete may be under way until then (unix seconds).

        Before the first is sent, and durable when it returns: a machine may be back from a power
        cut before such a request is no longer good.
        """
        self._write(max(until, self._before))
        os.fdatasync(self._descriptor)

    def settle(self) -> None:
        """Note that each of them was answered: what was there before is still true."""
        self._write(self._before)

    def _write(self, moment: float) -> None:
        os.pwrite(self._descriptor, f"{moment:<{_NOTE_BYTES}.3f}".encode(), 0)


class Shards:
    """The locks, as files in ``folder``, which exists."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @asynccontextmanager
    async def placing(self, digest: Digest) -> AsyncIterator[float]:
        """Keep collectors away; give the time until which a delete may be under way, 0 if none."""
        descriptor = os.open(self._path(shard_of(digest)), _FLAGS, 0o600)
        try:
            # Not in a thread: the collector that has the lock may need the last one itself.
            while not _lock(descriptor, fcntl.LOCK_SH):  # noqa: ASYNC110
                await asyncio.sleep(_LOOK_SECONDS)
            yield _note(descriptor)
        finally:
            os.close(descriptor)

    @asynccontextmanager
    async def collecting(self, shard: str) -> AsyncIterator[Deletions | None]:
        """Keep pushes waiting; ``None`` while one is placing: what is there can wait."""
        descriptor = os.open(self._path(shard), _FLAGS, 0o600)
        try:
            yield Deletions(descriptor) if _lock(descriptor, fcntl.LOCK_EX) else None
        finally:
            os.close(descriptor)

    def _path(self, shard: str) -> Path:
        return self._folder / shard


def shard_of(digest: Digest) -> str:
    """Return which shard a digest belongs to."""
    return f"{digest.algorithm}-{digest.hex[:2]}"


def _note(descriptor: int) -> float:
    moment = float(os.pread(descriptor, _NOTE_BYTES, 0) or 0)
    return moment if time.time() - moment < _FORGET_SECONDS else 0.0


def _lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
