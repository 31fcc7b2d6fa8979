"""``cypd serve``: run the registry."""

import argparse
import asyncio
import faulthandler
import os

from cypd import logs
from cypd.config import Config, load
from cypd.exits import end_undisturbed
from cypd.sockets import Listeners
from cypd.state import require_root
from cypd.supervisor import Supervisor
from cypd.systemd import Notifier


def run(config: Config, options: argparse.Namespace) -> int:
    """Serve until a signal ends it."""
    logs.configure(config.log.level, config.log.format, os.environ)
    faulthandler.enable()  # the watchdog's SIGABRT then shows where it hangs

    def configure() -> Config:
        read = load(options.config, os.environ)
        require_root(read)
        return read

    # Both take their variables out of the environment, before a worker gets it.
    notifier, listeners = Notifier(os.environ), Listeners(os.environ)
    status = asyncio.run(Supervisor(configure, listeners, notifier).run())
    end_undisturbed()
    return status
