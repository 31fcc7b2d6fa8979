"""Blobs as objects of an S3-compatible store, of which this machine keeps no copy.

::

    blobs/<algorithm>/<first 2 hex>/<hex>    complete, its digest verified as it came
    uploads/<upload id>/<number>-<random>    a part of an upload that is under way
    owner                                    which registry has its blobs here
    damaged/<algorithm>-<hex>                blobs with wrong bytes, for people to look at

A part has a key of its own at each attempt to write it: a request that was given up, and is carried
out by the store much later, can spoil nothing then. A blob is put together of its parts by the
store, in one step that replaces what stands there.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from cypd.oci.digest import ALGORITHMS, Algorithm, Digest, hasher
from cypd.oci.errors import OCIError
from cypd.registry.ports import (
    INLINE_BYTES,
    BlobMissing,
    Condition,
    Content,
    DigestMismatch,
    Inline,
    Remote,
    StagedBlob,
    Unavailable,
    UploadBusy,
    no_matter,
)
from cypd.storage.s3.cache import DiskCache
from cypd.storage.s3.journal import Journal, Part, orphans, path_of
from cypd.storage.s3.owner import claim
from cypd.storage.s3.redirects import Redirects
from cypd.storage.s3.running import running_hash
from cypd.storage.s3.shards import Deletions, Shards, shard_of
from cypd.storage.s3.staged import StagedParts
from cypd.storage.s3.store import Body, Object, Store, StoreRefused
from cypd.storage.small import SmallBlobs
from cypd.storage.staged import Progress, hash_rest
from cypd.storage.staging import StagingFolder, open_staged, translating

log = logging.getLogger(__name__)

# How long the store may carry out a request to delete, and how far the clocks of its machines may
# be apart, or one of them be behind with its work.
_DELETE_SECONDS = 15
_DOUBT_SECONDS = 5
_LOOK_SECONDS = 1.0
_DELETES = 16
_COPY_BYTES = 5 << 30  # the most that one request copies; wrong bytes are worth no more trouble
_CLOSE_SECONDS = 10.0


class S3Storage:
    """Blobs in ``store``, all keys beginning with ``prefix``; uploads under ``root`` on their way.

    ``root`` is made if it does not exist. All processes that write to the same keys share it.
    """

    def __init__(
        self,
        store: Store,
        root: Path,
        *,
        prefix: str,
        part_size: int,
        redirects: Redirects,
        cache_size: int,
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._part_size = part_size
        self._redirects = redirects
        self._root = root
        self._is_ours = False
        for folder in (root / "uploads", root / "shards"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._staging = StagingFolder(root / "uploads")
        self._shards = Shards(root / "shards")
        self._small = SmallBlobs()
        self._cache = DiskCache(root / "cache", cache_size, self._staging.offload)
        self._chores: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Finish what is under way, in bounds, and stop the threads."""
        if self._chores:
            await asyncio.wait(self._chores, timeout=_CLOSE_SECONDS)
        for chore in self._chores:
            chore.cancel()
        await self._cache.close()
        self._staging.close()

    async def claim(self) -> None:
        """Raise ``ForeignKeys`` where another registry has its blobs: nothing is removed then."""
        if not self._is_ours:
            await claim(self._store, f"{self._prefix}owner", self._root / "owner")
            self._is_ours = True

    def _key(self, digest: Digest) -> str:
        return f"{self._prefix}blobs/{digest.algorithm}/{digest.hex[:2]}/{digest.hex}"

    def _parts(self, upload_id: str = "") -> str:
        return f"{self._prefix}uploads/{upload_id and upload_id + '/'}"

    # --- reading --------------------------------------------------------------------------------

    async def has(self, digest: Digest, size: int) -> bool:
        return await self._store.size(self._key(digest)) == size

    async def open(self, digest: Digest, size: int) -> Content:
        if (data := self._small.get(digest)) is not None:
            return Inline(data)
        key = self._key(digest)
        if size > INLINE_BYTES:
            return await self._open_large(digest, key, size)
        data = await self._store.get(key, size)
        if not self._small.put(digest, data):
            raise BlobMissing(digest)
        return Inline(data)

    async def _open_large(self, digest: Digest, key: str, size: int) -> Content:
        if copy := self._cache.get(digest, size):
            return copy
        if await self._store.size(key) != size:
            raise BlobMissing(digest)
        return _Blob(self._store, self._redirects, self._cache, digest=digest, key=key, size=size)

    # --- uploads --------------------------------------------------------------------------------

    @asynccontextmanager
    async def stage(self, upload_id: str, algorithm: Algorithm) -> AsyncIterator[StagedBlob]:
        path = self._staging.path(upload_id)
        remembered = self._staging.recall(upload_id)
        descriptor = await self._staging.offload(open_staged, path)
        try:
            journal = Journal(path_of(path))
            progress = await self._hashed(descriptor, journal, algorithm, remembered)
        except BaseException:
            os.close(descriptor)
            raise
        staged = StagedParts(
            path,
            descriptor,
            progress,
            self._staging.offload,
            journal=journal,
            send=self._sender(upload_id),
            part_size=self._part_size,
        )
        with translating():
            try:
                yield staged
            finally:
                reached = await staged.close()
                if reached is not None and path.exists():
                    self._staging.remember(upload_id, reached)

    async def _hashed(
        self,
        descriptor: int,
        journal: Journal,
        algorithm: Algorithm,
        remembered: Progress | None,
    ) -> Progress:
        """Return how far an upload is hashed: to its end, by reading what nobody remembers."""
        size = os.fstat(descriptor).st_size
        if journal.stored > size:  # of another file of that name: one that was placed, or lost
            journal.cut(0)
        if remembered and (remembered.size, remembered.algorithm) == (size, algorithm):
            return remembered
        known = journal.hashed
        if known is None or known.algorithm != algorithm or known.size > size:
            known = Progress(0, algorithm, running_hash(algorithm))
        for part in journal.parts:
            skipped = max(0, known.size - part.start)
            if skipped < part.size:
                known = await self._hash_part(part, skipped, known)
        return await self._staging.offload(hash_rest, descriptor, size, known)

    async def _hash_part(self, part: Part, start: int, progress: Progress) -> Progress:
        async for piece in self._store.read(part.key, start, part.size - start):
            await self._staging.offload(progress.hash.update, piece)
        return progress._replace(size=part.start + part.size)

    def _sender(self, upload_id: str) -> Callable[[int, int, int, Body], "asyncio.Future[Part]"]:
        async def send(number: int, start: int, size: int, body: Body) -> Part:
            key = f"{self._parts(upload_id)}{number:05}-{secrets.token_hex(8)}"
            await self._store.put(key, size, body)
            return Part(number, key, start, size)

        return send  # type: ignore[return-value]

    async def staged_size(self, upload_id: str) -> int:
        return self._staging.size(upload_id)

    async def staged_uploads(self, *, idle_since: float) -> Sequence[str]:
        return await self._staging.idle(idle_since)

    async def discard(self, upload_id: str) -> None:
        path = self._staging.path(upload_id)
        self._staging.recall(upload_id)
        path.unlink(missing_ok=True)
        if path_of(path).exists():
            self._begin_cleaning(upload_id)

    @asynccontextmanager
    async def place(self, staged: StagedBlob, digest: Digest) -> AsyncIterator[None]:
        assert isinstance(staged, StagedParts)  # noqa: S101 (a stage of another engine: our fault)
        await staged.settle()
        job = staged.start(staged.finish)
        await staged.settle()
        if job.result() != digest.hex:
            raise DigestMismatch(digest)
        async with self._shards.placing(digest) as in_doubt_until:
            await self._outwait(in_doubt_until)
            if not staged.path.exists():  # the session was cancelled meanwhile
                raise UploadBusy(staged.path.name)
            await self._store_blob(staged, digest)
            self._cache.forget(digest)
            try:
                staged.path.unlink()
            except FileNotFoundError:
                raise UploadBusy(staged.path.name) from None
            finally:
                if staged.journal.exists():
                    self._begin_cleaning(staged.path.name)
            yield

    async def _store_blob(self, staged: StagedParts, digest: Digest) -> None:
        key = self._key(digest)
        if not staged.has_parts:
            await self._store.put(key, staged.size, lambda: staged.region(0, staged.size))
            return
        parts = await staged.move_all()
        await self._store.assemble(key, [part.key for part in parts])
        if (found := await self._store.size(key)) != staged.size:
            raise StoreRefused(f"the S3 store made {found} bytes of {staged.size}")

    async def _outwait(self, moment: float) -> None:
        """Return when the store's clock is past the moment."""
        if not moment:
            return
        while (left := moment + _DOUBT_SECONDS - await self._store.now()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(min(left, _LOOK_SECONDS))

    # --- scrubbing ------------------------------------------------------------------------------

    async def verify(
        self, digest: Digest, size: int, spend: Callable[[int], Awaitable[None]]
    ) -> Condition:
        key = self._key(digest)
        there = await self._entry(key)
        if there is None:
            return "missing"
        if there.size == size and await self._is_right(key, digest, size, spend):
            return "good"
        async with self._shards.collecting(shard_of(digest)) as deletions:
            # While one is placing, what is there may be new; the next round looks again.
            if deletions is None or await self._entry(key) != there:
                return "good"
            if there.size <= _COPY_BYTES:
                name = f"{self._prefix}damaged/{digest.algorithm}-{digest.hex}"
                await self._store.assemble(name, [key])
            await self._remove([digest], deletions)
        return "damaged"

    async def _entry(self, key: str) -> Object | None:
        async for page in self._store.objects(key):
            return next((it for it in page if it.key == key), None)
        return None

    async def _is_right(
        self, key: str, digest: Digest, size: int, spend: Callable[[int], Awaitable[None]]
    ) -> bool:
        running = hasher(digest.algorithm)
        try:
            async for piece in self._store.read(key, 0, size):
                await spend(len(piece))
                await self._staging.offload(running.update, piece)
        except BlobMissing:  # it is shorter than the store says
            return False
        return running.hexdigest() == digest.hex

    # --- what is left over ----------------------------------------------------------------------

    def _begin_cleaning(self, upload_id: str) -> None:
        task = asyncio.get_running_loop().create_task(self._clean(upload_id))
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    async def _clean(self, upload_id: str) -> None:
        """Remove the parts of an upload that is over; the next round of collection tries again."""
        try:
            async for page in self._store.objects(self._parts(upload_id)):
                await self._store.delete_all([it.key for it in page])
            path_of(self._staging.path(upload_id)).unlink(missing_ok=True)
        except (Unavailable, StoreRefused) as error:
            log.warning("parts of an upload that is over stay for now: %s", error)

    async def collect(
        self,
        is_held: Callable[[Digest], bool],
        *,
        placed_before: float,
        spared: Callable[[int], None] = no_matter,
    ) -> int:
        await self.claim()
        for upload_id in orphans(self._staging.folder):
            await self._clean(upload_id)
        await self._collect_parts(placed_before)
        await self._collect_unfinished(placed_before)
        removed = 0
        for algorithm in ALGORITHMS:
            async for page in self._store.objects(f"{self._prefix}blobs/{algorithm}/"):
                removed += await self._collect_page(page, is_held, placed_before, spared)
        return removed

    async def _collect_parts(self, before: float) -> None:
        """Remove parts of uploads that this machine knows nothing of (any more)."""
        async for page in self._store.objects(self._parts()):
            old = [it.key for it in page if it.changed_at < before and not self._is_staged(it.key)]
            await self._store.delete_all(old)

    def _is_staged(self, key: str) -> bool:
        upload_id = key.removeprefix(self._parts()).partition("/")[0]
        return (self._staging.folder / upload_id).exists()

    async def _collect_unfinished(self, before: float) -> None:
        """Abort what was being put together when a process was killed."""
        async for page in self._store.unfinished(f"{self._prefix}blobs/"):
            for it in page:
                digest = self._digest(it.key)
                if digest is None or it.started_at >= before:
                    continue
                async with self._shards.collecting(shard_of(digest)) as deletions:
                    if deletions:
                        await self._store.abort(it)

    async def _collect_page(
        self,
        page: Sequence[Object],
        is_held: Callable[[Digest], bool],
        before: float,
        spared: Callable[[int], None],
    ) -> int:
        def unheld(digests: Iterable[Digest]) -> list[Digest]:
            return [digest for digest in digests if not is_held(digest)]

        found = {digest: it for it in page if (digest := self._digest(it.key))}
        removed = 0
        # Most are held: a look at all of them, without a lock, leaves few to look at again.
        free = await self._staging.offload(unheld, found)
        for digest in free:
            if found[digest].changed_at >= before:
                spared(found[digest].size)
        free = [digest for digest in free if found[digest].changed_at < before]
        for shard, digests in itertools.groupby(free, shard_of):
            async with self._shards.collecting(shard) as deletions:
                if deletions:
                    # Whoever places one has the lock until it is linked: what is not held now is
                    # in nobody's hands.
                    garbage = await self._staging.offload(unheld, list(digests))
                    removed += await self._remove(garbage, deletions)
        return removed

    async def _remove(self, digests: Sequence[Digest], deletions: Deletions) -> int:
        slots = asyncio.Semaphore(_DELETES)

        async def remove(digest: Digest) -> None:
            async with slots:
                until = time.time() + _DELETE_SECONDS
                await self._staging.offload(deletions.announce, until)
                left = int(until - time.time())
                if left < 1:
                    raise Unavailable("the disk took too long to note a delete")
                await self._store.delete(self._key(digest), valid=left)

        results = await asyncio.gather(*map(remove, digests), return_exceptions=True)
        for error in filter(None, results):
            raise error  # and the announcement stays
        deletions.settle()
        return len(digests)

    def _digest(self, key: str) -> Digest | None:
        algorithm, _, name = key.removeprefix(f"{self._prefix}blobs/").partition("/")
        with contextlib.suppress(OCIError):  # whoever put it here knows what it is
            digest = Digest.parse(f"{algorithm}:{name.partition('/')[2]}")
            return digest if self._key(digest) == key else None
        return None


class _Blob(Remote):
    """A blob that is read from the store."""

    def __init__(
        self,
        store: Store,
        redirects: Redirects,
        cache: DiskCache,
        *,
        digest: Digest,
        key: str,
        size: int,
    ) -> None:
        self.size = size
        self._store = store
        self._redirects = redirects
        self._cache = cache
        self._digest = digest
        self._key = key

    async def address(self, client: str) -> str | None:
        if not self._redirects.reach(client):
            return None
        return await self._store.address(self._key, valid=self._redirects.valid)

    def read(self, start: int, count: int) -> AsyncGenerator[bytes, None]:
        if count == self.size and self._cache.takes(count):
            return self._cache.fill(self._digest, count, self._read).read(start, count)
        return self._read(start, count)

    def _read(self, start: int, count: int) -> AsyncGenerator[bytes, None]:
        return self._store.read(self._key, start, count)

    def close(self) -> None:
        pass
