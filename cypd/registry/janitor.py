"""The janitor removes what deletes, crashes and clients that went away leave behind."""

import logging
import time
from typing import NamedTuple

from cypd.registry.ports import BlobStorage, MetadataStore

log = logging.getLogger(__name__)

_PIECE = 256


class Round(NamedTuple):
    """What a round has removed, and what it has left for now."""

    sessions: int
    links: int
    blobs: int
    unused_blobs: int
    """Nobody holds them, but they were not there for long enough."""
    unused_bytes: int


class Janitor:
    """Sweeps sessions nobody came back to, links no manifest needs, and blobs nobody holds."""

    def __init__(
        self,
        metadata: MetadataStore,
        storage: BlobStorage,
        *,
        session_ttl: float,
        blob_grace: float,
        loose_grace: float,
    ) -> None:
        self._metadata = metadata
        self._storage = storage
        self._session_ttl = session_ttl
        self._blob_grace = blob_grace
        self._loose_grace = loose_grace

    async def sweep(self) -> Round:
        """Do one round; it may run beside pushes and pulls, and be cut off anywhere."""
        now = time.time()
        sessions = await self._sweep_uploads(now - self._session_ttl)
        links = await self._unlink_loose(now - self._loose_grace)
        unused: list[int] = []
        blobs = await self._storage.collect(
            self._metadata.is_held, placed_before=now - self._blob_grace, spared=unused.append
        )
        if sessions or links or blobs:
            log.info(
                "janitor: removed %d idle uploads, %d links that no manifest needs, "
                "and %d unused blobs",
                sessions,
                links,
                blobs,
            )
        return Round(sessions, links, blobs, len(unused), sum(unused))

    async def _unlink_loose(self, before: float) -> int:
        """Unlink what no manifest lists, in pieces that let pushes in between."""
        removed = 0
        while count := await self._metadata.unlink_loose(before=before, limit=_PIECE):
            removed += count
        return removed

    async def _sweep_uploads(self, idle_since: float) -> int:
        # A session whose bytes still move is not idle, however old it is: look at its file first.
        idle = set(await self._storage.staged_uploads(idle_since=idle_since))
        for upload in self._metadata.uploads(started_before=idle_since):
            if upload.id in idle or not await self._storage.staged_size(upload.id):
                await self._metadata.close_upload(upload.id)
                idle.add(upload.id)
        swept = 0
        for upload_id in idle:
            if self._metadata.upload(upload_id) is None:
                await self._storage.discard(upload_id)
                swept += 1
        return swept
