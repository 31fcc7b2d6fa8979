"""Counting pulls without a write for each: they gather in memory and are written together."""

import logging

from cypd.access import Act
from cypd.oci.digest import Digest
from cypd.oci.names import RepositoryName, Tag
from cypd.registry.inventory_ports import InventoryStore, Pulls
from cypd.registry.ports import Unavailable

log = logging.getLogger(__name__)

MAX_KEYS = 100_000
"""How many different things can be pulled between two writes; more are not counted."""
_BATCH = 1000  # written at a time, so that no push waits long behind them

_Key = tuple[RepositoryName, Digest, Tag | None]


class PullCounter:
    """Notes pulls at once, and brings them to the store now and then.

    What was noted since the last ``flush`` is lost with the process.
    """

    def __init__(self, store: InventoryStore, *, tell: bool = False) -> None:
        """``tell``: whether pulls are events."""
        self._store = store
        self._tell = tell
        self._noted: dict[_Key, tuple[int, Act]] = {}
        self._dropped = 0

    def note(
        self, repository: RepositoryName, digest: Digest, tag: Tag | None, act: Act, count: int = 1
    ) -> None:
        """Note a pull, by tag or by digest. Does as little as it can: every pull waits for it."""
        noted = self._noted
        key = (repository, digest, tag)
        before = noted.get(key)
        if before is not None:
            noted[key] = (before[0] + count, act)
        elif len(noted) < MAX_KEYS:
            noted[key] = (count, act)
        else:
            self._dropped += count

    async def flush(self) -> None:
        """Write what was noted. Raises ``Unavailable``, and keeps what it could not write.

        One that is cancelled has written what it was at, and keeps the rest.
        """
        if self._dropped:
            log.warning("%d pulls of very many things are not counted", self._dropped)
            self._dropped = 0
        left = len(self._noted)
        while left > 0 and self._noted:
            size = min(_BATCH, left, len(self._noted))
            taken = [self._noted.popitem() for _ in range(size)]
            left -= size
            pulls = [Pulls(*key, count, act) for key, (count, act) in taken]
            try:
                await self._store.note_pulls(pulls, tell=self._tell)
            except Unavailable:
                for key, (count, act) in taken:
                    self.note(*key, act, count)
                raise
