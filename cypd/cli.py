"""The command line: arguments in, a call, an exit status out."""

import argparse
import asyncio
import faulthandler
import logging
import os
import sys
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import uvloop

import cypd
from cypd import logs
from cypd.commands import projects, users
from cypd.config import Config, ConfigError, load
from cypd.daemon import EXIT_FATAL, require_certificates, require_root, serve
from cypd.refusals import Refusal
from cypd.registry.ports import Fatal, Unavailable

log = logging.getLogger(__name__)

EXIT_CONFIG = 78  # sysexits.h EX_CONFIG; systemd's RestartPreventExitStatus knows it


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        config = load(options.config, os.environ)
        status: int = options.command(config, options)
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cypd",
        description="A storage-optimised OCI registry daemon for one host.",
        epilog="Each key of the configuration file can be set in the environment as well: "
        "CYPD_<SECTION>_<KEY>, for example CYPD_SERVER_LISTEN=0.0.0.0:5000.",
    )
    parser.add_argument("--version", action="version", version=f"cypd {cypd.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("serve", help="run the registry", description="Run the registry.")
    _add_config(run)
    run.set_defaults(command=_serve)

    ask = commands.add_parser(
        "health",
        help="ask the running daemon whether it is ready",
        description="Ask the daemon at the first address of server.listen whether it is ready: "
        "0 if so, else 1 and what keeps it from being so.",
    )
    _add_config(ask)
    ask.set_defaults(command=_health)

    configuration = commands.add_parser("config", help="look at the configuration")
    checks = configuration.add_subparsers(required=True, metavar="COMMAND")
    check = checks.add_parser(
        "check",
        help="tell whether the configuration can be used",
        description="Tell whether the configuration can be used: 0 if so, else 78 and the reason.",
    )
    _add_config(check)
    check.set_defaults(command=_check)

    projects.add(commands, _add_config)
    users.add(commands, _add_config)
    return parser


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="TOML file; without it, all defaults hold"
    )


def _serve(config: Config, _: argparse.Namespace) -> int:
    logs.configure(config.log.level, config.log.format, os.environ)
    faulthandler.enable()  # the watchdog's SIGABRT then shows where each thread hangs
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve(config))


def _health(config: Config, _: argparse.Namespace) -> int:
    host, port = config.server.addresses()[0]
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (not bound to)
    connection = HTTPConnection(here, port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        print(response.read(100).decode(errors="replace").strip())
    except (OSError, HTTPException) as error:
        print(f"cypd: nobody answers at {host}:{port}: {error}", file=sys.stderr)
        return 1
    finally:
        connection.close()
    return 0 if response.status == HTTPStatus.OK else 1


def _check(config: Config, _: argparse.Namespace) -> int:
    root = require_root(config)
    require_certificates(config)
    addresses = ", ".join(
        (*config.server.listen, *(f"{it} (TLS)" for it in config.server.tls_listen))
    )
    print(f"The configuration is good. Listens on {addresses}, data in {root}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
