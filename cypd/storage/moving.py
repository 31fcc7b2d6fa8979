"""A storage that is about to take the place of another one, while both serve.

What is pushed goes to the new one. What is asked for comes from whichever has it, so the old one
can be copied in peace. An upload that began in the old one ends there, and is copied afterwards.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from cypd.oci.digest import Algorithm, Digest
from cypd.registry.ports import (
    BlobMissing,
    BlobStorage,
    Condition,
    Content,
    StagedBlob,
    Unavailable,
    no_matter,
)


class MovingStorage:
    """Two storages as one."""

    def __init__(self, new: BlobStorage, old: BlobStorage) -> None:
        self._new = new
        self._old = old
        self._begun_before: list[StagedBlob] = []

    async def has(self, digest: Digest, size: int) -> bool:
        try:
            return await self._new.has(digest, size) or await self._old.has(digest, size)
        except Unavailable:
            if await self._old.has(digest, size):
                return True
            raise

    async def open(self, digest: Digest, size: int) -> Content:
        try:
            return await self._new.open(digest, size)
        except (BlobMissing, Unavailable) as error:
            try:
                return await self._old.open(digest, size)
            except BlobMissing:
                raise error from None

    @asynccontextmanager
    async def stage(self, upload_id: str, algorithm: Algorithm) -> AsyncIterator[StagedBlob]:
        if not await self._old.staged_size(upload_id):
            async with self._new.stage(upload_id, algorithm) as staged:
                yield staged
            return
        async with self._old.stage(upload_id, algorithm) as staged:
            self._begun_before.append(staged)
            try:
                yield staged
            finally:
                self._begun_before.remove(staged)

    async def staged_size(self, upload_id: str) -> int:
        return await self._old.staged_size(upload_id) or await self._new.staged_size(upload_id)

    @asynccontextmanager
    async def place(self, staged: StagedBlob, digest: Digest) -> AsyncIterator[None]:
        owner = self._old if staged in self._begun_before else self._new
        async with owner.place(staged, digest):
            yield

    async def discard(self, upload_id: str) -> None:
        await self._old.discard(upload_id)
        await self._new.discard(upload_id)

    async def staged_uploads(self, *, idle_since: float) -> Sequence[str]:
        return [
            *await self._old.staged_uploads(idle_since=idle_since),
            *await self._new.staged_uploads(idle_since=idle_since),
        ]

    async def collect(
        self,
        is_held: Callable[[Digest], bool],
        *,
        placed_before: float,
        spared: Callable[[int], None] = no_matter,
    ) -> int:
        removed = await self._old.collect(is_held, placed_before=placed_before, spared=spared)
        return removed + await self._new.collect(
            is_held, placed_before=placed_before, spared=spared
        )

    async def verify(
        self, digest: Digest, size: int, spend: Callable[[int], Awaitable[None]]
    ) -> Condition:
        new = await self._new.verify(digest, size, spend)
        old = await self._old.verify(digest, size, spend)
        if "good" in (new, old):
            return "good"
        return "damaged" if "damaged" in (new, old) else "missing"
