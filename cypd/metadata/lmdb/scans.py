"""Scans on LMDB."""

import asyncio
import heapq
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from uuid import uuid4

import lmdb
from msgspec import structs
from msgspec.structs import replace

from cypd.access import Act
from cypd.events.ports import Event
from cypd.metadata.lmdb import scan_book
from cypd.metadata.lmdb.contents import Contents, decode_manifest
from cypd.metadata.lmdb.environment import Environment
from cypd.metadata.lmdb.journal import Journal
from cypd.metadata.lmdb.keys import digest_key, number, scan, uuid_key
from cypd.metadata.lmdb.ledger import Ledger
from cypd.metadata.lmdb.scan_book import ScanBook, ScanRow
from cypd.oci import images
from cypd.oci.digest import Digest
from cypd.oci.names import RepositoryName
from cypd.refusals import Code, Refusal
from cypd.registry.inventory_ports import Found
from cypd.scanning.ports import Finding
from cypd.scanning.scan_ports import (
    MAX_LINES,
    OPEN,
    STATUSES,
    Outcome,
    Outdated,
    Scan,
    Status,
)

_PUSHES = b"scan_pushes"
_STEP = 100
_REPO = 8


class LmdbScans:
    """The contract of ``ScanStore``; see ``keys`` for the layout."""

    def __init__(
        self,
        environment: Environment,
        contents: Contents,
        ledger: Ledger,
        journal: Journal,
        book: ScanBook,
    ) -> None:
        self._begin = environment.lmdb.begin
        self._run = environment.writer.run
        self._meta = environment.database("meta")
        self._projects = environment.database("projects")
        self._contents = contents
        self._ledger = ledger
        self._journal = journal
        self._book = book

    # --- reads ----------------------------------------------------------------------------------

    def scan(self, scan_id: str) -> Scan | None:
        with self._begin() as txn:
            row = self._book.row_of_id(txn, scan_id)
        return row.scan if row else None

    def is_running(self, scan_id: str) -> bool:
        found = self.scan(scan_id)
        return found is not None and found.status == "running"

    def numbered(self, number: int) -> Scan | None:
        with self._begin() as txn:
            row = self._book.row(txn, number)
        return row.scan if row else None

    def scans(
        self,
        projects: Sequence[str] | None,
        *,
        repository: RepositoryName | None = None,
        status: Status | None = None,
        offset: int,
        limit: int,
    ) -> Found[Scan]:
        with self._begin() as txn:
            scopes = self._scopes(txn, projects, repository)
            shelves = [scan_book.shelf_of(scope, status) for scope in scopes]
            total = sum(self._book.count(txn, shelf) for shelf in shelves)
            numbers = self._merged(txn, shelves, offset, limit)
            rows = [self._book.row(txn, it) for it in numbers]
        return Found([row.scan for row in rows if row], total)

    def _scopes(
        self,
        txn: lmdb.Transaction,
        projects: Sequence[str] | None,
        repository: RepositoryName | None,
    ) -> list[bytes]:
        if repository is not None:
            repo = self._contents.id(txn, repository)
            return [] if repo is None else [scan_book.of_repository(repo)]
        if projects is None:
            return [scan_book.of_all()]
        return [scan_book.of_project(it) for it in projects]

    def _merged(
        self, txn: lmdb.Transaction, shelves: Sequence[bytes], offset: int, limit: int
    ) -> list[int]:
        """Return a part of several shelves as if they were one; a single one knows positions."""
        if len(shelves) == 1:
            return self._book.page(txn, shelves[0], offset, limit)
        each = (self._descending(txn, shelf) for shelf in shelves)
        return list(islice(heapq.merge(*each, reverse=True), offset, offset + limit))

    def _descending(self, txn: lmdb.Transaction, shelf: bytes) -> Iterator[int]:
        at = 0
        while some := self._book.page(txn, shelf, at, _STEP):
            yield from some
            at += _STEP

    def findings(self, scan_id: str) -> Sequence[Sequence[Finding]]:
        with self._begin() as txn:
            row = self._book.row_of_id(txn, scan_id)
            if row is None:
                return []
            digests = [digest_key(Digest(it.digest)) for it in row.scan.images]
            found = [self._book.findings(txn, row.scan.number, key) for key in digests]
        return [[it for record in records for it in scan_book.unpack(record)] for records in found]

    def findings_in(self, number: int, digest: Digest) -> Sequence[Finding]:
        key = digest_key(digest)
        with self._begin() as txn:
            row = self._book.row(txn, number)
            is_whole = row is not None and row.scan.digest == digest
            records = self._book.findings(txn, number, b"" if is_whole else key)
        return [it for record in records for it in scan_book.unpack(record)]

    def scan_log(self, scan_id: str) -> Sequence[str]:
        with self._begin() as txn:
            row = self._book.row_of_id(txn, scan_id)
            return self._book.lines(txn, row.scan.number) if row else []

    def latest(self, repository: RepositoryName, digest: Digest) -> int | None:
        with self._begin() as txn:
            repo = self._contents.id(txn, repository)
            return self._book.latest(txn, repo, digest_key(digest)) if repo else None

    def scan_counts(self) -> Mapping[Status, int]:
        with self._begin() as txn:
            scope = scan_book.of_all()
            return {it: self._book.count(txn, scan_book.shelf_of(scope, it)) for it in STATUSES}

    def under_way(self) -> int:
        """Return how many scans wait or run."""
        counts = self.scan_counts()
        return counts["pending"] + counts["running"]

    def outdated(self, generation: str, *, after: bytes, limit: int) -> Outdated:
        found: list[Scan] = []
        with self._begin() as txn:
            rows = list(islice(scan(txn, self._book.scanned, b"", after), limit))
            for key, place in rows:
                row = self._book.row(txn, int.from_bytes(place, "big"))
                repo, manifest = key[:_REPO], key[_REPO:]
                # An index's children lead to its scan as well: it is looked at once, as itself.
                if row is None or digest_key(Digest(row.scan.digest)) != manifest:
                    continue
                if row.scan.generation != generation and self._contents.has_tag(
                    txn, repo, manifest
                ):
                    found.append(row.scan)
        return Outdated(found, rows[-1][0] if len(rows) == limit else b"")

    # --- the queue ------------------------------------------------------------------------------

    async def request_scan(self, scan: Scan, *, limit: int) -> Scan:
        def operation(txn: lmdb.Transaction) -> Scan:
            repo = self._contents.id(txn, RepositoryName(scan.repository))
            key = digest_key(Digest(scan.digest))
            if repo is None or txn.get(repo + key, db=self._contents.manifests) is None:
                raise Refusal(Code.IMAGE_NOT_FOUND)
            if waiting := self._book.open_scan(txn, repo, key):
                return waiting
            if self._pending(txn) >= limit:
                raise Refusal(Code.TOO_MANY_REQUESTS, headers={"Retry-After": "60"})
            return self._book.add(txn, repo, scan)

        return await self._run(operation)

    async def follow_pushes(self, *, limit: int, step: int, generation: str) -> bool:
        with self._begin() as txn:
            place = txn.get(_PUSHES, db=self._meta)
            last = self._journal.last(txn)
            if place is not None and int.from_bytes(place, "big") == last:
                return False
            if self._pending(txn) >= limit:
                return False

        def operation(txn: lmdb.Transaction) -> bool:
            place = txn.get(_PUSHES, db=self._meta)
            if place is None:
                txn.put(_PUSHES, number(self._journal.last(txn)), db=self._meta)
                return False
            at = int.from_bytes(place, "big")
            events = self._journal.some(txn, at, step)
            room = limit - self._pending(txn)
            for it, event in events:
                if room <= 0:
                    break
                room -= self._follow(txn, event, generation)
                at = it
            txn.put(_PUSHES, number(at), db=self._meta)
            return bool(events)

        return await self._run(operation)

    async def forget_pushes(self) -> None:
        with self._begin() as txn:
            if txn.get(_PUSHES, db=self._meta) is None:
                return
        await self._run(lambda txn: txn.delete(_PUSHES, db=self._meta))

    def _pending(self, txn: lmdb.Transaction) -> int:
        return self._book.count(txn, scan_book.shelf_of(scan_book.of_all(), "pending"))

    def _follow(self, txn: lmdb.Transaction, event: Event, generation: str) -> bool:
        """Put what an event tells of into the queue, if it is an image that needs a scan."""
        if event.kind != "push" or not event.tag:
            return False
        repo = self._contents.id(txn, RepositoryName(event.repository))
        key = digest_key(Digest(event.digest))
        if repo is None or not self._is_image(txn, repo, key):
            return False
        number_ = self._book.latest(txn, repo, key)
        before = self._book.row(txn, number_) if number_ else None
        if before and before.scan.generation == generation:
            return False
        if self._book.open_scan(txn, repo, key):
            return False
        new = Scan(
            id=str(uuid4()),
            number=0,
            project_id=event.project_id,
            repository=event.repository,
            reference=event.tag,
            digest=event.digest,
            trigger="push",
            user_id=event.user_id,
            username=event.username,
            created_at=event.at,
        )
        self._book.add(txn, repo, new)
        return True

    def _is_image(self, txn: lmdb.Transaction, repo: bytes, key: bytes) -> bool:
        record = txn.get(repo + key, db=self._contents.manifests)
        if record is None:
            return False
        content = decode_manifest(record).content
        return content is None or images.read(content).is_image

    async def start_scan(self, *, at: float) -> Scan | None:
        with self._begin() as txn:
            if not self._pending(txn):
                return None

        def operation(txn: lmdb.Transaction) -> Scan | None:
            shelf = scan_book.shelf_of(scan_book.of_all(), "pending")
            first = self._book.page(txn, shelf, 0, 1, reverse=False)
            row = self._book.row(txn, first[0]) if first else None
            if row is None:
                return None
            return self._book.change(txn, row, replace(row.scan, status="running", started_at=at))

        return await self._run(operation)

    async def recover_scans(self, *, attempts: int, at: float) -> None:
        def operation(txn: lmdb.Transaction) -> None:
            shelf = scan_book.shelf_of(scan_book.of_all(), "running")
            for it in self._book.page(txn, shelf, 0, self._book.count(txn, shelf)):
                row = self._book.row(txn, it)
                if row is None:
                    continue
                count = row.scan.interruptions + 1
                again = replace(row.scan, status="pending", started_at=None, interruptions=count)
                if count < attempts:
                    self._book.change(txn, row, again)
                else:
                    error = f"the process that scanned it ended {count} times before it was done"
                    self._end(txn, row, Outcome(at, error))

        with self._begin() as txn:
            if not self._book.count(txn, scan_book.shelf_of(scan_book.of_all(), "running")):
                return
        await self._run(operation)

    async def put_back_scan(self, scan_id: str) -> None:
        def operation(txn: lmdb.Transaction) -> None:
            row = self._book.row_of_id(txn, scan_id)
            if row is not None and row.scan.status == "running":
                self._book.change(txn, row, replace(row.scan, status="pending", started_at=None))

        await self._run(operation)

    async def cancel_scan(self, scan_id: str, *, at: float) -> Scan:
        def operation(txn: lmdb.Transaction) -> Scan:
            row = self._book.row_of_id(txn, scan_id)
            if row is None:
                raise Refusal(Code.SCAN_NOT_FOUND)
            if row.scan.status not in OPEN:
                raise Refusal(Code.NOT_IN_THIS_STATE)
            return self._book.change(
                txn, row, replace(row.scan, status="cancelled", finished_at=at)
            )

        return await self._run(operation)

    async def note_scan(self, scan_id: str, lines: Sequence[str]) -> None:
        def operation(txn: lmdb.Transaction) -> None:
            if row := self._book.row_of_id(txn, scan_id):
                self._book.append(txn, row, lines, MAX_LINES)

        await self._run(operation)

    # --- the end --------------------------------------------------------------------------------

    async def finish_scan(self, scan_id: str, outcome: Outcome, *, keep: int) -> bool:
        packed = await asyncio.to_thread(_packed, outcome)  # thousands of findings take a while

        def operation(txn: lmdb.Transaction) -> bool:
            row = self._book.row_of_id(txn, scan_id)
            if row is None or row.scan.status != "running":
                return False
            ended = ScanRow(row.repo, self._end(txn, row, outcome))
            if not outcome.error:
                self._note_findings(txn, ended, packed)
            self._book.trim(txn, ended, keep)
            return True

        return await self._run(operation)

    def _note_findings(
        self, txn: lmdb.Transaction, row: ScanRow, packed: Sequence[tuple[Digest, bytes]]
    ) -> None:
        """Note what was found, as far as it is still there."""
        there = [
            (digest, findings)
            for digest, findings in packed
            if txn.get(row.repo + digest_key(digest), db=self._contents.manifests) is not None
        ]
        own = Digest(row.scan.digest)
        if own not in {digest for digest, _ in there}:
            there.append((own, b""))
        self._book.note_findings(txn, row, there)

    def _end(self, txn: lmdb.Transaction, row: ScanRow, outcome: Outcome) -> Scan:
        """End a scan, and tell of it."""
        scan = self._book.change(
            txn,
            row,
            replace(
                row.scan,
                status="failed" if outcome.error else "succeeded",
                finished_at=outcome.at,
                summary=outcome.summary,
                images=tuple(it.examined for it in outcome.results),
                scanner=outcome.scanner,
                database_updated_at=outcome.database_updated_at,
                generation=outcome.generation,
                error=outcome.error,
            ),
        )
        self._tell(txn, row.repo, scan)
        return scan

    def _tell(self, txn: lmdb.Transaction, repo: bytes, scan: Scan) -> None:
        project = uuid_key(scan.project_id) or b""
        record = txn.get(repo + digest_key(Digest(scan.digest)), db=self._contents.manifests)
        if record is None or txn.get(project, db=self._projects) is None:
            return
        manifest = decode_manifest(record)
        told: dict[str, object] = {"error": scan.error}
        if not scan.error:
            told = {"summary": structs.asdict(scan.summary), "scanner": scan.scanner}
        self._journal.note(
            txn,
            "scan_fail" if scan.error else "scan",
            self._ledger.record(txn, project),
            Act(scan.finished_at or 0.0, scan.user_id, scan.username),
            details={"id": scan.id, **told},
            repository=scan.repository,
            tag="" if scan.reference == scan.digest else scan.reference,
            digest=scan.digest,
            media_type=manifest.media_type,
            size=manifest.size,
        )


def _packed(outcome: Outcome) -> list[tuple[Digest, bytes]]:
    return [(Digest(it.examined.digest), scan_book.pack(it.findings)) for it in outcome.results]
