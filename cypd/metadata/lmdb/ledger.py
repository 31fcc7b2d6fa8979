"""What each project holds and takes: read and written within the transactions of others.

The counters change in the very transaction that changes what they count, so they are exact at
every commit. Whether there is room is asked before the first write of an operation.
"""

from itertools import islice, takewhile
from struct import Struct

import lmdb
import msgspec

from cypd.metadata.lmdb.environment import Environment
from cypd.metadata.lmdb.journal import Journal, level
from cypd.metadata.lmdb.keys import scan
from cypd.oci.names import RepositoryName
from cypd.projects.ports import Project, Totals, Usage
from cypd.registry.ports import no_project, over_quota

_CHARGE = Struct(">QQ")  # the content's size, and how many rows of the project hold it
_USAGE = Struct(">QQQQ")
_TOTALS = Struct(">QQ")
NOTHING = Usage(0, 0, 0, 0)
_decode_project = msgspec.msgpack.Decoder(Project).decode


class Ledger:
    """The accounts of all projects. Content is a digest's key, a project its own key."""

    def __init__(self, environment: Environment, journal: Journal) -> None:
        self._journal = journal
        self._meta = environment.database("meta")
        self._projects = environment.database("projects")
        self._names = environment.database("project_names")
        self._charges = environment.database("charges")
        self._usage = environment.database("usage")

    # --- reads ----------------------------------------------------------------------------------

    def project(self, txn: lmdb.Transaction, repository: RepositoryName) -> bytes | None:
        """Return the project that a repository belongs to."""
        found = txn.get(repository.project.encode(), db=self._names)
        return None if found is None else bytes(found)

    def require_project(self, txn: lmdb.Transaction, repository: RepositoryName) -> bytes:
        """Return the project that a repository belongs to; raise NAME_UNKNOWN."""
        project = self.project(txn, repository)
        if project is None:
            raise no_project(repository)
        return project

    def held_size(self, txn: lmdb.Transaction, project: bytes, content: bytes) -> int | None:
        """Return the size of content that the project holds."""
        charge = txn.get(content + project, db=self._charges)
        return None if charge is None else int(_CHARGE.unpack(charge)[0])

    def size(self, txn: lmdb.Transaction, content: bytes) -> int:
        """Return the size of content that some project holds."""
        [charge] = islice((value for _, value in scan(txn, self._charges, content)), 1)
        return int(_CHARGE.unpack(charge)[0])

    def has_room(self, txn: lmdb.Transaction, project: bytes, size: int, own: int = 0) -> bool:
        """Tell whether ``size`` bytes more fit, ``own`` of them reserved already."""
        usage = self.usage(txn, project)
        left = self._bound(txn, project) - usage.used - usage.reserved + own
        return size == 0 or size <= left

    def require_room(self, txn: lmdb.Transaction, project: bytes, size: int, own: int = 0) -> None:
        """Raise DENIED unless ``has_room``."""
        if not self.has_room(txn, project, size, own):
            quota, usage = self._bound(txn, project), self.usage(txn, project)
            left = max(0, quota - usage.used - usage.reserved + own)
            raise over_quota(quota, usage.used, size, left)

    def usage(self, txn: lmdb.Transaction, project: bytes) -> Usage:
        """Return what a project takes."""
        record = txn.get(project, db=self._usage)
        return NOTHING if record is None else Usage(*_USAGE.unpack(record))

    def usages(self, txn: lmdb.Transaction, first: bytes, last: bytes) -> dict[bytes, Usage]:
        """Return what projects take, from one to another in the order of their keys."""
        with txn.cursor(db=self._usage) as cursor:
            rows = cursor.iternext() if cursor.set_range(first) else iter(())
            some = takewhile(lambda row: bytes(row[0]) <= last, rows)
            return {bytes(key): Usage._make(_USAGE.unpack(record)) for key, record in some}

    def totals(self, txn: lmdb.Transaction) -> Totals:
        """Return what all projects take."""
        record = txn.get(b"totals", db=self._meta)
        return Totals(0, 0) if record is None else Totals(*_TOTALS.unpack(record))

    def record(self, txn: lmdb.Transaction, project: bytes) -> Project:
        """Return a project that exists."""
        return _decode_project(txn.get(project, db=self._projects) or b"")

    def _bound(self, txn: lmdb.Transaction, project: bytes) -> int:
        return self.record(txn, project).bound

    # --- writes ---------------------------------------------------------------------------------

    def charge(self, txn: lmdb.Transaction, project: bytes, content: bytes, size: int) -> None:
        """Note that one more row of a project holds some content."""
        charge = txn.get(content + project, db=self._charges)
        if charge is not None:
            size, rows = _CHARGE.unpack(charge)
            txn.put(content + project, _CHARGE.pack(size, rows + 1), db=self._charges)
            return
        others = self._holders(txn, content)
        if len(others) == 1:
            self._add(txn, others[0], physical=-size)
        self._add_used(txn, project, size, physical=0 if others else size)
        self._add_total(txn, size, 0 if others else size)
        txn.put(content + project, _CHARGE.pack(size, 1), db=self._charges)

    def discharge(self, txn: lmdb.Transaction, project: bytes, content: bytes) -> int:
        """Note that one row of a project less holds some content; return the content's size."""
        size: int
        size, rows = _CHARGE.unpack(txn.get(content + project, db=self._charges) or b"")
        if rows > 1:
            txn.put(content + project, _CHARGE.pack(size, rows - 1), db=self._charges)
            return size
        txn.delete(content + project, db=self._charges)
        others = self._holders(txn, content)
        if len(others) == 1:
            self._add(txn, others[0], physical=size)
        self._add(txn, project, used=-size, physical=0 if others else -size)
        self._add_total(txn, -size, 0 if others else -size)
        return size

    def reserve(self, txn: lmdb.Transaction, project: bytes, change: int) -> None:
        """Note that uploads of a project keep so much more, or less."""
        if change:
            self._add(txn, project, reserved=change)

    def count_image(self, txn: lmdb.Transaction, project: bytes, change: int) -> None:
        """Note that one manifest more, or less, carries a tag."""
        self._add(txn, project, image_count=change)

    def close(self, txn: lmdb.Transaction, project: bytes) -> None:
        """Forget a project that holds nothing any more."""
        txn.delete(project, db=self._usage)

    def _holders(self, txn: lmdb.Transaction, content: bytes) -> list[bytes]:
        """Return the projects that hold some content, at most two of them."""
        return [project for project, _ in islice(scan(txn, self._charges, content), 2)]

    def _add(self, txn: lmdb.Transaction, project: bytes, **changes: int) -> None:
        usage = self.usage(txn, project)._asdict()
        for name, change in changes.items():
            usage[name] += change
        txn.put(project, _USAGE.pack(*usage.values()), db=self._usage)

    def _add_used(self, txn: lmdb.Transaction, project: bytes, size: int, physical: int) -> None:
        record, used = self.record(txn, project), self.usage(txn, project).used
        self._add(txn, project, used=size, physical=physical)
        self._journal.note_level(txn, record, used + size, level(used, record.bound))

    def _add_total(self, txn: lmdb.Transaction, used: int, physical: int) -> None:
        totals = self.totals(txn)
        record = _TOTALS.pack(totals.used + used, totals.physical + physical)
        txn.put(b"totals", record, db=self._meta)
