"""Webhooks and what was delivered to them: ``/api/v1/webhooks``."""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, field

from cypd.access import Scope
from cypd.api.paging import Listing, Page
from cypd.api.people import moment
from cypd.api.routes import PREFIX, Answer, Call, Input, Route, Time, in_projects
from cypd.events.ports import Kind
from cypd.refusals import Code
from cypd.webhooks import ports
from cypd.webhooks.webhooks import MASK, Settings, Webhooks

_Id = Annotated[str, Meta(min_length=1, max_length=64)]
_Name = Annotated[str, Meta(min_length=1, max_length=100)]
_Url = Annotated[str, Meta(min_length=1, max_length=2048)]
_Secret = Annotated[str, Meta(max_length=1024)]
_Events = Annotated[list[Kind], Meta(min_length=1, max_length=20)]
_Headers = Annotated[dict[str, str], Meta(max_length=20)]


class RetryPolicy(Input, frozen=True):
    """How often, and after how long, a delivery is tried again."""

    max_retries: Annotated[int, Meta(ge=0, le=20)] = 5
    initial_delay_ms: Annotated[int, Meta(ge=100, le=3_600_000)] = 1000
    backoff: Annotated[float, Meta(ge=1, le=10)] = 2.0
    """By how much each delay is longer than the one before it."""
    max_delay_ms: Annotated[int, Meta(ge=100, le=86_400_000)] = 3_600_000


class NewWebhook(Input, frozen=True):
    """A webhook to be made."""

    project_id: _Id
    name: _Name
    url: _Url
    events: _Events
    secret: _Secret = ""
    """What deliveries are signed with; never given back. Empty: they are not signed."""
    headers: _Headers = field(default_factory=dict)
    """Sent along; their values are never given back."""
    is_active: bool = True
    retry_policy: RetryPolicy = RetryPolicy()


class WebhookChanges(Input, frozen=True):
    """What is to change; what is left away stays."""

    name: _Name | None = None
    url: _Url | None = None
    events: _Events | None = None
    secret: _Secret | None = None
    headers: _Headers | None = None
    """A value of ``***`` stays what it is."""
    is_active: bool | None = None
    retry_policy: RetryPolicy | None = None


class WebhooksQuery(Page, frozen=True):
    """Which webhooks."""

    project_id: _Id | None = None


class DeliveriesQuery(Input, frozen=True):
    """Which page of deliveries, the newest on the first."""

    page: Annotated[int, Meta(ge=1, le=10_000)] = 1
    page_size: Annotated[int, Meta(ge=1, le=100)] = 20


class Retries(Answer, frozen=True):
    """How often, and after how long, a delivery is tried again."""

    max_retries: int
    initial_delay_ms: int
    backoff: float
    max_delay_ms: int


class Webhook(Answer, frozen=True):
    """A webhook."""

    id: str
    project_id: str
    name: str
    url: str
    events: list[str]
    headers: dict[str, str]
    """Every value is ``***``."""
    has_secret: bool
    is_active: bool
    retry_policy: Retries
    created_at: Time
    updated_at: Time


class WebhookList(Listing, frozen=True):
    """A page of webhooks."""

    webhooks: list[Webhook]


class Delivery(Answer, frozen=True):
    """What was sent, or is to be sent."""

    id: str
    """The header ``X-Webhook-Delivery``: the same at each attempt."""
    event_id: str
    event: str
    status: Literal["pending", "delivered", "failed"]
    attempts: int
    response_status: int | None
    """Of the last attempt; null, if there was no answer."""
    duration_ms: int | None
    error: str
    created_at: Time
    next_attempt_at: Time | None
    request_body: str
    response_body: str
    """At most 64 KiB."""


class DeliveryList(Listing, frozen=True):
    """A page of deliveries."""

    deliveries: list[Delivery]


class Statistics(Answer, frozen=True):
    """How a webhook has fared since it was made."""

    pending: int
    delivered: int
    failed: int
    attempts: int
    average_ms: int | None
    """Of an attempt."""
    last_success_at: Time | None
    last_failure_at: Time | None


