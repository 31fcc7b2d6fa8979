"""``cypd serve``: run the registry."""

import argparse
import asyncio
import faulthandler
import os

import uvloop

from cypd import logs
from cypd.config import Config
from cypd.daemon import serve


def run(config: Config, _: argparse.Namespace) -> int:
    """Serve until a signal ends it."""
    logs.configure(config.log.level, config.log.format, os.environ)
    faulthandler.enable()  # the watchdog's SIGABRT then shows where each thread hangs
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve(config))
