"""The composition root: builds every object once, opens the doors, and drains them."""

import asyncio
import contextlib
import gc
import logging
import secrets
import shutil
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

import cypd
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
from cypd.api.auth import Auth
from cypd.api.projects import ProjectHandlers
from cypd.api.system import Collection, Disk, System
from cypd.api.user import Own
from cypd.api.users import Everybody
from cypd.asgi import compose
from cypd.auth.authenticator import UserAuthenticator
from cypd.auth.passwords import PasswordPool, hash_password
from cypd.auth.tokens import Lifetimes, Tokens
from cypd.config import Config, ConfigError
from cypd.doors.plain import Limits, PlainDoor, bind
from cypd.metadata.lmdb import LmdbMetadata
from cypd.projects.access import ProjectAccess
from cypd.projects.members import Members
from cypd.projects.projects import Projects
from cypd.registry.blobs import Blobs
from cypd.registry.catalog import Catalog
from cypd.registry.janitor import Janitor
from cypd.registry.manifests import Manifests
from cypd.registry.ports import Fatal, Unavailable
from cypd.registry.uploads import Uploads
from cypd.storage.filesystem import FilesystemStorage
from cypd.v2.app import V2

log = logging.getLogger(__name__)

EXIT_FATAL = 70  # sysexits.h EX_SOFTWARE: the storage can't be trusted, restart
_READER_CHECK_SECONDS = 30.0
_FLUSH_SECONDS = 30.0


def require_root(config: Config) -> Path:
    """Return the state folder, made if need be; raise ConfigError if it can't be used."""
    root = Path(config.storage.root).absolute()
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = root / ".probe"
        probe.touch(mode=0o600)
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"storage.root: {root}: {error.strerror}") from None
    return root


async def serve(config: Config) -> int:
    """Run the registry until SIGTERM or SIGINT; return the exit status.

    Raises ConfigError for a folder or an address that can't be used.
    """
    root = require_root(config)
    sockets = _bind(config)
    stopping = asyncio.Event()
    status = 0

    def on_fatal(error: Fatal) -> None:
        nonlocal status
        log.critical("%s; stopping, since only a restart shows what is on disk", error)
        status = EXIT_FATAL
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with _registry(config, root, on_fatal) as door:
        await door.start(sockets)
        gc.freeze()  # what was built to stay need not be looked at again by the collector
        addresses = ", ".join(f"http://{_address(it)}" for it in sockets)
        log.info("cypd %s serves %s, data in %s", cypd.__version__, addresses, root)
        await stopping.wait()
        grace = config.server.drain_timeout if status == 0 else 0.0
        log.info("stopping: %d connections, at most %g seconds", door.connections, grace)
        await door.drain(grace)
    return status


