"""The scrub reads everything that is held where it is kept: disks forget, and tell nobody."""

import logging
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from cypd.oci.digest import Digest
from cypd.registry.held import every_held
from cypd.registry.ports import BlobStorage, MetadataStore

log = logging.getLogger(__name__)

_SAVE_SECONDS = 5.0

Spend = Callable[[int], Awaitable[None]]


class Round(msgspec.Struct, kw_only=True):
    """One time through all that is held. Times are unix seconds, sizes bytes."""

    started_at: float
    finished_at: float | None = None
    finished_before: float | None = None
    """When the round before it ended."""
    after: str = ""
    """The last digest that was looked at."""
    blobs: int = 0
    size: int = 0
    damaged: int = 0
    missing: int = 0


class Rounds:
    """The round that runs or ran last, in a file that every process may read."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def last(self) -> Round | None:
        """Return it; ``None`` if there was none, or if nobody can tell any more."""
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=Round)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def save(self, round_: Round) -> None:
        """Keep it. A crash of the machine may lose the last one: then a new round begins."""
        new = self._file.with_suffix(".new")
        new.touch(mode=0o600)
        new.write_bytes(msgspec.json.encode(round_))
        os.replace(new, self._file)


class Scrub:
    """Looks at each blob that is held, ascending by digest.

    ``spend`` is awaited with the length of each piece before it is read: it sets the pace.
    """

    def __init__(
        self, metadata: MetadataStore, storage: BlobStorage, rounds: Rounds, spend: Spend
    ) -> None:
        self._metadata = metadata
        self._storage = storage
        self._rounds = rounds
        self._spend = spend
        self._saved_at = 0.0

    def is_due(self, interval: float) -> bool:
        """Tell whether a round was broken off, or the last began that many seconds ago."""
        last = self._rounds.last()
        return last is None or last.finished_at is None or last.started_at + interval <= time.time()

    async def run(
        self, *, anew: bool = False, told: Callable[[Round], None] = lambda _: None
    ) -> Round:
        """Do a round, or the rest of one that was broken off unless ``anew``; return it.

        ``told`` hears of each blob. Raises ``Unavailable``; the round can be gone on with then.
        """
        round_ = self._rounds.last()
        if anew or round_ is None or round_.finished_at is not None:
            before = round_.finished_at or round_.finished_before if round_ else None
            round_ = Round(started_at=time.time(), finished_before=before)
        log.info("scrub: begins after %s", round_.after or "nothing: a new round")
        try:
            for digest, size in every_held(self._metadata, round_.after):
                await self._look(round_, digest, size)
                self._save_now_and_then(round_)
                told(round_)
            round_.finished_at = time.time()
        finally:
            self._rounds.save(round_)
        log.info(
            "scrub: read %d blobs with %d bytes: %d damaged, %d missing",
            round_.blobs,
            round_.size,
            round_.damaged,
            round_.missing,
        )
        return round_

    async def _look(self, round_: Round, digest: Digest, size: int) -> None:
        condition = await self._storage.verify(digest, size, self._spend)
        round_.after = str(digest)
        if condition != "good" and not self._metadata.is_held(digest):
            return  # it was deleted meanwhile
        round_.blobs += 1
        round_.size += size
        if condition == "damaged":
            round_.damaged += 1
            log.error("scrub: blob %s is damaged and was set aside: push it again", digest)
        elif condition == "missing":
            round_.missing += 1
            log.error("scrub: blob %s is missing: push it again", digest)

    def _save_now_and_then(self, round_: Round) -> None:
        if time.monotonic() - self._saved_at > _SAVE_SECONDS:
            self._saved_at = time.monotonic()
            self._rounds.save(round_)
