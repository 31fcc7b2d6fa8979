"""Blobs in memory: the contract of ``BlobStorage`` in the plainest Python there is."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from cypd.oci.digest import Algorithm, Digest
from cypd.registry.ports import (
    BlobMissing,
    Condition,
    Content,
    DigestMismatch,
    Inline,
    StagedBlob,
    UploadBusy,
    no_matter,
)


class _Staged:
    def __init__(self) -> None:
        self.data = bytearray()
        self.origin = 0
        self.busy = False
        self.written_at = time.time()

    @property
    def size(self) -> int:
        return len(self.data)

    async def write(self, data: bytes | memoryview) -> None:
        self.data += data
        self.written_at = time.time()

    async def flush(self) -> None:
        pass

    async def rollback(self) -> None:
        del self.data[self.origin :]


class MemoryStorage:
    """Everything in dictionaries; gone with the process."""

    def __init__(self) -> None:
        self._blobs: dict[Digest, tuple[bytes, float]] = {}
        self._placing: dict[Digest, int] = {}
        self._staged: dict[str, _Staged] = {}

    async def has(self, digest: Digest, size: int) -> bool:
        return digest in self._blobs and len(self._blobs[digest][0]) == size

    async def open(self, digest: Digest, size: int) -> Content:
        if not await self.has(digest, size):
            raise BlobMissing(digest)
        return Inline(self._blobs[digest][0])

    @asynccontextmanager
    async def stage(self, upload_id: str, algorithm: Algorithm) -> AsyncIterator[StagedBlob]:
        staged = self._staged.setdefault(upload_id, _Staged())
        if staged.busy:
            raise UploadBusy(upload_id)
        staged.busy, staged.origin = True, staged.size
        try:
            yield staged
        finally:
            staged.busy = False

    async def staged_size(self, upload_id: str) -> int:
        staged = self._staged.get(upload_id)
        return staged.size if staged else 0

    @asynccontextmanager
    async def place(self, staged: StagedBlob, digest: Digest) -> AsyncIterator[None]:
        upload_id = next((key for key, it in self._staged.items() if it is staged), None)
        if upload_id is None:
            raise UploadBusy
        data = bytes(self._staged[upload_id].data)
        if Digest.of(data, digest.algorithm) != digest:
            raise DigestMismatch(digest)
        del self._staged[upload_id]
        self._blobs[digest] = data, time.time()
        self._placing[digest] = self._placing.get(digest, 0) + 1
        try:
            yield
        finally:
            self._placing[digest] -= 1

    async def discard(self, upload_id: str) -> None:
        self._staged.pop(upload_id, None)

    async def staged_uploads(self, *, idle_since: float) -> Sequence[str]:
        return [key for key, it in self._staged.items() if it.written_at < idle_since]

    async def collect(
        self,
        is_held: Callable[[Digest], bool],
        *,
        placed_before: float,
        spared: Callable[[int], None] = no_matter,
    ) -> int:
        unused = [it for it in self._blobs if not self._placing.get(it) and not is_held(it)]
        garbage = [it for it in unused if self._blobs[it][1] < placed_before]
        for digest in set(unused) - set(garbage):
            spared(len(self._blobs[digest][0]))
        for digest in garbage:
            del self._blobs[digest]
        return len(garbage)

    async def verify(
        self, digest: Digest, size: int, spend: Callable[[int], Awaitable[None]]
    ) -> Condition:
        if digest not in self._blobs:
            return "missing"
        await spend(size)
        data, _ = self._blobs[digest]
        if Digest.of(data, digest.algorithm) == digest:
            return "good"
        del self._blobs[digest]
        return "damaged"
