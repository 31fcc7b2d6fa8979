"""Every object, built once: the engines, the rules over them, and the one application.

Only this module names concrete engines.
"""

import asyncio
import contextlib
import logging
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cypd import systemd
from cypd.accounts import secret_file
from cypd.accounts.administrator import ADMINISTRATOR, ensure_administrator
from cypd.accounts.passwords import Passwords
from cypd.accounts.personal_tokens import PersonalTokens
from cypd.accounts.ports import AccountStore
from cypd.accounts.second_factor import SecondFactor
from cypd.accounts.sessions import Sessions
from cypd.accounts.throttle import Throttle
from cypd.accounts.users import Users
from cypd.api.app import Api
from cypd.api.audit import AuditHandlers
from cypd.api.auth import Auth
from cypd.api.events import EventHandlers
from cypd.api.projects import ProjectHandlers
from cypd.api.repositories import RepositoryHandlers
from cypd.api.system import Collection, Disk, System
from cypd.api.tag_rules import TagRulesHandlers
from cypd.api.user import Own
from cypd.api.users import Everybody
from cypd.api.webhooks import WebhookHandlers
from cypd.asgi import compose
from cypd.audit.audit import Audit
from cypd.auth.authenticator import UserAuthenticator
from cypd.auth.passwords import PasswordPool, hash_password
from cypd.auth.tokens import Lifetimes, Tokens
from cypd.config import Config, ConfigError
from cypd.doors.asgi import Application
from cypd.events.feed import Feed
from cypd.health import Health
from cypd.metadata.lmdb import LmdbMetadata
from cypd.projects.access import ProjectAccess
from cypd.projects.members import Members
from cypd.projects.projects import Projects
from cypd.registry.blobs import Blobs
from cypd.registry.catalog import Catalog
from cypd.registry.inventory import Inventory
from cypd.registry.janitor import Janitor
from cypd.registry.manifests import Manifests
from cypd.registry.ports import Fatal, Unavailable
from cypd.registry.pulls import PullCounter
from cypd.registry.uploads import Uploads
from cypd.request_log import logged
from cypd.retention.retention import Retention
from cypd.storage.filesystem import FilesystemStorage
from cypd.storage.space import FreeSpace
from cypd.turn import turn
from cypd.v2.app import V2
from cypd.webhooks.poster import Poster
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
_KEY_CHARACTERS = 32

OnFatal = Callable[[Fatal], None]


class Accounts(NamedTuple):
    """The rules of accounts, and who knows whom."""

    store: AccountStore
    hasher: PasswordPool
    users: Users
    sessions: Sessions
    second_factor: SecondFactor
    personal_tokens: PersonalTokens
    authenticator: UserAuthenticator
    window: float
    """Seconds for which a wrong password counts."""
    key: str
    """What tokens are signed with."""

    async def keep(self) -> None:
        """Note when tokens were used, and forget what is over."""
        await self.authenticator.flush()
        await self.store.sweep(now=time.time(), window=self.window)


def build_accounts(config: Config, root: Path, store: AccountStore) -> Accounts:
    """Return everything that has to do with accounts, over their store."""
    hasher = PasswordPool()
    settings = config.auth
    throttle = Throttle(
        store,
        per_account=settings.max_failures_per_account,
        per_address=settings.max_failures_per_address,
        window=settings.failure_window,
    )
    lifetimes = Lifetimes(settings.access_ttl, settings.refresh_ttl, settings.token_ttl)
    key = _token_key(root)
    tokens = Tokens(key, lifetimes)
    passwords = Passwords(store, hasher, throttle, decoy=hash_password(secrets.token_hex()))
    second_factor = SecondFactor(store, passwords, throttle)
    return Accounts(
        store,
        hasher,
        Users(store, passwords, hasher, is_open=settings.registration == "open"),
        Sessions(store, passwords, second_factor, tokens),
        second_factor,
        PersonalTokens(store),
        UserAuthenticator(store, passwords, tokens),
        settings.failure_window,
        key,
    )


def _token_key(root: Path) -> str:
    key = systemd.credential(os.environ, "token-key")
    if key and len(key) < _KEY_CHARACTERS:
        raise ConfigError(f"credential token-key: it has less than {_KEY_CHARACTERS} characters")
    return key or secret_file.ensure(root / "token-key")


