"""Copying everything that is held from one storage to another, beside a daemon that serves.

What the target has already is left alone, so a run that was cut off anywhere is gone on with by the
next one; within a blob, from where its upload ends.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from cypd.oci.digest import Digest, hasher
from cypd.registry.held import every_held
from cypd.registry.ports import (
    BlobMissing,
    BlobStorage,
    DigestMismatch,
    MetadataStore,
    Unavailable,
    UploadBusy,
)
from cypd.storage.pace import Pace
from cypd.storage.reading import pieces

T = TypeVar("T")

_PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)  # seconds, before it is tried again
_WHENEVER = float("inf")  # a moment that is later than any, by whoever's clock


@dataclass
class Progress:
    """How far a run has come. Sizes are bytes."""

    blobs: int = 0
    """How many are held."""
    size: int = 0
    """Of all that are held."""
    present: int = 0
    """How many the target had already."""
    present_size: int = 0
    copied: int = 0
    copied_size: int = 0
    """What was written to the target, a blob that is under way included."""
    failed: dict[Digest, str] = field(default_factory=dict)
    """What could not be copied, and why."""


class Migration:
    """One run.

    ``jobs`` blobs are copied at a time, ``rate`` bounds what is read, in bytes a second (0 does
    not), and ``verify`` reads what the target has already.
    """

    def __init__(
        self,
        metadata: MetadataStore,
        source: BlobStorage,
        target: BlobStorage,
        *,
        jobs: int,
        rate: int,
        verify: bool,
    ) -> None:
        self.progress = Progress()
        self._metadata = metadata
        self._source = source
        self._target = target
        self._jobs = jobs
        self._pace = Pace(rate)
        self._verify = verify

    async def run(self) -> None:
        """Copy what the target lacks, or has in a damaged form if that is looked for.

        Raises ``Unavailable`` when a storage stays away for a minute.
        """
        for _, size in every_held(self._metadata):
            self.progress.blobs += 1
            self.progress.size += size
        held = every_held(self._metadata)

        async def work() -> None:
            for digest, size in held:
                await self._settle(digest, size)

        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(self._jobs):
                    workers.create_task(work())
        except ExceptionGroup as group:  # the first one cancelled the others
            raise group.exceptions[0] from None

    async def remove_source(self) -> int:
        """Remove what the source has, after a run that nothing failed in; return how many blobs.

        Nobody may have written to the source since before that run.
        """
        removed = await self._source.collect(
            self.progress.failed.__contains__, placed_before=_WHENEVER
        )
        for upload_id in await self._source.staged_uploads(idle_since=_WHENEVER):
            await self._source.discard(upload_id)
        return removed

    async def open_uploads(self) -> int:
        """Return how many uploads have bytes in the source, and may still become blobs there."""
        staged = await self._source.staged_uploads(idle_since=_WHENEVER)
        return sum(self._metadata.upload(upload_id) is not None for upload_id in staged)

    async def _settle(self, digest: Digest, size: int) -> None:
        progress = self.progress
        try:
            if await _patiently(lambda: self._is_there(digest, size)):
                progress.present += 1
                progress.present_size += size
            else:
                await _patiently(lambda: self._copy(digest, size))
                progress.copied += 1
        except (BlobMissing, DigestMismatch) as error:
            if self._metadata.is_held(digest):  # else it was deleted meanwhile
                is_lost = isinstance(error, BlobMissing)
                progress.failed[digest] = "missing" if is_lost else "damaged"

    async def _is_there(self, digest: Digest, size: int) -> bool:
        if not await self._target.has(digest, size):
            return False
        return not self._verify or await self._is_right(digest, size)

    async def _is_right(self, digest: Digest, size: int) -> bool:
        running = hasher(digest.algorithm)
        try:
            with contextlib.closing(await self._target.open(digest, size)) as content:
                async for piece in pieces(content):
                    await self._pace.spend(len(piece))
                    await asyncio.to_thread(running.update, piece)
        except BlobMissing:
            return False
        return running.hexdigest() == digest.hex

    async def _copy(self, digest: Digest, size: int) -> None:
        upload_id = f"moving-{digest.hex[:56]}"  # the same each time: what is begun is gone on with
        has_begun = await self._target.staged_size(upload_id) > 0
        try:
            await self._copy_rest(upload_id, digest, size)
        except DigestMismatch:
            await self._target.discard(upload_id)
            if not has_begun:
                raise
            await self._copy_rest(upload_id, digest, size)  # perhaps only the beginning was wrong

    async def _copy_rest(self, upload_id: str, digest: Digest, size: int) -> None:
        with contextlib.closing(await self._source.open(digest, size)) as content:
            async with self._target.stage(upload_id, digest.algorithm) as staged:
                async for piece in pieces(content, staged.size):
                    await self._pace.spend(len(piece))
                    await staged.write(piece)
                    self.progress.copied_size += len(piece)
                async with self._target.place(staged, digest):
                    pass  # its links are there already


async def _patiently(work: Callable[[], Awaitable[T]]) -> T:
    """Do some work, again after a while if it can't be done now."""
    for pause in _PAUSES:
        try:
            return await work()
        except (Unavailable, UploadBusy):  # UploadBusy: a janitor took it for an idle one
            await asyncio.sleep(pause)
    return await work()
