"""Webhooks and their deliveries on LMDB."""

import struct
import uuid
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from itertools import islice

import lmdb
import msgspec
from msgspec.structs import replace

from cypd.events.ports import Event
from cypd.metadata.lmdb.environment import Environment
from cypd.metadata.lmdb.journal import Journal
from cypd.metadata.lmdb.keys import number, scan, uuid_key
from cypd.refusals import Code, Refusal
from cypd.webhooks.ports import Attempt, Backlog, Delivery, Due, Statistics, Webhook

_encode = msgspec.msgpack.Encoder().encode
_decode_webhook = msgspec.msgpack.Decoder(Webhook).decode
_decode_delivery = msgspec.msgpack.Decoder(Delivery).decode
_decode_statistics = msgspec.msgpack.Decoder(Statistics).decode
_AT = struct.Struct(">d")
_LAST = b"deliveries"
_ID, _LANE, _NUMBER = 16, 8, 8
_STEP = 500


class LmdbWebhooks:
    """The contract of ``WebhookStore``; see ``keys`` for the layout."""

    def __init__(self, environment: Environment, journal: Journal) -> None:
        self._begin = environment.lmdb.begin
        self._run = environment.writer.run
        self._journal = journal
        self._caught_up_at = -1
        """The last event when no webhook had anything left to be told."""
        database = environment.database
        self._meta = database("meta")
        self._projects = database("projects")
        self._webhooks = database("webhooks")
        self._webhooks_of = database("webhooks_of")
        self._deliveries = database("deliveries")
        self._delivery_ids = database("delivery_ids")
        self._due = database("due")
        self._cursors = database("hook_cursors")
        self._statistics = database("hook_statistics")

    # --- webhooks -------------------------------------------------------------------------------

    def webhook(self, webhook_id: str) -> Webhook | None:
        key = uuid_key(webhook_id)
        with self._begin() as txn:
            return self._webhook(txn, key) if key else None

    def webhooks(self, project_id: str) -> Sequence[Webhook]:
        key = uuid_key(project_id)
        with self._begin() as txn:
            found = self._of(txn, key) if key else []
        return sorted(found, key=lambda it: (it.created_at, it.id))

    def every_webhook(self, *, after: str, limit: int) -> Sequence[Webhook]:
        with self._begin() as txn:
            found = islice(scan(txn, self._webhooks, b"", uuid_key(after) or b""), limit)
            return [_decode_webhook(record) for _, record in found]

    async def create_webhook(self, webhook: Webhook, *, limit: int) -> None:
        def operation(txn: lmdb.Transaction) -> None:
            project, key = _key(webhook.project_id), _key(webhook.id)
            if txn.get(project, db=self._projects) is None:
                raise Refusal(Code.PROJECT_NOT_FOUND)
            if len(self._of(txn, project)) >= limit:
                raise Refusal(Code.NOT_IN_THIS_STATE)
            txn.put(key, _encode(webhook), db=self._webhooks)
            txn.put(project + key, b"", db=self._webhooks_of)
            self._begin_now(txn, key)

        await self._run(operation)

    async def update_webhook(
        self, webhook_id: str, change: Callable[[Webhook], Webhook]
    ) -> Webhook:
        def operation(txn: lmdb.Transaction) -> Webhook:
            key, before = self._require(txn, webhook_id)
            after = change(before)
            txn.put(key, _encode(after), db=self._webhooks)
            if after.is_active and not before.is_active:
                self._begin_now(txn, key)
            return after

        return await self._run(operation)

    async def delete_webhook(self, webhook_id: str) -> None:
        def operation(txn: lmdb.Transaction) -> None:
            key, webhook = self._require(txn, webhook_id)
            self._remove(txn, key, _key(webhook.project_id))

        await self._run(operation)

    def remove_all(self, txn: lmdb.Transaction, project: bytes) -> None:
        """Remove the webhooks of a project that ends."""
        for key, _ in list(scan(txn, self._webhooks_of, project)):
            self._remove(txn, key, project)

    def _webhook(self, txn: lmdb.Transaction, key: bytes) -> Webhook | None:
        record = txn.get(key, db=self._webhooks)
        return None if record is None else _decode_webhook(record)

    def _require(self, txn: lmdb.Transaction, webhook_id: str) -> tuple[bytes, Webhook]:
        key = uuid_key(webhook_id)
        webhook = self._webhook(txn, key) if key else None
        if key is None or webhook is None:
            raise Refusal(Code.WEBHOOK_NOT_FOUND)
        return key, webhook

    def _of(self, txn: lmdb.Transaction, project: bytes) -> list[Webhook]:
        found = (self._webhook(txn, key) for key, _ in scan(txn, self._webhooks_of, project))
        return [webhook for webhook in found if webhook]

    def _begin_now(self, txn: lmdb.Transaction, key: bytes) -> None:
        """Let a webhook be told of what is yet to happen, and of nothing before."""
        txn.put(key, number(self._journal.last(txn)), db=self._cursors)

    def _remove(self, txn: lmdb.Transaction, key: bytes, project: bytes) -> None:
        for database in (self._deliveries, self._delivery_ids, self._due):
            for rest, _ in list(scan(txn, database, key)):
                txn.delete(key + rest, db=database)
        txn.delete(key, db=self._statistics)
        txn.delete(key, db=self._cursors)
        txn.delete(project + key, db=self._webhooks_of)
        txn.delete(key, db=self._webhooks)

    # --- deliveries -----------------------------------------------------------------------------

    def delivery(self, webhook_id: str, delivery_id: str) -> Delivery | None:
        key, identity = uuid_key(webhook_id), uuid_key(delivery_id)
        if key is None or identity is None:
            return None
        with self._begin() as txn:
            return self._delivery(txn, key, txn.get(key + identity, db=self._delivery_ids))

    def delivery_numbered(self, webhook_id: str, number_: int) -> Delivery | None:
        with self._begin() as txn:
            return self._delivery(txn, _key(webhook_id), number(number_))

    def deliveries(self, webhook_id: str, *, offset: int, limit: int) -> Sequence[Delivery]:
        key = _key(webhook_id)
        with self._begin() as txn, txn.cursor(db=self._deliveries) as cursor:
            found = cursor.set_range(key + b"\xff" * _NUMBER) and cursor.prev()
            found = found or cursor.last()
            page: list[Delivery] = []
            while found and cursor.key().startswith(key) and len(page) < limit:
                if offset:
                    offset -= 1
                else:
                    page.append(_decode_delivery(cursor.value()))
                found = cursor.prev()
        return page

    def statistics(self, webhook_id: str) -> Statistics:
        with self._begin() as txn:
            return self._statistics_of(txn, _key(webhook_id))

    def backlogs(self, *, after: str, limit: int) -> Sequence[Backlog]:
        with self._begin() as txn:
            found = list(islice(scan(txn, self._webhooks, b"", uuid_key(after) or b""), limit))
            return [self._backlog(txn, key, _decode_webhook(record)) for key, record in found]

    def _backlog(self, txn: lmdb.Transaction, key: bytes, webhook: Webhook) -> Backlog:
        pending = self._statistics_of(txn, key).pending
        first = min((it[-_NUMBER:] for it, _ in self._heads(txn, key)), default=None)
        delivery = self._delivery(txn, key, first)
        if delivery is not None:
            return Backlog(webhook.id, pending, delivery.created_at)
        project, told = _key(webhook.project_id), self._cursor(txn, key)
        untold = self._journal.some_of(txn, project, told, 1) if webhook.is_active else []
        return Backlog(webhook.id, pending, untold[0].event.at if untold else None)

    def due(self) -> Sequence[Due]:
        with self._begin() as txn:
            return [
                Due(str(uuid.UUID(bytes=key[:_ID])), int.from_bytes(key[-_NUMBER:], "big"), at)
                for key, at in self._heads(txn)
            ]

    def _heads(self, txn: lmdb.Transaction, prefix: bytes = b"") -> Iterator[tuple[bytes, float]]:
        """Yield (key in ``due``, when to try) of the first that each lane waits with."""
        with txn.cursor(db=self._due) as cursor:
            more = cursor.set_range(prefix)
            while more and (key := bytes(cursor.key())).startswith(prefix):
                yield key, _AT.unpack(cursor.value())[0]
                more = cursor.set_range(key[: _ID + _LANE] + b"\xff" * _NUMBER)

    async def fan_out(self, *, limit: int, window: int) -> bool:
        with self._begin() as txn:
            last = self._journal.last(txn)
            if last == self._caught_up_at:
                return False
            every = [key for key, _ in scan(txn, self._webhooks, b"")]
            lagging = [key for key in every if self._is_lagging(txn, key)]
            keys = [key for key in lagging if self._has_room(txn, key, window)]
        if not lagging:
            self._caught_up_at = last
        if not keys:
            return False

        def operation(txn: lmdb.Transaction) -> None:
            for key in keys:
                if self._is_lagging(txn, key):
                    self._tell(txn, key, limit)

        await self._run(operation)
        return True

    async def trim_events(self, *, keep: int, before: float, window: int) -> None:
        def operation(txn: lmdb.Transaction) -> bool:
            told = self._journal.last(txn)
            for key, _ in scan(txn, self._webhooks, b""):
                if self._is_lagging(txn, key) and self._has_room(txn, key, window):
                    told = min(told, self._cursor(txn, key))
            return self._journal.trim(txn, keep=keep, before=before, told=told)

        while await self._run(operation):
            pass

    async def record_attempt(
        self, webhook_id: str, number_: int, attempt: Attempt, retry_at: float | None
    ) -> None:
        def operation(txn: lmdb.Transaction) -> None:
            key = _key(webhook_id)
            before = self._delivery(txn, key, number(number_))
            if before is None or before.status != "pending":
                return
            after = attempt.noted_in(before, retry_at)
            self._put(txn, key, after)
            self._count(txn, key, before, after, attempt)

        await self._run(operation)

    async def keep_test(self, delivery: Delivery, attempt: Attempt) -> Delivery:
        def operation(txn: lmdb.Transaction) -> Delivery:
            key, _ = self._require(txn, delivery.webhook_id)
            numbered = replace(delivery, number=self._next_number(txn))
            kept = attempt.noted_in(numbered, None)
            self._put(txn, key, kept)
            self._count(txn, key, None, kept, attempt)
            return kept

        return await self._run(operation)

    async def deliver_anew(self, webhook_id: str, delivery_id: str, *, at: float) -> Delivery:
        def operation(txn: lmdb.Transaction) -> Delivery:
            key, _ = self._require(txn, webhook_id)
            found = txn.get(key + (uuid_key(delivery_id) or b""), db=self._delivery_ids)
            before = self._delivery(txn, key, found)
            if before is None:
                raise Refusal(Code.DELIVERY_NOT_FOUND)
            anew = Delivery(
                id=str(uuid.uuid4()),
                number=self._next_number(txn),
                webhook_id=before.webhook_id,
                event_id=before.event_id,
                kind=before.kind,
                repository=before.repository,
                body=before.body,
                created_at=at,
                next_attempt_at=at,
            )
            self._put(txn, key, anew)
            self._count(txn, key, None, anew)
            return anew

        return await self._run(operation)

    async def trim_deliveries(self, *, keep: int, before: float) -> None:
        with self._begin() as txn:
            keys = [key for key, _ in scan(txn, self._webhooks, b"")]
        for key in keys:
            after = b""
            while places := self._places(key, after):
                after = places[-1]

                def operation(
                    txn: lmdb.Transaction, key: bytes = key, places: Sequence[bytes] = places
                ) -> None:
                    self._trim(txn, key, places, keep, before)

                await self._run(operation)

    def _places(self, key: bytes, after: bytes) -> list[bytes]:
        with self._begin() as txn:
            return [place for place, _ in islice(scan(txn, self._deliveries, key, after), _STEP)]

    # --- pieces of operations -------------------------------------------------------------------

    def _delivery(
        self, txn: lmdb.Transaction, key: bytes, number_: bytes | memoryview | None
    ) -> Delivery | None:
        record = txn.get(key + bytes(number_), db=self._deliveries) if number_ else None
        return None if record is None else _decode_delivery(record)

    def _next_number(self, txn: lmdb.Transaction) -> int:
        last = int.from_bytes(txn.get(_LAST, db=self._meta) or b"", "big") + 1
        txn.put(_LAST, number(last), db=self._meta)
        return last

    def _cursor(self, txn: lmdb.Transaction, key: bytes) -> int:
        return int.from_bytes(txn.get(key, db=self._cursors) or b"", "big")

    def _is_lagging(self, txn: lmdb.Transaction, key: bytes) -> bool:
        """Tell whether there is something that a webhook was not told of yet."""
        webhook = self._webhook(txn, key)
        if webhook is None or not webhook.is_active:
            return False
        project = _key(webhook.project_id)
        return self._journal.has_some_of(txn, project, self._cursor(txn, key))

    def _has_room(self, txn: lmdb.Transaction, key: bytes, window: int) -> bool:
        return self._statistics_of(txn, key).pending < window

    def _tell(self, txn: lmdb.Transaction, key: bytes, limit: int) -> None:
        webhook = self._webhook(txn, key)
        assert webhook is not None  # noqa: S101 (it is behind)
        after = self._cursor(txn, key)
        events = self._journal.some_of(txn, _key(webhook.project_id), after, limit)
        for each in events:
            if each.event.kind in webhook.events:
                self._deliver(txn, key, webhook, each.event)
        txn.put(key, number(events[-1].number), db=self._cursors)

    def _deliver(self, txn: lmdb.Transaction, key: bytes, webhook: Webhook, event: Event) -> None:
        delivery = Delivery(
            id=str(uuid.uuid4()),
            number=self._next_number(txn),
            webhook_id=webhook.id,
            event_id=event.id,
            kind=event.kind,
            repository=event.repository,
            body=msgspec.json.encode(event.document()),
            created_at=event.at,
            next_attempt_at=event.at,
        )
        self._put(txn, key, delivery)
        self._count(txn, key, None, delivery)

    def _put(self, txn: lmdb.Transaction, key: bytes, delivery: Delivery) -> None:
        place = number(delivery.number)
        txn.put(key + place, _encode(delivery), db=self._deliveries)
        txn.put(key + _key(delivery.id), place, db=self._delivery_ids)
        due = key + _lane(delivery.repository) + place
        if delivery.next_attempt_at is None:
            txn.delete(due, db=self._due)
        else:
            txn.put(due, _AT.pack(delivery.next_attempt_at), db=self._due)

    def _forget(self, txn: lmdb.Transaction, key: bytes, delivery: Delivery) -> None:
        txn.delete(key + number(delivery.number), db=self._deliveries)
        txn.delete(key + _key(delivery.id), db=self._delivery_ids)

    def _trim(
        self, txn: lmdb.Transaction, key: bytes, places: Sequence[bytes], keep: int, before: float
    ) -> None:
        statistics = self._statistics_of(txn, key)
        kept = statistics.kept
        for place in places:
            delivery = self._delivery(txn, key, place)
            if delivery is None or delivery.status == "pending":
                continue
            if kept > keep or delivery.created_at < before:
                self._forget(txn, key, delivery)
                kept -= 1
        if kept != statistics.kept:
            self._put_statistics(txn, key, replace(statistics, kept=kept))

    def _statistics_of(self, txn: lmdb.Transaction, key: bytes) -> Statistics:
        record = txn.get(key, db=self._statistics)
        return Statistics() if record is None else _decode_statistics(record)

    def _put_statistics(self, txn: lmdb.Transaction, key: bytes, statistics: Statistics) -> None:
        txn.put(key, _encode(statistics), db=self._statistics)

    def _count(
        self,
        txn: lmdb.Transaction,
        key: bytes,
        before: Delivery | None,
        after: Delivery,
        attempt: Attempt | None = None,
    ) -> None:
        counted = self._statistics_of(txn, key)
        numbers = {name: getattr(counted, name) for name in ("pending", "delivered", "failed")}
        if before is not None:
            numbers[before.status] -= 1
        numbers[after.status] += 1
        counted = replace(counted, kept=counted.kept + (before is None), **numbers)
        if attempt is not None:
            moment = "last_success_at" if attempt.succeeded else "last_failure_at"
            counted = replace(
                counted,
                attempts=counted.attempts + 1,
                seconds=counted.seconds + attempt.duration,
                **{moment: attempt.at},
            )
        self._put_statistics(txn, key, counted)


def _key(text: str) -> bytes:
    """Return an id as a key; what is none, as one that nothing has."""
    return uuid_key(text) or bytes(_ID)


def _lane(repository: str) -> bytes:
    # Two repositories of one hash wait for each other; no harm is done.
    return blake2b(repository.encode(), digest_size=_LANE).digest()
