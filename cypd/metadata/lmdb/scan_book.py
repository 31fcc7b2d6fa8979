"""The rows of scans: pieces of operations, each of which leaves them consistent."""

import zlib
from collections.abc import Iterator, Sequence

import lmdb
import msgspec
from msgspec.structs import replace

from cypd.metadata.lmdb.environment import Environment
from cypd.metadata.lmdb.keys import digest_key, number, scan, uuid_key
from cypd.metadata.lmdb.shelf import Shelf
from cypd.oci.digest import Digest
from cypd.scanning.ports import Finding
from cypd.scanning.scan_ports import OPEN, STATUSES, Scan, Status

_LAST = b"scans"
_NUMBER = 8
_ANY = b"*"
_MARKS: dict[Status, bytes] = {status: status[0].encode() for status in STATUSES}

_encode = msgspec.msgpack.Encoder(enc_hook=str).encode


class ScanRow(msgspec.Struct, frozen=True, array_like=True):
    """A scan, and the id of its repository."""

    repo: bytes
    scan: Scan


_decode_row = msgspec.msgpack.Decoder(ScanRow).decode
_decode_findings = msgspec.msgpack.Decoder(
    tuple[Finding, ...], dec_hook=lambda kind, text: kind(text)
).decode


def pack(findings: Sequence[Finding]) -> bytes:
    """Return findings as they are kept: their words repeat."""
    return zlib.compress(_encode(list(findings)))


def _shelves(row: ScanRow) -> Iterator[bytes]:
    for scope in (of_all(), of_project(row.scan.project_id), of_repository(row.repo)):
        yield scope + _ANY
        yield scope + _MARKS[row.scan.status]


def of_all() -> bytes:
    """Return where the shelves of all scans begin."""
    return b"sa"


def of_project(project_id: str) -> bytes:
    """Return where the shelves of a project's scans begin."""
    return b"sp" + (uuid_key(project_id) or bytes(16))


def of_repository(repo: bytes) -> bytes:
    """Return where the shelves of a repository's scans begin."""
    return b"sr" + repo


def shelf_of(scope: bytes, status: Status | None) -> bytes:
    """Return the shelf of the scans of a status."""
    return scope + (_ANY if status is None else _MARKS[status])