def _bind(config: Config) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    for host, port in config.server.addresses():
        try:
            sockets.append(bind(host, port))
        except OSError as error:
            for opened in sockets:
                opened.close()
            reason = error.strerror or str(error)
            raise ConfigError(f"server.listen: {host}:{port}: {reason.lower()}") from None
    return sockets


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@contextlib.asynccontextmanager
async def _registry(
    config: Config, root: Path, on_fatal: Callable[[Fatal], None]
) -> AsyncIterator[PlainDoor]:
    """Build everything over the state folder; take it down in reverse order."""
    with contextlib.ExitStack() as stack:
        metadata = LmdbMetadata(root / "metadata", config.metadata.map_size)
        stack.callback(metadata.close)
        storage = FilesystemStorage(root)
        stack.callback(storage.close)
        accounts = build_accounts(config, root, metadata.accounts)
        stack.callback(accounts.hasher.close)
        await _ensure_administrator(config, root, accounts)
        access = ProjectAccess(
            metadata.projects,
            anonymous=config.access.anonymous,
            auto_create=config.projects.auto_create,
            default_quota=config.projects.default_quota,
        )
        v2 = V2(
            Blobs(metadata.registry, storage, access.allows),
            Uploads(
                metadata.registry,
                storage,
                max_sessions_per_user=config.uploads.max_sessions_per_user,
            ),
            Manifests(
                metadata.registry,
                storage,
                allow_sparse=config.manifests.allow_sparse,
                allow_urls=config.manifests.allow_urls,
            ),
            Catalog(metadata.registry, access.allows),
            authenticator=accounts.authenticator,
            allows=access.allows,
            admit=access.admit,
            external_url=config.server.external_url,
            delete_enabled=config.access.delete,
            session_ttl=config.uploads.session_ttl,
            on_fatal=on_fatal,
        )
        janitor = Janitor(
            metadata.registry,
            storage,
            session_ttl=config.uploads.session_ttl,
            blob_grace=config.gc.blob_grace,
        )
        projects = Projects(
            metadata.projects,
            access,
            default_quota=config.projects.default_quota,
            max_quota=config.projects.max_quota,
        )
        members = Members(metadata.projects, access, accounts.users)
        collection = Collection(interval=config.gc.interval, blob_grace=config.gc.blob_grace)
        api = Api(
            [
                *System(lambda: _disk(root), collection).routes(),
                *Auth(accounts.sessions, accounts.users).routes(),
                *Own(accounts.users, accounts.personal_tokens, accounts.second_factor).routes(),
                *Everybody(accounts.users, members).routes(),
                *ProjectHandlers(projects, members).routes(),
            ],
            accounts.authenticator,
            always_200=config.api.always_200,
            on_fatal=on_fatal,
        )
        async with api, asyncio.TaskGroup() as upkeep:
            tasks = [
                upkeep.create_task(_sweep(janitor, config.gc.interval, on_fatal)),
                upkeep.create_task(_check_readers(metadata)),
                upkeep.create_task(_keep_accounts(config, metadata.accounts, accounts)),
            ]
            limits = Limits(
                header=config.server.header_timeout,
                keep_alive=config.server.idle_timeout,
                connections=config.server.max_connections,
            )
            yield PlainDoor(compose(v2, api), limits)
            for task in tasks:
                task.cancel()


class Accounts(NamedTuple):
    """The rules of accounts, and who knows whom."""

    store: AccountStore
    hasher: PasswordPool
    users: Users
    sessions: Sessions
    second_factor: SecondFactor
    personal_tokens: PersonalTokens
    authenticator: UserAuthenticator


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
    tokens = Tokens(secret_file.ensure(root / "token-key"), lifetimes)
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
    )


def _disk(root: Path) -> Disk:
    usage = shutil.disk_usage(root)
    return Disk(total=usage.total, free=usage.free)


async def _ensure_administrator(config: Config, root: Path, accounts: Accounts) -> None:
    written = await ensure_administrator(
        accounts.store,
        accounts.users,
        accounts.hasher,
        configured_password=config.auth.admin_password,
        password_file=root / "admin-password",
    )
    if written:
        log.info("first start: the password of the user %s is in %s", ADMINISTRATOR, written)


async def _sweep(janitor: Janitor, interval: float, on_fatal: Callable[[Fatal], None]) -> None:
    while True:
        try:
            await janitor.sweep()
        except Fatal as error:
            on_fatal(error)
        except Unavailable as error:
            log.warning("janitor: %s; it tries again in %g seconds", error, interval)
        except Exception:
            # Whatever it stumbled over, it is no reason to stop serving.
            log.exception("janitor: a round broke off; it tries again in %g seconds", interval)
        await asyncio.sleep(interval)


async def _keep_accounts(config: Config, store: AccountStore, accounts: Accounts) -> None:
    while True:
        await asyncio.sleep(_FLUSH_SECONDS)
        with contextlib.suppress(Unavailable):  # the next round does it
            await accounts.authenticator.flush()
            await store.sweep(now=time.time(), window=config.auth.failure_window)


async def _check_readers(metadata: LmdbMetadata) -> None:
    while True:
        await asyncio.sleep(_READER_CHECK_SECONDS)
        metadata.check_readers()