_HIDDEN = (Code.WEBHOOK_NOT_FOUND, Code.PERMISSION_MISSING)
_PROJECT = (Code.PROJECT_NOT_FOUND, Code.PERMISSION_MISSING)


class WebhookHandlers:
    """The handlers."""

    def __init__(self, webhooks: Webhooks) -> None:
        self._webhooks = webhooks

    def routes(self) -> list[Route]:
        """Return what the API serves of it."""
        return [*self._webhook_routes(), *self._delivery_routes()]

    def _webhook_routes(self) -> list[Route]:
        all_, one = f"{PREFIX}/webhooks", f"{PREFIX}/webhooks/{{id}}"
        return [
            Route(
                "GET", all_, self.list, in_projects(Scope.WRITE),
                query=WebhooksQuery, answer=WebhookList, refusals=_PROJECT,
                tag="webhooks", summary="List the webhooks that one looks after",
            ),
            Route(
                "POST", all_, self.create, in_projects(Scope.WRITE),
                body=NewWebhook, answer=Webhook, status=201,
                refusals=(*_PROJECT, Code.NOT_IN_THIS_STATE),
                tag="webhooks", summary="Make a webhook",
            ),
            Route(
                "GET", one, self.get, in_projects(Scope.WRITE),
                answer=Webhook, refusals=_HIDDEN, tag="webhooks", summary="Show a webhook",
            ),
            Route(
                "PUT", one, self.update, in_projects(Scope.WRITE),
                body=WebhookChanges, answer=Webhook, refusals=_HIDDEN,
                tag="webhooks", summary="Change a webhook",
            ),
            Route(
                "DELETE", one, self.delete, in_projects(Scope.WRITE), refusals=_HIDDEN,
                tag="webhooks", summary="Remove a webhook with its deliveries",
            ),
            Route(
                "POST", f"{one}/test", self.test, in_projects(Scope.WRITE),
                answer=Delivery, refusals=(*_HIDDEN, Code.WEBHOOK_FAILED, Code.TOO_MANY_REQUESTS),
                tag="webhooks", summary="Send a test event, once and now",
            ),
            Route(
                "GET", f"{one}/statistics", self.statistics, in_projects(Scope.WRITE),
                answer=Statistics, refusals=_HIDDEN,
                tag="webhooks", summary="Tell how a webhook has fared",
            ),
        ]  # fmt: skip

    def _delivery_routes(self) -> list[Route]:
        all_ = f"{PREFIX}/webhooks/{{id}}/deliveries"
        one = f"{all_}/{{deliveryId}}"
        refusals = (*_HIDDEN, Code.DELIVERY_NOT_FOUND)
        return [
            Route(
                "GET", all_, self.deliveries, in_projects(Scope.WRITE),
                query=DeliveriesQuery, answer=DeliveryList, refusals=_HIDDEN,
                tag="webhooks", summary="List what was sent, and is to be sent",
            ),
            Route(
                "GET", one, self.delivery, in_projects(Scope.WRITE),
                answer=Delivery, refusals=refusals, tag="webhooks", summary="Show a delivery",
            ),
            Route(
                "POST", f"{one}/redeliver", self.redeliver, in_projects(Scope.WRITE),
                answer=Delivery, status=202, refusals=refusals,
                tag="webhooks", summary="Deliver an event anew",
            ),
        ]  # fmt: skip

    # --- webhooks -------------------------------------------------------------------------------

    async def list(self, call: Call, query: WebhooksQuery) -> WebhookList:
        """List webhooks."""
        found = await self._webhooks.list(call.principal, query.project_id)
        keyword = query.keyword.casefold()
        found = [it for it in found if keyword in it.name.casefold()]
        page = found[query.offset : query.offset + query.page_size]
        return WebhookList(webhooks=[_webhook(it) for it in page], **query.place(len(found)))

    async def create(self, call: Call, body: NewWebhook) -> Webhook:
        """Make a webhook."""
        settings = Settings(
            body.name,
            body.url,
            body.secret,
            body.events,
            body.headers,
            body.is_active,
            _policy(body.retry_policy),
        )
        return _webhook(await self._webhooks.create(call.principal, body.project_id, settings))

    async def get(self, call: Call) -> Webhook:
        """Show a webhook."""
        return _webhook(self._webhooks.get(call.principal, call.path["id"]))

    async def update(self, call: Call, body: WebhookChanges) -> Webhook:
        """Change a webhook."""
        settings = Settings(
            body.name,
            body.url,
            body.secret,
            body.events,
            body.headers,
            body.is_active,
            _policy(body.retry_policy) if body.retry_policy else None,
        )
        webhook = self._own(call)
        return _webhook(await self._webhooks.update(call.principal, webhook.id, settings))

    async def delete(self, call: Call) -> None:
        """Remove a webhook."""
        await self._webhooks.delete(call.principal, self._own(call).id)

    async def test(self, call: Call) -> Delivery:
        """Send a test event."""
        webhook = self._own(call)
        return _delivery(await self._webhooks.test(call.principal, webhook.id, call.act))

    async def statistics(self, call: Call) -> Statistics:
        """Tell how a webhook has fared."""
        found = self._webhooks.statistics(call.principal, call.path["id"])
        return Statistics(
            pending=found.pending,
            delivered=found.delivered,
            failed=found.failed,
            attempts=found.attempts,
            average_ms=round(found.seconds * 1000 / found.attempts) if found.attempts else None,
            last_success_at=_moment(found.last_success_at),
            last_failure_at=_moment(found.last_failure_at),
        )

    def _own(self, call: Call) -> ports.Webhook:
        """Return the webhook of a path, and let the audit log know whose it is."""
        webhook = self._webhooks.get(call.principal, call.path["id"])
        call.facts["project_id"] = webhook.project_id
        return webhook

    # --- deliveries -----------------------------------------------------------------------------

    async def deliveries(self, call: Call, query: DeliveriesQuery) -> DeliveryList:
        """List deliveries."""
        found, total = self._webhooks.deliveries(
            call.principal,
            call.path["id"],
            offset=(query.page - 1) * query.page_size,
            limit=query.page_size,
        )
        return DeliveryList(
            deliveries=[_delivery(it) for it in found],
            total=total,
            page=query.page,
            page_size=query.page_size,
        )

    async def delivery(self, call: Call) -> Delivery:
        """Show a delivery."""
        path = call.path
        return _delivery(self._webhooks.delivery(call.principal, path["id"], path["deliveryId"]))

    async def redeliver(self, call: Call) -> Delivery:
        """Deliver an event anew."""
        webhook, delivery_id = self._own(call), call.path["deliveryId"]
        return _delivery(await self._webhooks.deliver_anew(call.principal, webhook.id, delivery_id))


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else moment(seconds)


