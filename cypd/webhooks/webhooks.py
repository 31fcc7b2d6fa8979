"""The rules of webhooks: who may have which, and what they may see of what was sent."""

import asyncio
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from cypd.access import Act, Action, Principal
from cypd.events.ports import Kind
from cypd.projects.access import ProjectAccess
from cypd.projects.ports import ProjectStore
from cypd.refusals import Code, Refusal, invalid
from cypd.webhooks.headers import check_headers
from cypd.webhooks.ports import (
    TEST,
    Delivery,
    RetryPolicy,
    Statistics,
    Webhook,
    WebhookStore,
)
from cypd.webhooks.seal import Seal, Sealed, Secrets
from cypd.webhooks.sender import Sender
from cypd.webhooks.targets import Targets

MAX_WEBHOOKS = 50
"""Of one project."""
MASK = "***"
"""What stands for a header's value: given back as it was shown, it stays what it is."""
_READ_STEP = 256
_TESTS_AT_ONCE = 8  # each may take as long as a receiver has


class Settings(NamedTuple):
    """What somebody sets of a webhook; ``None``, where it is changed: as it was."""

    name: str | None = None
    url: str | None = None
    secret: str | None = None
    events: Sequence[Kind] | None = None
    headers: Mapping[str, str] | None = None
    is_active: bool | None = None
    retry_policy: RetryPolicy | None = None