@contextlib.asynccontextmanager
async def registry(
    config: Config, root: Path, on_fatal: OnFatal
) -> AsyncIterator[tuple[Application, Health]]:
    """Build everything over the state folder; take it down in reverse order."""
    async with contextlib.AsyncExitStack() as stack:
        metadata = LmdbMetadata(root / "metadata", config.metadata.map_size)
        stack.callback(metadata.close)
        storage = FilesystemStorage(root)
        stack.callback(storage.close)
        await _test_write(metadata)
        space = FreeSpace(root, config.storage.min_free)
        health = Health(metadata.probe, space.is_enough, on_fatal)
        accounts = build_accounts(config, root, metadata.accounts)
        stack.callback(accounts.hasher.close)
        await _ensure_administrator(config, root, accounts)
        access = ProjectAccess(
            metadata.projects,
            anonymous=config.access.anonymous,
            auto_create=config.projects.auto_create,
            default_quota=config.projects.default_quota,
        )
        poster = Poster(
            targets := Targets(config.webhooks.allow_networks), timeout=config.webhooks.timeout
        )
        stack.push_async_callback(poster.close)
        seal = Seal(accounts.key)
        sender = Sender(metadata.webhooks, seal, poster.post)
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
        parts = _Parts(
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
            on_fatal,
        )
        api = parts.api()
        janitor = Janitor(
            metadata.registry,
            storage,
            session_ttl=config.uploads.session_ttl,
            blob_grace=config.gc.blob_grace,
        )

        async def send() -> None:
            async with turn(root / "sender.lock"):
                await sender.run()

        async def forget_old() -> None:
            await _forget_old(config, metadata)

        async with api, asyncio.TaskGroup() as upkeep:
            tasks = [
                upkeep.create_task(_repeat("janitor", config.gc.interval, janitor.sweep, on_fatal)),
                upkeep.create_task(_repeat("accounts", _ACCOUNTS_SECONDS, accounts.keep, on_fatal)),
                upkeep.create_task(_repeat("events", _EVENTS_SECONDS, forget_old, on_fatal)),
                upkeep.create_task(_repeat("webhooks", _SENDER_SECONDS, send, on_fatal)),
                upkeep.create_task(
                    _repeat("pulls", config.events.pull_interval, pulls.flush, on_fatal)
                ),
                upkeep.create_task(_repeat("retention", _RETAIN_SECONDS, retention.run, on_fatal)),
                upkeep.create_task(_check_readers(metadata)),
            ]
            yield logged(compose(parts.v2(), api, health), config.log.requests), health
            for task in tasks:
                task.cancel()
            for flush in (accounts.authenticator.flush, pulls.flush):
                with contextlib.suppress(Fatal, Unavailable):
                    await flush()


@dataclass(frozen=True)
class _Parts:
    """What both APIs are built of."""

    config: Config
    root: Path
    metadata: LmdbMetadata
    storage: FilesystemStorage
    space: FreeSpace
    health: Health
    access: ProjectAccess
    accounts: Accounts
    webhooks: Webhooks
    audit: Audit
    pulls: PullCounter
    retention: Retention
    on_fatal: OnFatal

    def v2(self) -> V2:
        """Return the OCI API."""
        config, store, access = self.config, self.metadata.registry, self.access
        return V2(
            Blobs(store, self.storage, access.allows),
            Uploads(
                store, self.storage, max_sessions_per_user=config.uploads.max_sessions_per_user
            ),
            Manifests(
                store,
                self.storage,
                allow_sparse=config.manifests.allow_sparse,
                allow_urls=config.manifests.allow_urls,
            ),
            Catalog(store, access.allows),
            self.pulls,
            authenticator=self.accounts.authenticator,
            allows=access.allows,
            admit=access.admit,
            external_url=config.server.external_url,
            delete_enabled=config.access.delete,
            session_ttl=config.uploads.session_ttl,
            on_fatal=self.on_fatal,
            require_space=self.space.require,
            record=self.audit.record,
            is_set_aside=access.is_set_aside,
        )

    def api(self) -> Api:
        """Return the product's own API."""
        config, accounts = self.config, self.accounts
        projects = Projects(
            self.metadata.projects,
            self.access,
            default_quota=config.projects.default_quota,
            max_quota=config.projects.max_quota,
        )
        members = Members(self.metadata.projects, self.access, accounts.users)
        inventory = Inventory(
            self.metadata.registry,
            self.metadata.inventory,
            self.access,
            delete_enabled=config.access.delete,
        )
        collection = Collection(interval=config.gc.interval, blob_grace=config.gc.blob_grace)
        return Api(
            [
                *System(lambda: _disk(self.root), collection).routes(),
                *Auth(accounts.sessions, accounts.users).routes(),
                *Own(accounts.users, accounts.personal_tokens, accounts.second_factor).routes(),
                *Everybody(accounts.users, members).routes(),
                *ProjectHandlers(projects, members).routes(),
                *TagRulesHandlers(projects, self.retention).routes(),
                *WebhookHandlers(self.webhooks).routes(),
                *AuditHandlers(self.audit).routes(),
                *EventHandlers(
                    Feed(self.metadata.events, lambda: self.health.is_draining),
                    self.metadata.projects,
                    self.access,
                    accounts.authenticator,
                ).routes(),
                *RepositoryHandlers(inventory).routes(),
            ],
            accounts.authenticator,
            self.audit.record,
            always_200=config.api.always_200,
            on_fatal=self.on_fatal,
        )


def _disk(root: Path) -> Disk:
    usage = shutil.disk_usage(root)
    return Disk(total=usage.total, free=usage.free)


async def _test_write(metadata: LmdbMetadata) -> None:
    try:
        await metadata.test_write()
    except Unavailable as error:  # a full disk keeps nobody from pulling
        log.warning("start: %s", error)


async def _ensure_administrator(config: Config, root: Path, accounts: Accounts) -> None:
    written = await ensure_administrator(
        accounts.store,
        accounts.users,
        accounts.hasher,
        configured_password=config.auth.admin_password
        or systemd.credential(os.environ, "admin-password"),
        password_file=root / "admin-password",
    )
    if written:
        log.info("first start: the password of the user %s is in %s", ADMINISTRATOR, written)


async def _repeat(
    name: str, interval: float, work: Callable[[], Awaitable[object]], on_fatal: OnFatal
) -> None:
    """Do a piece of upkeep now, and again after each interval."""
    while True:
        try:
            await work()
        except Fatal as error:
            on_fatal(error)
        except Unavailable as error:
            log.warning("%s: %s; it tries again in %g seconds", name, error, interval)
        except Exception:
            # Whatever it stumbled over, it is no reason to stop serving.
            log.exception("%s: a round broke off; it tries again in %g seconds", name, interval)
        await asyncio.sleep(interval)


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
