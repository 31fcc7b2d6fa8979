"""Webhooks, what was sent to them, and what the rules need of a metadata store."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol

import msgspec

from cypd.events.ports import Kind

TEST: Literal["test"] = "test"
"""The kind of what is sent to try a webhook."""

Status = Literal["pending", "delivered", "failed"]
"""``failed``: the last attempt was in vain, nobody tries again unless told to."""


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How often, and after how long, a delivery is tried again."""

    max_retries: int = 5
    initial_delay_ms: int = 1000
    backoff: float = 2.0
    """By how much each delay is longer than the one before it."""
    max_delay_ms: int = 3_600_000

    def delay(self, retry: int) -> float:
        """Return the seconds before the retry of that number, from 1."""
        # The exponent is bounded: a float has no room for more, and no delay needs it.
        longest = self.initial_delay_ms * self.backoff ** min(retry - 1, 64)
        return min(longest, self.max_delay_ms) / 1000


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who wants to be told what happens in a project."""

    id: str
    """UUIDv4."""
    project_id: str
    name: str
    url: str
    events: tuple[Kind, ...]
    is_active: bool
    header_names: tuple[str, ...]
    sealed: bytes
    """The secret, and the headers with their values, as ``Seal`` keeps them."""
    has_secret: bool
    retry_policy: RetryPolicy
    created_at: float
    """Unix seconds."""
    updated_at: float

    def __repr__(self) -> str:
        return f"<Webhook {self.name} {self.id}>"


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One event, for one webhook."""

    id: str
    """UUIDv4: the same at each attempt, another when it is delivered anew."""
    number: int
    """Its place among all deliveries, in the order of the events."""
    webhook_id: str
    event_id: str
    kind: Kind | Literal["test"]
    repository: str
    body: bytes
    """What is sent, byte for byte the same each time."""
    created_at: float
    status: Status = "pending"
    attempts: int = 0
    next_attempt_at: float | None = None
    """``None`` once it is over."""
    response_status: int | None = None
    response_body: bytes = b""
    duration: float | None = None
    """Seconds of the last attempt."""
    error: str = ""


class Attempt(NamedTuple):
    """What came of sending something once."""

    at: float
    duration: float
    """In seconds."""
    status: int | None
    """``None``: there was no answer."""
    body: bytes = b""
    error: str = ""

    @property
    def succeeded(self) -> bool:
        """Whether the receiver took it."""
        return self.status is not None and 200 <= self.status < 300

    def noted_in(self, delivery: Delivery, retry_at: float | None) -> Delivery:
        """Return the delivery after this attempt; without ``retry_at`` it was the last one."""
        over: Status = "delivered" if self.succeeded else "failed"
        return msgspec.structs.replace(
            delivery,
            status="pending" if retry_at else over,
            attempts=delivery.attempts + 1,
            next_attempt_at=retry_at,
            response_status=self.status,
            response_body=self.body,
            duration=self.duration,
            error=self.error,
        )


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """How a webhook has fared since it was made."""

    kept: int = 0
    """Deliveries that can still be read."""
    pending: int = 0
    delivered: int = 0
    failed: int = 0
    attempts: int = 0
    seconds: float = 0.0
    """All attempts took together."""
    last_success_at: float | None = None
    last_failure_at: float | None = None


class Backlog(NamedTuple):
    """What a webhook is yet to be told."""

    webhook_id: str
    pending: int
    """Deliveries that wait or are tried again."""
    since: float | None
    """When the oldest thing happened that it was not told of, in unix seconds."""


class Due(NamedTuple):
    """The first thing that one repository has to tell one webhook."""

    webhook_id: str
    number: int
    at: float
    """When to try, in unix seconds."""


class WebhookStore(Protocol):
    """Webhooks and their deliveries.

    As for all metadata: reads are plain calls, writes are whole intentions, durable when awaited.
    A webhook ends with its project.
    """

    def webhook(self, webhook_id: str) -> Webhook | None:
        """Return a webhook."""
        ...

    def webhooks(self, project_id: str) -> Sequence[Webhook]:
        """Return the webhooks of a project, oldest first."""
        ...

    def every_webhook(self, *, after: str, limit: int) -> Sequence[Webhook]:
        """Return at most ``limit`` webhooks with ids greater than ``after``, ascending."""
        ...

    async def create_webhook(self, webhook: Webhook, *, limit: int) -> None:
        """Store a new webhook.

        Raises PROJECT_NOT_FOUND, and NOT_IN_THIS_STATE if its project has ``limit`` already.
        """
        ...

    async def update_webhook(
        self, webhook_id: str, change: Callable[[Webhook], Webhook]
    ) -> Webhook:
        """Put ``change`` of a webhook in its place and return it; raise WEBHOOK_NOT_FOUND."""
        ...

    async def delete_webhook(self, webhook_id: str) -> None:
        """Remove a webhook with all its deliveries; raise WEBHOOK_NOT_FOUND."""
        ...

    def delivery(self, webhook_id: str, delivery_id: str) -> Delivery | None:
        """Return a delivery."""
        ...

    def delivery_numbered(self, webhook_id: str, number: int) -> Delivery | None:
        """Return a delivery by its number."""
        ...

    def deliveries(self, webhook_id: str, *, offset: int, limit: int) -> Sequence[Delivery]:
        """Return deliveries, newest first."""
        ...

    def statistics(self, webhook_id: str) -> Statistics:
        """Return how a webhook has fared."""
        ...

    def backlogs(self, *, after: str, limit: int) -> Sequence[Backlog]:
        """Return at most ``limit`` backlogs, of webhooks with ids greater than ``after``."""
        ...

    def due(self) -> Sequence[Due]:
        """Return what may be sent, once for each pair of webhook and repository that waits.

        What stands behind it has to wait: each repository tells its events in their order.
        """
        ...

    async def fan_out(self, *, limit: int, window: int) -> bool:
        """Make deliveries of what happened since, each event once and for all.

        Of each webhook at most ``limit`` events at a time, and none while ``window`` deliveries or
        more are pending: to a target that is dead nothing is written, however much happens.
        Returns whether there was anything to do.
        """
        ...

    async def trim_events(self, *, keep: int, before: float, window: int) -> None:
        """Forget events older than ``before`` (unix seconds), and all but the last ``keep``.

        Those that a webhook is yet to be told of stay, unless it has ``window`` pending ones.
        """
        ...

    async def record_attempt(
        self, webhook_id: str, number: int, attempt: Attempt, retry_at: float | None
    ) -> None:
        """Note what came of an attempt; without ``retry_at`` it was the last one.

        One that is gone meanwhile is passed over.
        """
        ...

    async def keep_test(self, delivery: Delivery, attempt: Attempt) -> Delivery:
        """Store, with a number of its own, what was sent once to try a webhook; and return it.

        Raises WEBHOOK_NOT_FOUND.
        """
        ...

    async def deliver_anew(self, webhook_id: str, delivery_id: str, *, at: float) -> Delivery:
        """Make another delivery of the same event; raise DELIVERY_NOT_FOUND."""
        ...

    async def trim_deliveries(self, *, keep: int, before: float) -> None:
        """Forget deliveries that are over: older than ``before`` (unix seconds), or the oldest.

        Of those of a webhook ``keep`` stay.
        """
        ...
