"""The command line: arguments in, a call, an exit status out."""

import importlib
import logging
import os
import sys

from cypd.commands.output import Failed, complain
from cypd.commands.parser import Misuse, parser
from cypd.config import Config, ConfigError, load
from cypd.exits import EXIT_CONFIG, EXIT_FATAL, EXIT_USAGE
from cypd.refusals import Refusal
from cypd.registry.ports import Fatal, Unavailable

log = logging.getLogger(__name__)

_STATUS: dict[type[Exception], int] = {
    Misuse: EXIT_USAGE,
    ConfigError: EXIT_CONFIG,
    Fatal: EXIT_FATAL,
    Refusal: 1,
    Unavailable: 1,
    Failed: 1,
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        return _run(given)
    except tuple(_STATUS) as error:
        _complain(error, as_json="--json" in given)
        return next(status for kind, status in _STATUS.items() if isinstance(error, kind))
    except KeyboardInterrupt:
        return 130  # as a shell reports SIGINT
    except BrokenPipeError:  # `cypd … | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or exit flushes into it
        return 141  # as a shell reports SIGPIPE


def _run(given: list[str]) -> int:
    options = parser().parse_args(given)
    config = load(options.config, os.environ) if "config" in options else Config()
    # Only what is asked for is loaded: a container's health check starts every few seconds.
    module, _, function = options.command.partition(":")
    command = getattr(importlib.import_module(f"cypd.commands.{module}"), function)
    status: int = command(config, options)
    sys.stdout.flush()
    return status


def _complain(error: Exception, *, as_json: bool) -> None:
    """Say what ends the command: in the log's form where there is one, else to who typed it."""
    if logging.getLogger().handlers:
        log.critical("%s", error)
        return
    if isinstance(error, Misuse) and not as_json:
        print(error.usage, file=sys.stderr, end="")
    fields = error.errors if isinstance(error, Refusal) else ()
    told = "; ".join(f"{it.field}: {it.message}" for it in fields)
    complain(told or str(error), as_json=as_json)


if __name__ == "__main__":
    sys.exit(main())
