"""The composition root: builds every object once, opens the doors, and drains them."""

import asyncio
import contextlib
import gc
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import cypd
from cypd.access import administrator_only
from cypd.accounts import secret_file
from cypd.accounts.administrator import ADMINISTRATOR, ensure_administrator
from cypd.accounts.ports import AccountStore
from cypd.asgi import compose
from cypd.auth.authenticator import UserAuthenticator
from cypd.auth.passwords import hash_password, verify_password
from cypd.config import Config, ConfigError
from cypd.doors.asgi import Application
from cypd.doors.plain import Limits, PlainDoor, bind
from cypd.doors.tls import CertificateError, Certificates, TlsDoor
from cypd.metadata.lmdb import LmdbMetadata
from cypd.registry.blobs import Blobs
from cypd.registry.janitor import Janitor
from cypd.registry.manifests import Manifests
from cypd.registry.ports import Fatal, Unavailable
from cypd.registry.uploads import Uploads
from cypd.storage.filesystem import FilesystemStorage
from cypd.v2.app import V2

log = logging.getLogger(__name__)

EXIT_FATAL = 70  # sysexits.h EX_SOFTWARE: the storage can't be trusted, restart
_READER_CHECK_SECONDS = 30.0


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
        await _ensure_administrator(config, root, metadata.accounts)
        authenticator = UserAuthenticator(metadata.accounts, secret_file.ensure(root / "token-key"))
        stack.callback(authenticator.close)
        allows = administrator_only(anonymous_pull=config.access.anonymous == "pull")
        v2 = V2(
            Blobs(metadata.registry, storage, allows),
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
            authenticator,
            allows,
            external_url=config.server.external_url,
            delete_enabled=config.access.delete,
            on_fatal=on_fatal,
        )
        janitor = Janitor(
            metadata.registry,
            storage,
            session_ttl=config.uploads.session_ttl,
            blob_grace=config.gc.blob_grace,
        )
        async with asyncio.TaskGroup() as upkeep:
            tasks = [
                upkeep.create_task(_sweep(janitor, config.gc.interval, on_fatal)),
                upkeep.create_task(_check_readers(metadata)),
            ]
            yield compose(v2)
            for task in tasks:
                task.cancel()


async def _ensure_administrator(config: Config, root: Path, users: AccountStore) -> None:
    written = await ensure_administrator(
        users,
        hash_password,
        verify_password,
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


async def _check_readers(metadata: LmdbMetadata) -> None:
    while True:
        await asyncio.sleep(_READER_CHECK_SECONDS)
        metadata.check_readers()
