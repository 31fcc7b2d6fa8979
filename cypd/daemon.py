"""A worker's life: it opens the doors, tells who supervises it, waits, and drains them."""

import asyncio
import fcntl
import logging
import os
import resource
import signal
from collections.abc import Sequence
from contextlib import suppress
from math import ceil
from pathlib import Path

import cypd
from cypd import garbage
from cypd.composition import registry
from cypd.config import Config, ConfigError
from cypd.doors.asgi import Application
from cypd.doors.plain import Limits, PlainDoor
from cypd.doors.tls import CertificateError, Certificates, TlsDoor
from cypd.exits import EXIT_FATAL
from cypd.registry.ports import Fatal
from cypd.sockets import Sockets, addresses
from cypd.state import require_root
from cypd.systemd import Notifier

log = logging.getLogger(__name__)

_SCRAPE_LIMITS = Limits(connections=100)
_CLOSE_SECONDS = 30.0  # after the last request: queued writes, and threads
_DESCRIPTORS = 3  # of a connection: its socket, that of a transfer, and a file

Doors = Sequence[PlainDoor | TlsDoor]


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


async def serve(config: Config, sockets: Sockets, notifier: Notifier) -> int:
    """Run the registry on sockets until SIGTERM or SIGINT; return the exit status.

    Raises ConfigError for a folder or a certificate that can't be used.
    """
    root = require_root(config)
    certificates = require_certificates(config)
    _allow_many_descriptors(config.server.max_connections)
    if sockets["https"] and certificates is None:
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
    async with registry(config, root, on_fatal) as running:
        health, tasks = running.health, list[asyncio.Task[None]]()
        doors = await _open(running.application, config, certificates, sockets)
        running.metrics.vitals.connections = lambda: _connections(doors)
        # Not eager: a scrape waits for others, and gives way to requests.
        scrapes = PlainDoor(running.scraped, _SCRAPE_LIMITS, eager=False)
        await scrapes.start(sockets["metrics"])
        if sockets["metrics"] or config.metrics.public:
            tasks.append(loop.create_task(running.metrics.watch()))
        served = addresses(sockets)
        garbage.settle()
        tasks.append(loop.create_task(garbage.collect(lambda: _connections(doors))))
        log.info("cypd %s serves %s, data in %s", cypd.__version__, served, root)
        notifier.ready(f"serves {served}")
        watch = notifier.watch(health.is_well, lambda: _figures(doors))
        tasks.append(loop.create_task(watch))
        await stopping.wait()
        grace = config.server.drain_timeout if status == 0 else 0.0
        log.info("stopping: %s, at most %g seconds", _figures(doors), grace)
        notifier.stopping(f"stopping, {_figures(doors)}", grace + _CLOSE_SECONDS)
        health.is_draining = True
        await asyncio.gather(*(door.drain(grace) for door in (*doors, scrapes)))
        for task in tasks:
            task.cancel()
    return status


def _figures(doors: Doors) -> str:
    return f"{_connections(doors)} connections, {sum(it.active for it in doors)} requests"


def _connections(doors: Doors) -> int:
    return sum(it.connections for it in doors)


def _allow_many_descriptors(connections: int) -> None:
    """Have room for so many connections, each with a file that it sends.

    Linux would double the table of descriptors when it is full, and a process with threads waits
    for an RCU grace period then (expand_fdtable): up to 50 ms in the middle of everything. Now
    there are no threads yet.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)  # the soft one is for select(2)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    highest = min(most, _DESCRIPTORS * connections) - 1
    with suppress(OSError):  # it is in use, or all of them are
        os.close(fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, highest))


async def _open(
    application: Application, config: Config, certificates: Certificates | None, sockets: Sockets
) -> Doors:
    limits = Limits(
        header=config.server.header_timeout,
        keep_alive=config.server.idle_timeout,
        connections=config.server.max_connections,
        connections_per_client=ceil(config.limits.connections_per_client / config.server.workers),
        shared=config.server.workers > 1,
    )
    doors: list[PlainDoor | TlsDoor] = []
    if certificates and sockets["https"]:
        doors.append(TlsDoor(application, certificates, limits))
        await doors[-1].start(sockets["https"])
    doors.append(PlainDoor(application, limits))
    await doors[-1].start(sockets["http"])
    return doors