def _policy(body: RetryPolicy) -> ports.RetryPolicy:
    return ports.RetryPolicy(
        max_retries=body.max_retries,
        initial_delay_ms=body.initial_delay_ms,
        backoff=body.backoff,
        max_delay_ms=body.max_delay_ms,
    )


def _webhook(webhook: ports.Webhook) -> Webhook:
    policy = webhook.retry_policy
    return Webhook(
        id=webhook.id,
        project_id=webhook.project_id,
        name=webhook.name,
        url=webhook.url,
        events=list(webhook.events),
        headers=dict.fromkeys(webhook.header_names, MASK),
        has_secret=webhook.has_secret,
        is_active=webhook.is_active,
        retry_policy=Retries(
            max_retries=policy.max_retries,
            initial_delay_ms=policy.initial_delay_ms,
            backoff=policy.backoff,
            max_delay_ms=policy.max_delay_ms,
        ),
        created_at=moment(webhook.created_at),
        updated_at=moment(webhook.updated_at),
    )


def _delivery(delivery: ports.Delivery) -> Delivery:
    return Delivery(
        id=delivery.id,
        event_id=delivery.event_id,
        event=delivery.kind,
        status=delivery.status,
        attempts=delivery.attempts,
        response_status=delivery.response_status,
        duration_ms=None if delivery.duration is None else round(delivery.duration * 1000),
        error=delivery.error,
        created_at=moment(delivery.created_at),
        next_attempt_at=_moment(delivery.next_attempt_at),
        request_body=delivery.body.decode(),
        response_body=delivery.response_body.decode(errors="replace"),
    )
