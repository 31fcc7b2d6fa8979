"""The composition root: builds every object once, opens the doors, and drains them."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import cypd
from cypd import systemd
from cypd.access import administrator_only
from cypd.accounts import secret_file
from cypd.accounts.administrator import ADMINISTRATOR, ensure_administrator
from cypd.accounts.ports import AccountStore
from cypd.asgi import compose
from cypd.auth.authenticator import UserAuthenticator
from cypd.auth.passwords import hash_password, verify_password
from cypd.config import Config, ConfigError
from cypd.doors.plain import Limits, PlainDoor, bind
from cypd.health import Health
from cypd.metadata.lmdb import LmdbMetadata
from cypd.registry.blobs import Blobs
from cypd.registry.janitor import Janitor
from cypd.registry.manifests import Manifests
from cypd.registry.ports import Fatal, Unavailable
from cypd.registry.uploads import Uploads
from cypd.request_log import logged
from cypd.storage.filesystem import FilesystemStorage
from cypd.storage.space import FreeSpace
from cypd.v2.app import V2

log = logging.getLogger(__name__)

EXIT_FATAL = 70  # sysexits.h EX_SOFTWARE: the storage can't be trusted, restart
_READER_CHECK_SECONDS = 30.0
_CLOSE_SECONDS = 30.0  # after the last request: queued writes, and threads
_KEY_CHARACTERS = 32


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
    notifier = systemd.Notifier(os.environ)
    root = require_root(config)
    sockets = _listen(config)
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
    async with _registry(config, root, on_fatal) as (door, health):
        await door.start(sockets)
        gc.freeze()  # what was built to stay need not be looked at again by the collector
        addresses = ", ".join(f"http://{_address(it)}" for it in sockets)
        log.info("cypd %s serves %s, data in %s", cypd.__version__, addresses, root)
        notifier.ready(f"serves {addresses}")
        watch = loop.create_task(notifier.watch(health.is_well, lambda: _figures(door)))
        await stopping.wait()
        grace = config.server.drain_timeout if status == 0 else 0.0
        log.info("stopping: %d connections, at most %g seconds", door.connections, grace)
        notifier.stopping(f"stopping, {_figures(door)}", grace + _CLOSE_SECONDS)
        health.is_draining = True
        await door.drain(grace)
        watch.cancel()
    return status


def _figures(door: PlainDoor) -> str:
    return f"{door.connections} connections, {door.active} requests"


def _listen(config: Config) -> list[socket.socket]:
    """Return the sockets of the service manager, which stay open over restarts, or our own."""
    inherited = systemd.listening_sockets(os.environ)
    sockets = inherited.pop("http", [])
    if inherited:
        raise ConfigError(f"LISTEN_FDNAMES: nothing is served at {', '.join(inherited)}")
    if sockets:
        log.info("the service manager's sockets take the place of server.listen")
        return sockets
    return _bind(config)


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
) -> AsyncIterator[tuple[PlainDoor, Health]]:
    """Build everything over the state folder; take it down in reverse order."""
    with contextlib.ExitStack() as stack:
        metadata = LmdbMetadata(root / "metadata", config.metadata.map_size)
        stack.callback(metadata.close)
        storage = FilesystemStorage(root)
        stack.callback(storage.close)
        await _test_write(metadata)
        space = FreeSpace(root, config.storage.min_free)
        health = Health(metadata.probe, space.is_enough, on_fatal)
        await _ensure_administrator(config, root, metadata.accounts)
        authenticator = UserAuthenticator(metadata.accounts, _token_key(root))
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
            require_space=space.require,
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
            limits = Limits(
                header=config.server.header_timeout,
                keep_alive=config.server.idle_timeout,
                connections=config.server.max_connections,
            )
            application = logged(compose(v2, health), config.log.requests)
            yield PlainDoor(application, limits), health
            for task in tasks:
                task.cancel()


async def _test_write(metadata: LmdbMetadata) -> None:
    try:
        await metadata.test_write()
    except Unavailable as error:  # a full disk keeps nobody from pulling
        log.warning("start: %s", error)


def _token_key(root: Path) -> str:
    key = systemd.credential(os.environ, "token-key")
    if key and len(key) < _KEY_CHARACTERS:
        raise ConfigError(f"credential token-key: it has less than {_KEY_CHARACTERS} characters")
    return key or secret_file.ensure(root / "token-key")


async def _ensure_administrator(config: Config, root: Path, users: AccountStore) -> None:
    written = await ensure_administrator(
        users,
        hash_password,
        verify_password,
        configured_password=config.auth.admin_password
        or systemd.credential(os.environ, "admin-password"),
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
