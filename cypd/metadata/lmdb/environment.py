"""The LMDB environment: the only place that opens it."""

import os
import time
from pathlib import Path

import lmdb

from cypd.metadata.lmdb.writer import Writer
from cypd.registry.ports import Fatal, Figures

SCHEMA = b"4"
DATABASES = (
    "meta",
    "repositories",
    "tags",
    "tagged",
    "manifests",
    "references",
    "listed_by",
    "referrers",
    "links",
    "loose",
    "holders",
    "uploads",
    "shelves",
    "repository_facts",
    "tag_facts",
    "manifest_facts",
    "referrer_counts",
    "users",
    "user_names",
    "user_emails",
    "tokens",
    "tokens_of",
    "sessions",
    "sessions_of",
    "failures",
    "projects",
    "project_names",
    "members",
    "charges",
    "usage",
    "events",
    "events_of",
    "webhooks",
    "webhooks_of",
    "deliveries",
    "delivery_ids",
    "due",
    "hook_cursors",
    "hook_statistics",
    "audit",
    "audit_of",
    "scans",
    "scan_ids",
    "scans_of",
    "scanned",
    "scan_findings",
    "scan_logs",
    "guarded",
)
# The default of 126 is one process's worth of reader slots; the first opener decides.
_MAX_READERS = 1024


class Environment:
    """An open environment with its databases and its writer.

    Never fork while it is open, and never open and close ``data.mdb`` or ``lock.mdb`` otherwise in
    this process: closing any descriptor of a file drops the process's fcntl locks on it (POSIX),
    LMDB's among them, and two writers then lose each other's commits.
    """

    def __init__(self, path: Path, map_size: int) -> None:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self.lmdb = lmdb.open(
                str(path),
                map_size=map_size,
                max_dbs=len(DATABASES),
                max_readers=_MAX_READERS,
                mode=0o600,
                lib_version=0,  # the wheel carries two engines with incompatible files
            )
        except lmdb.Error as error:
            raise Fatal(f"the metadata can't be opened: {error}") from error
        self.lmdb.reader_check()
        self._databases = {name: self.lmdb.open_db(name.encode()) for name in DATABASES}
        self._check_schema(path)
        _sync_folder(path)
        _sync_folder(path.parent)
        self.writer = Writer(self.lmdb)

    def database(self, name: str) -> "lmdb._Database":
        """Return one of ``DATABASES``."""
        return self._databases[name]

    def _check_schema(self, path: Path) -> None:
        with self.lmdb.begin(write=True) as transaction:
            meta = self.database("meta")
            schema = transaction.get(b"schema", db=meta)
            if schema is None:
                transaction.put(b"schema", SCHEMA, db=meta)
            elif bytes(schema) != SCHEMA:
                raise Fatal(f"{path} was written by another version of cypd (schema {schema!r})")

    def check_readers(self) -> int:
        """Free the reader slots of processes that died; return how many there were."""
        return self.lmdb.reader_check()

    async def test_write(self) -> None:
        """Have the writer commit a page. Raises ``Unavailable`` or ``Fatal``."""
        meta, now = self.database("meta"), b"%d" % time.time()
        await self.writer.run(lambda transaction: transaction.put(b"started", now, db=meta))

    async def probe(self) -> None:
        """Have the writer commit nothing, which takes LMDB's lock all the same, and read."""
        await self.writer.run(lambda _: None)
        with self.lmdb.begin() as transaction:
            transaction.get(b"schema", db=self.database("meta"))

    def figures(self) -> Figures:
        """Return how full it is, and how far readers lag behind."""
        info = self.lmdb.info()
        page_bytes = self.lmdb.stat()["psize"]
        last = info["last_txnid"]
        # A line a slot: process, thread, and the transaction it reads, "-" for none.
        rows = [line.split() for line in self.lmdb.readers().splitlines()[1:]]
        reading = [int(row[2]) for row in rows if len(row) == 3 and row[2].isdecimal()]
        with self.lmdb.begin() as transaction:
            uploads = transaction.stat(self.database("uploads"))["entries"]
        return Figures(
            map_size=info["map_size"],
            map_used=(info["last_pgno"] + 1) * page_bytes,
            oldest_reader=max(0, last - min(reading, default=last)),
            uploads=uploads,
        )

    def close(self) -> None:
        """Finish the queued writes and close."""
        self.writer.close()
        self.lmdb.close()


def _sync_folder(path: Path) -> None:
    # LMDB does not fsync the folder it creates its files in.
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
