"""The daemon's life: it opens the doors, tells the service manager, waits, and drains them."""

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

import cypd
from cypd import systemd
from cypd.composition import registry
from cypd.config import Config, ConfigError
from cypd.doors.asgi import Application
from cypd.doors.plain import Limits, PlainDoor, bind
from cypd.doors.tls import CertificateError, Certificates, TlsDoor
from cypd.exits import EXIT_FATAL
from cypd.registry.ports import Fatal

log = logging.getLogger(__name__)

_CLOSE_SECONDS = 30.0  # after the last request: queued writes, and threads

Doors = Sequence[PlainDoor | TlsDoor]


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
    """Return the files of the TLS door, if there are any.

    Raises ConfigError for what is missing, can't be read or does not fit together.
    """
    settings = config.tls
    if not (settings.certificate or settings.key or config.server.tls_listen):
        return None
    for key in ("certificate", "key"):
        if not getattr(settings, key):
            raise ConfigError(f"tls.{key}: server.tls_listen needs a PEM file here")
    client_ca = Path(settings.client_ca) if settings.client_ca else None
    found = Certificates(Path(settings.certificate), Path(settings.key), client_ca)
    try:
        found.check()
    except CertificateError as error:
        raise ConfigError(f"tls.{error.role}: {error}") from None
    return found


async def serve(config: Config) -> int:
    """Run the registry until SIGTERM or SIGINT; return the exit status.

    SIGHUP reads the certificates again. Raises ConfigError for a folder, an address or a
    certificate that can't be used.
    """
    notifier = systemd.Notifier(os.environ)
    root = require_root(config)
    certificates = require_certificates(config)
    _allow_many_descriptors()
    plain, tls = _listen(config)
    if tls and certificates is None:
        raise ConfigError("tls.certificate: a socket for TLS needs a PEM file here")
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
    async with registry(config, root, on_fatal) as (application, health):
        doors = await _open(application, config, certificates, plain, tls)
        gc.freeze()  # what was built to stay need not be looked at again by the collector
        addresses = _addresses(plain, tls)
        log.info("cypd %s serves %s, data in %s", cypd.__version__, addresses, root)
        notifier.ready(f"serves {addresses}")
        watch = loop.create_task(notifier.watch(health.is_well, lambda: _figures(doors)))
        await stopping.wait()
        grace = config.server.drain_timeout if status == 0 else 0.0
        log.info("stopping: %s, at most %g seconds", _figures(doors), grace)
        notifier.stopping(f"stopping, {_figures(doors)}", grace + _CLOSE_SECONDS)
        health.is_draining = True
        await asyncio.gather(*(door.drain(grace) for door in doors))
        watch.cancel()
    return status


def _figures(doors: Doors) -> str:
    connections, active = sum(it.connections for it in doors), sum(it.active for it in doors)
    return f"{connections} connections, {active} requests"


def _allow_many_descriptors() -> None:
    # A connection is a descriptor. The soft limit is low for programs that use select(2) alone.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


# --- sockets ------------------------------------------------------------------------------------


def _listen(config: Config) -> tuple[list[socket.socket], list[socket.socket]]:
    """Return the sockets for plain HTTP and for TLS: the service manager's, or our own.

    Its own stay open over restarts. The doors close what is returned.
    """
    inherited = systemd.listening_sockets(os.environ)
    plain, tls = inherited.pop("http", []), inherited.pop("https", [])
    if inherited:
        raise ConfigError(f"LISTEN_FDNAMES: nothing is served at {', '.join(inherited)}")
    if plain or tls:
        log.info("the service manager's sockets take the place of server.listen and tls_listen")
        return plain, tls
    with contextlib.ExitStack() as bound:
        plain = _bind("server.listen", config.server.addresses(), bound)
        tls = _bind("server.tls_listen", config.server.tls_addresses(), bound)
        bound.pop_all()
    return plain, tls


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


def _addresses(plain: list[socket.socket], tls: list[socket.socket]) -> str:
    found = [f"http://{_address(it)}" for it in plain]
    return ", ".join(found + [f"https://{_address(it)}" for it in tls])


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# --- doors --------------------------------------------------------------------------------------


async def _open(
    application: Application,
    config: Config,
    certificates: Certificates | None,
    plain: list[socket.socket],
    tls: list[socket.socket],
) -> Doors:
    limits = Limits(
        header=config.server.header_timeout,
        keep_alive=config.server.idle_timeout,
        connections=config.server.max_connections,
    )
    doors: list[PlainDoor | TlsDoor] = []
    if certificates and tls:
        doors.append(await _open_tls(application, certificates, limits, tls))
    doors.append(PlainDoor(application, limits))
    await doors[-1].start(plain)
    return doors


async def _open_tls(
    application: Application, certificates: Certificates, limits: Limits, tls: list[socket.socket]
) -> TlsDoor:
    door = TlsDoor(application, certificates, limits)
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
