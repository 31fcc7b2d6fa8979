"""Events on LMDB: written within the transactions of others, read by those who pass them on."""

import time
import uuid
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import lmdb
import msgspec

from cypd.access import Act
from cypd.events.ports import LEVELS, Event, Kind, Numbered
from cypd.metadata.lmdb.environment import Environment
from cypd.metadata.lmdb.keys import number, scan, uuid_key
from cypd.projects.ports import Project

_LAST = b"events"
_TRIM_STEP = 1000
_encode = msgspec.msgpack.Encoder(enc_hook=str).encode
_decode = msgspec.msgpack.Decoder(Event).decode


class Journal:
    """Notes what happened, as a part of the operation that does it; this is an ``EventStore``."""

    def __init__(self, environment: Environment) -> None:
        self._begin = environment.lmdb.begin
        self._meta = environment.database("meta")
        self._events = environment.database("events")
        self._events_of = environment.database("events_of")

    def note(
        self,
        txn: lmdb.Transaction,
        kind: Kind,
        project: Project,
        act: Act,
        *,
        details: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> None:
        """Note an event; ``fields`` are those of ``Event``."""
        event = Event(
            id=str(uuid.uuid4()),
            kind=kind,
            at=act.at,
            project_id=project.id,
            project=project.name,
            user_id=act.user_id,
            username=act.name,
            details=details or {},
            **fields,
        )
        last = self._number(txn, _LAST) + 1
        txn.put(_LAST, number(last), db=self._meta)
        txn.put(number(last), _encode(event), db=self._events, append=True)
        txn.put(_key(project.id) + number(last), b"", db=self._events_of)

    def note_level(self, txn: lmdb.Transaction, project: Project, used: int, before: int) -> None:
        """Note the level of its quota that a project has reached, if it is above ``before``."""
        reached = level(used, project.bound)
        if reached > before:
            # By nobody: many reach it together, and the last one is not to blame.
            details = {"percent": reached, "used": used, "quota": project.bound}
            self.note(txn, "quota", project, Act(at=time.time()), details=details)

    def last_number(self) -> int:
        with self._begin() as txn:
            return self._number(txn, _LAST)

    def events(self, *, after: int, limit: int) -> Sequence[Numbered]:
        with self._begin() as txn:
            return self.some(txn, after, limit)

    def some(self, txn: lmdb.Transaction, after: int, limit: int) -> list[Numbered]:
        """Return at most ``limit`` events that come after number ``after``."""
        found = islice(scan(txn, self._events, b"", number(after)), limit)
        return [Numbered(int.from_bytes(key, "big"), _decode(record)) for key, record in found]

    def some_of(
        self, txn: lmdb.Transaction, project: bytes, after: int, limit: int
    ) -> list[Numbered]:
        """Return at most ``limit`` events of a project that come after number ``after``."""
        places = [it for it, _ in islice(scan(txn, self._events_of, project, number(after)), limit)]
        records = [(it, txn.get(it, db=self._events)) for it in places]
        return [Numbered(int.from_bytes(it, "big"), _decode(r)) for it, r in records if r]

    def has_some_of(self, txn: lmdb.Transaction, project: bytes, after: int) -> bool:
        """Tell whether there are events of a project that come after number ``after``."""
        return any(True for _ in scan(txn, self._events_of, project, number(after)))

    def last(self, txn: lmdb.Transaction) -> int:
        """Return the number of the last event ever."""
        return self._number(txn, _LAST)

    def trim(self, txn: lmdb.Transaction, *, keep: int, before: float, told: int) -> bool:
        """Forget some of the oldest events, of those up to number ``told``; tell if there is more.

        Those before that time (unix seconds) go, and all but the last ``keep``.
        """
        most = self.last(txn) - keep
        for it, event in self.some(txn, 0, _TRIM_STEP):
            if it > told or (it > most and event.at >= before):
                return False
            txn.delete(number(it), db=self._events)
            txn.delete(_key(event.project_id) + number(it), db=self._events_of)
        return self.some(txn, 0, 1) != []

    def _number(self, txn: lmdb.Transaction, key: bytes) -> int:
        return int.from_bytes(txn.get(key, db=self._meta) or b"", "big")


def level(used: int, bound: int) -> int:
    """Return the highest of ``LEVELS`` that is reached; 0 below all of them."""
    return max((it for it in LEVELS if used * 100 >= bound * it), default=0)


def _key(project_id: str) -> bytes:
    return uuid_key(project_id) or bytes(16)
