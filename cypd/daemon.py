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
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
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
from cypd.doors.asgi import Application
from cypd.doors.plain import Limits, PlainDoor, bind
from cypd.doors.tls import CertificateError, Certificates, TlsDoor
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


def require_certificates(config: Config) -> Certificates | None:
    """Return the files of the TLS door, if there is to be one.

    Raises ConfigError for what is missing, can't be read or does not fit together.
    """
    if not config.server.tls_listen:
        return None
    for key in ("certificate", "key"):
        if not getattr(config.tls, key):
            raise ConfigError(f"tls.{key}: server.tls_listen needs a PEM file here")
    client_ca = Path(config.tls.client_ca) if config.tls.client_ca else None
    found = Certificates(Path(config.tls.certificate), Path(config.tls.key), client_ca)
    with _certificate_errors():
        found.check()
    return found


@contextlib.contextmanager
def _certificate_errors() -> Iterator[None]:
    try:
        yield
    except CertificateError as error:
        raise ConfigError(f"tls.{error.role}: {error}") from None


async def serve(config: Config) -> int:
    """Run the registry until SIGTERM or SIGINT; return the exit status.

    SIGHUP reads the certificates again. Raises ConfigError for a folder, an address or a
    certificate that can't be used.
    """
    root = require_root(config)
    certificates = require_certificates(config)
    with contextlib.ExitStack() as bound:
        plain = _bind("server.listen", config.server.addresses(), bound)
        tls = _bind("server.tls_listen", config.server.tls_addresses(), bound)
        bound.pop_all()  # the doors close them from here on
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
    async with _registry(config, root, on_fatal) as application:
        limits = Limits(
            header=config.server.header_timeout,
            keep_alive=config.server.idle_timeout,
            connections=config.server.max_connections,
        )
        doors: list[PlainDoor | TlsDoor] = []
        if certificates:
            doors.append(await _open_tls(application, certificates, limits, tls))
        doors.append(PlainDoor(application, limits))
        await doors[-1].start(plain)
        gc.freeze()  # what was built to stay need not be looked at again by the collector
        addresses = [*(f"http://{_address(it)}" for it in plain)]
        addresses += [f"https://{_address(it)}" for it in tls]
        log.info("cypd %s serves %s, data in %s", cypd.__version__, ", ".join(addresses), root)
        await stopping.wait()
        grace = config.server.drain_timeout if status == 0 else 0.0
        open_now = sum(door.connections for door in doors)
        log.info("stopping: %d connections, at most %g seconds", open_now, grace)
        await asyncio.gather(*(door.drain(grace) for door in doors))
    return status


async def _open_tls(
    application: Application, certificates: Certificates, limits: Limits, tls: list[socket.socket]
) -> TlsDoor:
    door = TlsDoor(application, certificates, limits)
    with _certificate_errors():
        await door.start(tls)
    loop = asyncio.get_running_loop()
    reloads: set[asyncio.Task[None]] = set()  # the loop itself holds a task only weakly

    def on_hangup() -> None:
        reloads.add(task := loop.create_task(_reload(door)))
        task.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGHUP, on_hangup)
    return door


async def _reload(door: TlsDoor) -> None:
    try:
        await door.reload()
    except CertificateError as error:
        log.error("tls.%s: %s; the certificate read before stays in use", error.role, error)  # noqa: TRY400
    else:
        log.info("new connections get the certificate as it is now")


def _bind(
    key: str, addresses: list[tuple[str, int]], bound: contextlib.ExitStack
) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    for host, port in addresses:
        try:
            sockets.append(bound.enter_context(bind(host, port)))
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConfigError(f"{key}: {host}:{port}: {reason.lower()}") from None
    return sockets


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@contextlib.asynccontextmanager
async def _registry(
    config: Config, root: Path, on_fatal: Callable[[Fatal], None]
) -> AsyncIterator[Application]:
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
                upkeep.create_task(_repeat("janitor", config.gc.interval, janitor.sweep, on_fatal)),
                upkeep.create_task(_check_readers(metadata)),
                upkeep.create_task(_repeat("accounts", _FLUSH_SECONDS, accounts.keep, on_fatal)),
            ]
            yield compose(v2, api)
            for task in tasks:
                task.cancel()
            with contextlib.suppress(Fatal, Unavailable):
                await accounts.authenticator.flush()


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
        settings.failure_window,
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


async def _repeat(
    name: str,
    interval: float,
    work: Callable[[], Awaitable[object]],
    on_fatal: Callable[[Fatal], None],
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


async def _check_readers(metadata: LmdbMetadata) -> None:
    while True:
        await asyncio.sleep(_READER_CHECK_SECONDS)
        metadata.check_readers()
