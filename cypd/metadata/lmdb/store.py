"""The metadata store on LMDB: one environment, a table set for each noun."""

import time
from collections.abc import Callable
from pathlib import Path

from cypd.metadata.lmdb.accounts import LmdbAccounts
from cypd.metadata.lmdb.audit import LmdbAudit
from cypd.metadata.lmdb.contents import Contents
from cypd.metadata.lmdb.environment import Environment
from cypd.metadata.lmdb.facts import FactsBook
from cypd.metadata.lmdb.inventory import LmdbInventory
from cypd.metadata.lmdb.journal import Journal
from cypd.metadata.lmdb.ledger import Ledger
from cypd.metadata.lmdb.projects import LmdbProjects
from cypd.metadata.lmdb.registry import LmdbRegistry
from cypd.metadata.lmdb.scan_book import ScanBook
from cypd.metadata.lmdb.scans import LmdbScans
from cypd.metadata.lmdb.webhooks import LmdbWebhooks
from cypd.registry.ports import Figures


class LmdbMetadata:
    """Metadata in a folder of its own; see ``keys`` for the layout.

    ``clock`` tells, in unix seconds, when a repository began.
    """

    def __init__(
        self, path: Path, map_size: int, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._environment = Environment(path, map_size)
        self.events = Journal(self._environment)
        ledger = Ledger(self._environment, self.events)
        facts = FactsBook(self._environment)
        book = ScanBook(self._environment)
        contents = Contents(self._environment, ledger, facts, book, clock)
        self.webhooks = LmdbWebhooks(self._environment, self.events)
        self.registry = LmdbRegistry(self._environment, contents, ledger, self.events)
        self.inventory = LmdbInventory(self._environment, contents, ledger, facts, self.events)
        self.projects = LmdbProjects(
            self._environment, contents, ledger, self.events, self.webhooks
        )
        self.scans = LmdbScans(self._environment, contents, ledger, self.events, book)
        self.audit = LmdbAudit(self._environment)
        self.accounts = LmdbAccounts(self._environment)

    def close(self) -> None:
        """Finish the queued writes and close."""
        self._environment.close()

    def copy(self, folder: Path) -> None:
        """Write all of it, as it is at one moment, to a folder that exists and is empty."""
        self._environment.lmdb.copy(str(folder), compact=True)

    def check_readers(self) -> int:
        """Free the reader slots of processes that died; return how many there were."""
        return self._environment.check_readers()

    def figures(self) -> Figures:
        """Return how full it is, and how far readers lag behind."""
        return self._environment.figures()

    @property
    def waiting_writes(self) -> int:
        """How many writes wait for this process's writer."""
        return self._environment.writer.waiting

    def watch_commits(self, seen: Callable[[float, int], None]) -> None:
        """Have ``seen`` called on the event loop: each commit's seconds, and its operations."""
        self._environment.writer.seen = seen

    async def test_write(self) -> None:
        """Write durably, as a push would; raise what keeps one from it."""
        await self._environment.test_write()

    async def probe(self) -> None:
        """Return if the writer commits and a read works; both cost the disk nothing."""
        await self._environment.probe()
