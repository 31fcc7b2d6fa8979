"""Delivers what waits: at least once, of each repository in order, to all targets at a time.

A target that is slow or dead holds up nobody but itself, and what one of its repositories has to
tell holds up no other repository.
"""

import asyncio
import logging
import random
import time
from typing import NamedTuple

from cypd.logs import printable
from cypd.webhooks.ports import Attempt, Delivery, Due, Webhook, WebhookStore
from cypd.webhooks.posting import Post, Undeliverable
from cypd.webhooks.seal import Seal, Sealed
from cypd.webhooks.signatures import sign

log = logging.getLogger(__name__)


_LOOK_SECONDS = 0.25
_FAN_OUT = 64
WINDOW = 256
"""Deliveries of a webhook that may be pending; what comes after them waits as events."""
_AT_ONCE, _AT_ONCE_EACH = 32, 4
# A target that failed so often in a row is left alone for a while, each time twice as long.
_TRIPS_AT = 10
_REST_SECONDS, _LONGEST_REST = 5.0, 300.0


class _Breaker:
    """What is known of one target's health."""

    def __init__(self) -> None:
        self._failures = 0
        self._rests_until = 0.0

    def is_open(self) -> bool:
        return time.monotonic() < self._rests_until

    @property
    def at_once(self) -> int:
        """How many attempts it may have at a time: a single one while it is in doubt."""
        return 1 if self._failures >= _TRIPS_AT else _AT_ONCE_EACH

    def note(self, *, succeeded: bool) -> None:
        self._failures = 0 if succeeded else self._failures + 1
        beyond = self._failures - _TRIPS_AT
        if beyond >= 0:
            rest = min(_REST_SECONDS * 2 ** min(beyond, 16), _LONGEST_REST)
            self._rests_until = time.monotonic() + rest


class _Lane(NamedTuple):
    webhook_id: str
    number: int


class Sender:
    """One in all processes may ``run`` at a time."""

    def __init__(self, store: WebhookStore, seal: Seal, post: Post) -> None:
        self._store = store
        self._seal = seal
        self._post = post
        self._breakers: dict[str, _Breaker] = {}
        self._running: dict[_Lane, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Deliver for as long as it is not cancelled; raises what the store raises."""
        try:
            while True:
                self._changed.clear()
                while await self._store.fan_out(limit=_FAN_OUT, window=WINDOW):
                    pass
                self._start()
                try:
                    async with asyncio.timeout(_LOOK_SECONDS):
                        await self._changed.wait()
                except TimeoutError:
                    pass
        finally:
            await self._stop()

    def _start(self) -> None:
        now = time.time()
        due = [it for it in self._store.due() if it.at <= now]
        random.shuffle(due)
        for each in due:
            if len(self._running) >= _AT_ONCE:
                return
            self._start_one(each)

    def _start_one(self, due: Due) -> None:
        lane = _Lane(due.webhook_id, due.number)
        breaker = self._breakers.setdefault(due.webhook_id, _Breaker())
        running = sum(it.webhook_id == due.webhook_id for it in self._running)
        if lane in self._running or breaker.is_open() or running >= breaker.at_once:
            return
        task = asyncio.create_task(self._deliver(lane, breaker))
        self._running[lane] = task
        task.add_done_callback(lambda _: self._end(lane))

    def _end(self, lane: _Lane) -> None:
        task = self._running.pop(lane)
        self._changed.set()
        if not task.cancelled() and (error := task.exception()):
            log.error("webhook %s: an attempt broke off", lane.webhook_id, exc_info=error)

    async def _deliver(self, lane: _Lane, breaker: _Breaker) -> None:
        webhook = self._store.webhook(lane.webhook_id)
        delivery = self._store.delivery_numbered(lane.webhook_id, lane.number)
        if webhook is None or delivery is None:  # gone meanwhile
            return
        attempt = await self.attempt(webhook, delivery)
        breaker.note(succeeded=attempt.succeeded)
        retry_at = None
        retry = delivery.attempts + 1
        if not attempt.succeeded and retry <= webhook.retry_policy.max_retries:
            retry_at = attempt.at + _jittered(webhook.retry_policy.delay(retry))
        elif not attempt.succeeded:
            _complain(webhook, delivery, attempt)
        await self._store.record_attempt(lane.webhook_id, lane.number, attempt, retry_at)

    async def attempt(self, webhook: Webhook, delivery: Delivery) -> Attempt:
        """Send a delivery once, and return what came of it; nothing is noted."""
        at, start = time.time(), time.monotonic()
        try:
            secrets = self._seal.open(webhook.sealed, webhook.id)
            headers = {
                "Content-Type": "application/json",
                **secrets.headers,
                "X-Webhook-Event": delivery.kind,
                "X-Webhook-ID": webhook.id,
                "X-Webhook-Delivery": delivery.id,
                **sign(secrets.secret, delivery.body, int(at)),
            }
            answer = await self._post(webhook.url, headers, delivery.body)
        except Sealed:
            error = "its secret was kept with another key: set the secret and the headers again"
            return Attempt(at, time.monotonic() - start, None, error=error)
        except Undeliverable as reason:
            return Attempt(at, time.monotonic() - start, None, error=str(reason))
        is_taken = 200 <= answer.status < 300
        error = "" if is_taken else f"it answered {answer.status}"
        return Attempt(at, time.monotonic() - start, answer.status, answer.body, error)

    async def _stop(self) -> None:
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _jittered(seconds: float) -> float:
    # A fifth to either side: what failed together does not come back together.
    return seconds * random.uniform(0.8, 1.2)  # noqa: S311


def _complain(webhook: Webhook, delivery: Delivery, attempt: Attempt) -> None:
    log.warning(
        "webhook %s (%s): event %s was given up after %d attempts: %s; it can be delivered anew",
        webhook.id,
        printable(webhook.name),
        delivery.event_id,
        delivery.attempts + 1,
        attempt.error,
    )
