"""The registry: engines, rules over them, upkeep beside them, and the one application."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from cypd.asgi import compose
from cypd.audit.audit import Audit
from cypd.composition.accounts import build_accounts, make_administrator
from cypd.composition.apis import Parts
from cypd.composition.blobs import blob_storage
from cypd.composition.client import Client
from cypd.composition.metrics import build_metrics, metrics_token
from cypd.composition.scanning import build_scanning
from cypd.composition.upkeep import OnFatal, repeat
from cypd.config import Config
from cypd.doors.asgi import Application
from cypd.health import Health
from cypd.limits import Rates
from cypd.metadata.lmdb import LmdbMetadata
from cypd.metrics.metrics import Metrics
from cypd.projects.access import ProjectAccess
from cypd.registry.janitor import Janitor
from cypd.registry.ports import BlobStorage, Fatal, Unavailable
from cypd.registry.pulls import PullCounter
from cypd.registry.scrub import Rounds, Scrub
from cypd.request_log import logged
from cypd.request_meter import metered
from cypd.retention.retention import Retention
from cypd.scrape import scrape
from cypd.storage.pace import Pace
from cypd.storage.space import FreeSpace
from cypd.turn import turn
from cypd.webhooks.seal import Seal
from cypd.webhooks.sender import WINDOW, Sender
from cypd.webhooks.targets import Targets
from cypd.webhooks.webhooks import Webhooks

log = logging.getLogger(__name__)

_READER_CHECK_SECONDS = 30.0
_ACCOUNTS_SECONDS = 30.0
_EVENTS_SECONDS = 60.0
_SENDER_SECONDS = 1.0
_AUDIT_ENTRIES = 1_000_000
_RETAIN_SECONDS = 3600.0
_SCRUB_SECONDS = 600.0


class Registry(NamedTuple):
    """A registry that runs."""

    application: Application
    health: Health
    metrics: Metrics
    scraped: Application
    """Serves ``/metrics``."""


@contextlib.asynccontextmanager
async def registry(config: Config, root: Path, on_fatal: OnFatal) -> AsyncIterator[Registry]:
    """Build everything over the state folder; take it down in reverse order."""
    async with contextlib.AsyncExitStack() as stack:
        metadata = LmdbMetadata(root / "metadata", config.metadata.map_size)
        stack.callback(metadata.close)
        storage = await stack.enter_async_context(blob_storage(config, root))
        await _test_write(metadata)
        metrics = build_metrics(config, root, metadata)
        stack.callback(metrics.close)
        scraped = scrape(metrics.text, metrics_token(config))
        space = FreeSpace(root, config.storage.min_free)
        health = Health(metadata.probe, space.is_enough, on_fatal)
        accounts = build_accounts(config, root, metadata.accounts, metadata.scans.is_running)
        stack.callback(accounts.hasher.close)
        await make_administrator(config, root, accounts)
        access = ProjectAccess(
            metadata.projects,
            anonymous=config.access.anonymous,
            auto_create=config.projects.auto_create,
            default_quota=config.projects.default_quota,
        )
        targets = Targets(config.webhooks.allow_networks)
        client = Client(targets, config.webhooks.timeout)
        stack.push_async_callback(client.close)
        seal = Seal(accounts.key)
        sender = Sender(metadata.webhooks, seal, client.post)
        webhooks = Webhooks(
            metadata.webhooks,
            metadata.projects,
            access,
            targets=targets,
            seal=seal,
            sender=sender,
        )
        audit = Audit(metadata.audit, metadata.projects, access)
        pulls = PullCounter(metadata.inventory, tell=config.events.pulls)
        retention = Retention(
            metadata.projects,
            access,
            metadata.registry,
            metadata.inventory,
            delete_enabled=config.access.delete,
        )
        scanning = build_scanning(
            config,
            root,
            metadata,
            storage,
            access=access,
            authenticator=accounts.authenticator,
            on_end=metrics.saw_scan,
        )
        parts = Parts(
            config,
            root,
            metadata,
            storage,
            space,
            health,
            access,
            accounts,
            webhooks,
            audit,
            pulls,
            retention,
            scanning,
            on_fatal,
            rates := Rates(config.limits, config.server.workers),
        )
        v2 = parts.v2()
        api = parts.api()
        janitor = Janitor(
            metadata.registry,
            storage,
            session_ttl=config.uploads.session_ttl,
            blob_grace=config.gc.blob_grace,
            loose_grace=config.gc.loose_grace,
        )

        async def collect() -> None:
            async with turn(root / "collection.lock"):  # a backup copies what it has seen
                metrics.saw_collection(await janitor.sweep())

        async def upkeep() -> None:
            async with turn(root / "upkeep.lock"), asyncio.TaskGroup() as group:
                for name, interval, work in (
                    ("janitor", config.gc.interval, collect),
                    ("accounts", _ACCOUNTS_SECONDS, accounts.sweep),
                    ("events", _EVENTS_SECONDS, partial(_forget_old, config, metadata)),
                    ("webhooks", _SENDER_SECONDS, sender.run),
                    ("scans", _SENDER_SECONDS, scanning.run),
                    ("retention", _RETAIN_SECONDS, retention.run),
                    ("scrub", _SCRUB_SECONDS, _scrub(config, root, metadata, storage)),
                ):
                    group.create_task(repeat(name, interval, work, on_fatal))

        flushes = {
            "tokens": (_ACCOUNTS_SECONDS, accounts.authenticator.flush),
            "pulls": (config.events.pull_interval, pulls.flush),
        }
        async with api, asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(upkeep()),
                group.create_task(_check_readers(metadata)),
                *(group.create_task(repeat(it, *flushes[it], on_fatal)) for it in flushes),
            ]
            public = scraped if config.metrics.public else None
            composed = compose(
                rates.limited(v2, v2.refuse), rates.limited(api, api.refuse), health, public
            )
            application = metered(composed, metrics.page, metrics.named)
            yield Registry(logged(application, config.log.requests), health, metrics, scraped)
            for task in tasks:
                task.cancel()
            for _, flush in flushes.values():
                with contextlib.suppress(Fatal, Unavailable):
                    await flush()


async def _test_write(metadata: LmdbMetadata) -> None:
    try:
        await metadata.test_write()
    except Unavailable as error:  # a full disk keeps nobody from pulling
        log.warning("start: %s", error)


def _scrub(
    config: Config, root: Path, metadata: LmdbMetadata, storage: BlobStorage
) -> Callable[[], Awaitable[None]]:
    interval = config.scrub.interval
    pace = Pace(config.scrub.rate)
    scrub = Scrub(metadata.registry, storage, Rounds(root / "scrub.json"), pace.spend)

    async def scrub_if_due() -> None:
        if interval and scrub.is_due(interval):
            async with turn(root / "scrub.lock"):
                if scrub.is_due(interval):  # not done meanwhile, by hand
                    await scrub.run()

    return scrub_if_due


async def _forget_old(config: Config, metadata: LmdbMetadata) -> None:
    now, events, webhooks = time.time(), config.events, config.webhooks
    await metadata.webhooks.trim_events(
        keep=events.keep, before=now - events.keep_age, window=WINDOW
    )
    await metadata.webhooks.trim_deliveries(keep=webhooks.keep, before=now - webhooks.keep_age)
    await metadata.audit.trim_audit(keep=_AUDIT_ENTRIES, before=now - events.audit_age)


async def _check_readers(metadata: LmdbMetadata) -> None:
    while True:
        await asyncio.sleep(_READER_CHECK_SECONDS)
        metadata.check_readers()
