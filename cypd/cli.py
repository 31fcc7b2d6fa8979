"""The command line: arguments in, a call, an exit status out."""

import importlib
import logging
import os
import sys

from cypd.commands.parser import parser
from cypd.config import ConfigError, load
from cypd.exits import EXIT_CONFIG, EXIT_FATAL
from cypd.refusals import Refusal
from cypd.registry.ports import Fatal, Unavailable

log = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    options = parser().parse_args(arguments)
    try:
        config = load(options.config, os.environ)
        # Only what is asked for is loaded: a container's health check starts every few seconds.
        module, _, function = options.command.partition(":")
        command = getattr(importlib.import_module(f"cypd.commands.{module}"), function)
        status: int = command(config, options)
    except ConfigError as error:
        _complain(error)
        return EXIT_CONFIG
    except Fatal as error:
        _complain(error)
        return EXIT_FATAL
    except (Refusal, Unavailable) as error:
        fields = error.errors if isinstance(error, Refusal) else ()
        told = "; ".join(f"{it.field}: {it.message}" for it in fields)
        print(f"cypd: {told or error}", file=sys.stderr)
        return 1
    return status


def _complain(error: Exception) -> None:
    """Say what ends the command: in the log's form where there is one, else to who typed it."""
    if logging.getLogger().handlers:
        log.critical("%s", error)
    else:
        print(f"cypd: {error}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