class Webhooks:
    """Webhooks of projects, for those who look after them. Every id may be anything."""

    def __init__(
        self,
        store: WebhookStore,
        projects: ProjectStore,
        access: ProjectAccess,
        *,
        targets: Targets,
        seal: Seal,
        sender: Sender,
    ) -> None:
        self._store = store
        self._projects = projects
        self._access = access
        self._targets = targets
        self._seal = seal
        self._sender = sender
        self._testing = 0

    async def list(self, principal: Principal, project_id: str | None) -> Sequence[Webhook]:
        """Return the webhooks of a project, or all that the principal may see; oldest first.

        Raises PROJECT_NOT_FOUND, PERMISSION_MISSING.
        """
        if project_id is not None:
            project = self._access.require(principal, Action.SETTINGS, project_id)
            return self._store.webhooks(project.id)
        found: list[Webhook] = []
        after = ""
        while some := self._store.every_webhook(after=after, limit=_READ_STEP):
            found += [it for it in some if self._is_visible(principal, it)]
            after = some[-1].id
            await asyncio.sleep(0)
        return sorted(found, key=lambda it: (it.created_at, it.id))

    async def create(self, principal: Principal, project_id: str, settings: Settings) -> Webhook:
        """Make a webhook.

        Raises VALIDATION_FAILED with the field, NOT_IN_THIS_STATE where there are too many, and as
        ``list``.
        """
        project = self._access.require(principal, Action.SETTINGS, project_id)
        now = time.time()
        blank = Webhook(
            id=str(uuid.uuid4()),
            project_id=project.id,
            name="",
            url="",
            events=(),
            is_active=True,
            header_names=(),
            sealed=b"",
            has_secret=False,
            retry_policy=RetryPolicy(),
            created_at=now,
            updated_at=now,
        )
        webhook = self._changed(blank, settings, now)
        await self._store.create_webhook(webhook, limit=MAX_WEBHOOKS)
        return webhook

    def get(self, principal: Principal, webhook_id: str) -> Webhook:
        """Return a webhook; raise WEBHOOK_NOT_FOUND for one that is not the principal's to see."""
        webhook = self._store.webhook(webhook_id)
        if webhook is None or not self._is_visible(principal, webhook):
            raise Refusal(Code.WEBHOOK_NOT_FOUND)
        return webhook

    async def update(self, principal: Principal, webhook_id: str, settings: Settings) -> Webhook:
        """Change a webhook; raises as ``get`` and ``create``."""
        self.get(principal, webhook_id)
        return await self._store.update_webhook(
            webhook_id, lambda webhook: self._changed(webhook, settings, time.time())
        )

    async def delete(self, principal: Principal, webhook_id: str) -> None:
        """Remove a webhook, with all that was to be sent to it; raises as ``get``."""
        await self._store.delete_webhook(self.get(principal, webhook_id).id)

    async def test(self, principal: Principal, webhook_id: str, act: Act) -> Delivery:
        """Send a test event once, now, and return it as it is kept among the deliveries.

        Raises WEBHOOK_FAILED if it was in vain, TOO_MANY_REQUESTS, and as ``get``.
        """
        webhook = self.get(principal, webhook_id)
        project = self._access.require(principal, Action.SETTINGS, webhook.project_id)
        if self._testing >= _TESTS_AT_ONCE:
            raise Refusal(Code.TOO_MANY_REQUESTS, headers={"Retry-After": "5"})
        document: dict[str, Any] = {
            "event": TEST,
            "event_id": str(uuid.uuid4()),
            "timestamp": int(act.at),
            "actor": {"user_id": act.user_id, "username": act.name},
            "project": project.name,
        }
        delivery = Delivery(
            id=str(uuid.uuid4()),
            number=0,
            webhook_id=webhook.id,
            event_id=document["event_id"],
            kind=TEST,
            repository="",
            body=msgspec.json.encode(document),
            created_at=act.at,
        )
        self._testing += 1
        try:
            attempt = await self._sender.attempt(webhook, delivery)
        finally:
            self._testing -= 1
        kept = await self._store.keep_test(delivery, attempt)
        if not attempt.succeeded:
            raise Refusal(Code.WEBHOOK_FAILED)
        return kept

    # --- deliveries -----------------------------------------------------------------------------

    def deliveries(
        self, principal: Principal, webhook_id: str, *, offset: int, limit: int
    ) -> tuple[Sequence[Delivery], int]:
        """Return deliveries, newest first, and how many there are; raises as ``get``."""
        webhook = self.get(principal, webhook_id)
        found = self._store.deliveries(webhook.id, offset=offset, limit=limit)
        return found, self._store.statistics(webhook.id).kept

    def delivery(self, principal: Principal, webhook_id: str, delivery_id: str) -> Delivery:
        """Return a delivery; raise DELIVERY_NOT_FOUND, and as ``get``."""
        delivery = self._store.delivery(self.get(principal, webhook_id).id, delivery_id)
        if delivery is None:
            raise Refusal(Code.DELIVERY_NOT_FOUND)
        return delivery

    async def deliver_anew(
        self, principal: Principal, webhook_id: str, delivery_id: str
    ) -> Delivery:
        """Make another delivery of the same event; raises as ``delivery``."""
        before = self.delivery(principal, webhook_id, delivery_id)
        return await self._store.deliver_anew(before.webhook_id, before.id, at=time.time())

    def statistics(self, principal: Principal, webhook_id: str) -> Statistics:
        """Return how a webhook has fared; raises as ``get``."""
        return self._store.statistics(self.get(principal, webhook_id).id)

    def _is_visible(self, principal: Principal, webhook: Webhook) -> bool:
        project = self._projects.project(webhook.project_id)
        return project is not None and self._access.allows_in(principal, Action.SETTINGS, project)

    # --- what is set ----------------------------------------------------------------------------

    def _changed(self, webhook: Webhook, settings: Settings, now: float) -> Webhook:
        """Return a webhook with what is set, once it was found to be good."""
        if settings.url is not None:
            try:
                self._targets.check(settings.url)
            except ValueError as error:
                raise invalid("url", str(error)) from None
        given = settings._asdict()
        plain = {
            name: given[name]
            for name in ("name", "url", "is_active", "retry_policy")
            if given[name] is not None
        }
        if settings.events is not None:
            plain["events"] = tuple(dict.fromkeys(settings.events))
        if settings.secret is not None or settings.headers is not None or not webhook.sealed:
            plain |= self._sealed(webhook, settings)
        return replace(webhook, updated_at=now, **plain)

    def _sealed(self, webhook: Webhook, settings: Settings) -> dict[str, object]:
        known = self._known(webhook, settings)
        secret = known.secret if settings.secret is None else settings.secret
        headers = dict(known.headers)
        if settings.headers is not None:
            headers = {
                name: known.headers.get(name, "") if value == MASK else value
                for name, value in settings.headers.items()
            }
        try:
            check_headers(headers)
        except ValueError as error:
            raise invalid("headers", str(error)) from None
        return {
            "sealed": self._seal.close(Secrets(secret, headers), webhook.id),
            "has_secret": bool(secret),
            "header_names": tuple(headers),
        }

    def _known(self, webhook: Webhook, settings: Settings) -> Secrets:
        if not webhook.sealed:
            return Secrets("", {})
        try:
            return self._seal.open(webhook.sealed, webhook.id)
        except Sealed:
            if settings.secret is None or settings.headers is None:
                raise invalid(
                    "secret", "was kept with another key: set secret and headers"
                ) from None
            return Secrets("", {})
