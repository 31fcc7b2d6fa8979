"""The metadata store on LMDB: one environment, a table set for each noun."""

from pathlib import Path

from cypd.metadata.lmdb.accounts import LmdbAccounts
from cypd.metadata.lmdb.audit import LmdbAudit
from cypd.metadata.lmdb.contents import Contents
from cypd.metadata.lmdb.environment import Environment
from cypd.metadata.lmdb.journal import Journal
from cypd.metadata.lmdb.ledger import Ledger
from cypd.metadata.lmdb.projects import LmdbProjects
from cypd.metadata.lmdb.registry import LmdbRegistry
from cypd.metadata.lmdb.webhooks import LmdbWebhooks


class LmdbMetadata:
    """Metadata in a folder of its own; see ``keys`` for the layout."""

    def __init__(self, path: Path, map_size: int) -> None:
        self._environment = Environment(path, map_size)
        self.events = Journal(self._environment)
        ledger = Ledger(self._environment, self.events)
        contents = Contents(self._environment, ledger)
        webhooks = LmdbWebhooks(self._environment, self.events)
        self.registry = LmdbRegistry(self._environment, contents, ledger, self.events)
        self.projects = LmdbProjects(self._environment, contents, ledger, self.events, webhooks)
        self.webhooks = webhooks
        self.audit = LmdbAudit(self._environment)
        self.accounts = LmdbAccounts(self._environment)

    def close(self) -> None:
        """Finish the queued writes and close."""
        self._environment.close()

    def check_readers(self) -> int:
        """Free the reader slots of processes that died; return how many there were."""
        return self._environment.check_readers()

    async def test_write(self) -> None:
        """Write durably, as a push would; raise what keeps one from it."""
        await self._environment.test_write()

    async def probe(self) -> None:
        """Return if the writer commits and a read works; both cost the disk nothing."""
        await self._environment.probe()