class ScanBook:
    """Scans by number, and what leads to them. A repository is its id here, a manifest its key."""

    def __init__(self, environment: Environment) -> None:
        self.shelf = Shelf(environment.database("shelves"))
        self._meta = environment.database("meta")
        self._scans = environment.database("scans")
        self._ids = environment.database("scan_ids")
        self._of = environment.database("scans_of")
        self.scanned = environment.database("scanned")
        self._findings = environment.database("scan_findings")
        self._logs = environment.database("scan_logs")

    # --- reads ----------------------------------------------------------------------------------

    def row(self, txn: lmdb.Transaction, number_: int) -> ScanRow | None:
        """Return the scan of a number."""
        record = txn.get(number(number_), db=self._scans)
        return None if record is None else _decode_row(record)

    def row_of_id(self, txn: lmdb.Transaction, scan_id: str) -> ScanRow | None:
        """Return the scan of an id, which may be any text."""
        key = uuid_key(scan_id)
        place = txn.get(key, db=self._ids) if key else None
        return None if place is None else self.row(txn, int.from_bytes(place, "big"))

    def page(
        self, txn: lmdb.Transaction, shelf: bytes, offset: int, limit: int, *, reverse: bool = True
    ) -> list[int]:
        """Return numbers of a shelf, newest first unless told otherwise."""
        names = self.shelf.page(txn, shelf, offset, limit, reverse=reverse)
        return [int(name, 16) for name in names]

    def count(self, txn: lmdb.Transaction, shelf: bytes) -> int:
        """Return how many scans stand on a shelf."""
        return self.shelf.count(txn, shelf)

    def numbers_of(self, txn: lmdb.Transaction, repo: bytes, key: bytes) -> list[int]:
        """Return the scans of a manifest, oldest first."""
        return [int.from_bytes(it, "big") for it, _ in scan(txn, self._of, repo + key)]

    def status(self, txn: lmdb.Transaction, repo: bytes, key: bytes) -> Status | None:
        """Return how the newest scan of a manifest stands, or of an index that lists it."""
        prefix = repo + key
        newest = bytes(txn.get(prefix, db=self.scanned) or b"")
        with txn.cursor(db=self._of) as cursor:
            more = cursor.set_range(prefix + b"\xff" * _NUMBER)
            more = cursor.prev() if more else cursor.last()
            place = bytes(cursor.key()) if more else b""
        if place.startswith(prefix):
            newest = max(newest, place[len(prefix) :])
        row = self.row(txn, int.from_bytes(newest, "big"))
        return row.scan.status if row else None

    def latest(self, txn: lmdb.Transaction, repo: bytes, key: bytes) -> int | None:
        """Return the number of the newest scan that looked at a manifest."""
        place = txn.get(repo + key, db=self.scanned)
        return None if place is None else int.from_bytes(place, "big")

    def open_scan(self, txn: lmdb.Transaction, repo: bytes, key: bytes) -> Scan | None:
        """Return the scan of a manifest that waits."""
        rows = (self.row(txn, it) for it in reversed(self.numbers_of(txn, repo, key)))
        return next((it.scan for it in rows if it and it.scan.status == "pending"), None)

    def findings(self, txn: lmdb.Transaction, number_: int, key: bytes = b"") -> list[bytes]:
        """Return what a scan found, as ``pack`` made it: in each image, or in one."""
        return [record for _, record in scan(txn, self._findings, number(number_) + key)]

    def lines(self, txn: lmdb.Transaction, number_: int) -> list[str]:
        """Return the log of a scan."""
        return [line.decode() for _, line in scan(txn, self._logs, number(number_))]

    # --- writes ---------------------------------------------------------------------------------

    def add(self, txn: lmdb.Transaction, repo: bytes, new: Scan) -> Scan:
        """Store a new scan and return it with its number."""
        last = int.from_bytes(txn.get(_LAST, db=self._meta) or b"", "big") + 1
        txn.put(_LAST, number(last), db=self._meta)
        row = ScanRow(repo, replace(new, number=last))
        txn.put(uuid_key(new.id) or b"", number(last), db=self._ids)
        txn.put(repo + digest_key(Digest(new.digest)) + number(last), b"", db=self._of)
        self._put(txn, row)
        return row.scan

    def change(self, txn: lmdb.Transaction, row: ScanRow, scan: Scan) -> Scan:
        """Put a scan in the place of what it was."""
        for shelf in _shelves(row):
            self.shelf.remove(txn, shelf, _name(row))
        self._put(txn, ScanRow(row.repo, scan))
        return scan

    def _put(self, txn: lmdb.Transaction, row: ScanRow) -> None:
        for shelf in _shelves(row):
            self.shelf.add(txn, shelf, _name(row))
        txn.put(number(row.scan.number), _encode(row), db=self._scans)

    def note_findings(
        self, txn: lmdb.Transaction, row: ScanRow, digests: Sequence[tuple[Digest, bytes]]
    ) -> None:
        """Note what was found in each image of a scan that succeeded, and that it is the newest."""
        place = number(row.scan.number)
        for digest, findings in digests:
            if findings:
                txn.put(place + digest_key(digest), findings, db=self._findings)
            txn.put(row.repo + digest_key(digest), place, db=self.scanned)

    def append(self, txn: lmdb.Transaction, row: ScanRow, lines: Sequence[str], most: int) -> None:
        """Add lines to a log of at most so many."""
        place = number(row.scan.number)
        start = sum(1 for _ in scan(txn, self._logs, place))
        for at, line in enumerate(lines[: most - start], start):
            txn.put(place + at.to_bytes(4, "big"), line.encode(), db=self._logs)

    def trim(self, txn: lmdb.Transaction, row: ScanRow, keep: int) -> None:
        """Forget the oldest scans of the same manifest."""
        key = digest_key(Digest(row.scan.digest))
        rows = [self.row(txn, it) for it in self.numbers_of(txn, row.repo, key)]
        over = [it for it in rows if it and it.scan.status not in OPEN]
        for old in over[: max(0, len(over) - keep)]:
            if not self._is_newest(txn, old):
                self._drop(txn, old)

    def forget(self, txn: lmdb.Transaction, repo: bytes, key: bytes) -> None:
        """Forget all scans of a manifest that goes."""
        for it in self.numbers_of(txn, repo, key):
            if row := self.row(txn, it):
                self._drop(txn, row)
        txn.delete(repo + key, db=self.scanned)

    def _is_newest(self, txn: lmdb.Transaction, row: ScanRow) -> bool:
        """Tell whether it is the newest scan that succeeded for any manifest."""
        return any(self.latest(txn, row.repo, it) == row.scan.number for it in _keys(row))

    def _drop(self, txn: lmdb.Transaction, row: ScanRow) -> None:
        place = number(row.scan.number)
        for database in (self._findings, self._logs):
            for rest, _ in list(scan(txn, database, place)):
                txn.delete(place + rest, db=database)
        for key in _keys(row):
            if self.latest(txn, row.repo, key) == row.scan.number:
                txn.delete(row.repo + key, db=self.scanned)
        for shelf in _shelves(row):
            self.shelf.remove(txn, shelf, _name(row))
        txn.delete(row.repo + digest_key(Digest(row.scan.digest)) + place, db=self._of)
        txn.delete(uuid_key(row.scan.id) or b"", db=self._ids)
        txn.delete(place, db=self._scans)


def unpack(record: bytes) -> Sequence[Finding]:
    """Return the findings that ``pack`` was given."""
    return _decode_findings(zlib.decompress(record))


def _name(row: ScanRow) -> bytes:
    return b"%016x" % row.scan.number


def _keys(row: ScanRow) -> list[bytes]:
    digests = [row.scan.digest, *(it.digest for it in row.scan.images)]
    return [digest_key(Digest(it)) for it in digests]
