"""A worker's process: ``python -m cypd.worker``.

The supervisor starts it with orders. Started by hand it is the whole registry in one process, with
a configuration and sockets of its own.
"""

import argparse
import asyncio
import ctypes
import faulthandler
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop
from msgspec.structs import replace

from cypd import logs, orders
from cypd.config import Config, ConfigError, load
from cypd.daemon import serve
from cypd.exits import EXIT_CONFIG, EXIT_FATAL, end_undisturbed
from cypd.registry.ports import Fatal
from cypd.sockets import Listeners, Sockets
from cypd.systemd import Notifier

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the worker and return its exit status."""
    parser = argparse.ArgumentParser(prog="cypd.worker", description="Run one worker.")
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file")
    parser.add_argument("--supervised", action="store_true", help="orders come by standard input")
    options = parser.parse_args(arguments)
    faulthandler.enable()  # the watchdog's SIGABRT then shows where each thread hangs
    try:
        config, sockets, notifier = _obey() if options.supervised else _prepare(options.config)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            status = runner.run(serve(config, sockets, notifier))
    except ConfigError as error:
        log.critical("%s", error)
        return EXIT_CONFIG
    except Fatal as error:
        log.critical("%s", error)
        return EXIT_FATAL
    end_undisturbed()
    return status


def _prepare(file: Path | None) -> tuple[Config, Sockets, Notifier]:
    config = load(file, os.environ)
    config = replace(config, server=replace(config.server, workers=1))
    logs.configure(config.log.level, config.log.format, os.environ)
    notifier = Notifier(os.environ)
    return config, Listeners(os.environ).at(config), notifier


def _obey() -> tuple[Config, Sockets, Notifier]:
    it = orders.decoded(sys.stdin.buffer.read())
    _end_with(it.supervisor)
    # It goes to all processes of a terminal; what follows from it is the supervisor's to say.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    logs.configure(it.config.log.level, it.config.log.format, os.environ)
    sockets = {role: [_socket(fd) for fd in some] for role, some in it.sockets.items()}
    return it.config, sockets, Notifier.over(_socket(it.notify), it.watchdog)


def _end_with(supervisor: int) -> None:
    """Have the kernel end this process with its supervisor: nobody would watch it any more.

    At once, as when the power fails: by then the service manager starts the next one.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:  # it has ended meanwhile
        os.kill(os.getpid(), signal.SIGKILL)


def _socket(descriptor: int) -> socket.socket:
    os.set_inheritable(descriptor, False)
    found = socket.socket(fileno=descriptor)
    found.setblocking(False)
    return found


if __name__ == "__main__":
    sys.exit(main())
