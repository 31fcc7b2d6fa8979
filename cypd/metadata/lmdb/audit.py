"""The audit log on LMDB."""

from collections.abc import Sequence

import lmdb
import msgspec

from cypd.audit.ports import Entry
from cypd.metadata.lmdb.environment import Environment
from cypd.metadata.lmdb.keys import number, uuid_key

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode
_LAST = b"audit"
_STEP = 1000


class LmdbAudit:
    """The contract of ``AuditStore``; see ``keys`` for the layout."""

    def __init__(self, environment: Environment) -> None:
        self._begin = environment.lmdb.begin
        self._run = environment.writer.run
        self._meta = environment.database("meta")
        self._audit = environment.database("audit")
        self._audit_of = environment.database("audit_of")

    async def append_audit(self, entry: Entry) -> None:
        def operation(txn: lmdb.Transaction) -> None:
            last = int.from_bytes(txn.get(_LAST, db=self._meta) or b"", "big") + 1
            txn.put(_LAST, number(last), db=self._meta)
            txn.put(number(last), _encode(entry), db=self._audit, append=True)
            if project := uuid_key(entry.project_id):
                txn.put(project + number(last), b"", db=self._audit_of)

        await self._run(operation)

    def audit_some(
        self, project_id: str, *, before: int | None, limit: int
    ) -> Sequence[tuple[int, Entry]]:
        project = uuid_key(project_id) if project_id else b""
        if project is None:
            return []
        index = self._audit_of if project else self._audit
        found: list[tuple[int, Entry]] = []
        with self._begin() as txn, txn.cursor(db=index) as cursor:
            end = project + (b"\xff" * 8 if before is None else number(before))
            more = cursor.prev() if cursor.set_range(end) else cursor.last()
            while more and len(found) < limit and cursor.key().startswith(project):
                place = bytes(cursor.key())[len(project) :]
                record = txn.get(place, db=self._audit)
                if record is not None:
                    found.append((int.from_bytes(place, "big"), _decode(record)))
                more = cursor.prev()
        return found

    async def trim_audit(self, *, before: float, keep: int) -> None:
        def operation(txn: lmdb.Transaction) -> bool:
            last = int.from_bytes(txn.get(_LAST, db=self._meta) or b"", "big")
            with txn.cursor(db=self._audit) as cursor:
                for _ in range(_STEP):
                    if not cursor.first():
                        return False
                    place, entry = bytes(cursor.key()), _decode(cursor.value())
                    if entry.at >= before and int.from_bytes(place, "big") > last - keep:
                        return False
                    if project := uuid_key(entry.project_id):
                        txn.delete(project + place, db=self._audit_of)
                    cursor.delete()
            return True

        while await self._run(operation):
            pass
