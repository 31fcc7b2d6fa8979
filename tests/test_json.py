"""``--json``: whatever comes of a command, a program can read it."""

import argparse
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cypd.commands.parser import parser
from tests.daemon import CYPD, Daemon, free_port
from tests.test_cli import run

COMMANDS = (
    ("health",),
    ("config", "check"),
    ("project", "list"),
    ("project", "quota", "library"),
    ("user", "list"),
    ("user", "disable", "nobody"),
)

SILENT = {
    "serve": "it tells nothing but its log, which log.format makes JSON",
    "completion": "a shell reads what it prints",
}


def document(text: str) -> Any:
    """Return what a line of output holds."""
    [line] = text.splitlines()
    return json.loads(line)


def leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield the parser of each command."""
    groups = [it for it in parser._actions if isinstance(it, argparse._SubParsersAction)]
    if not groups:
        yield parser
    for group in groups:
        for inner in group.choices.values():
            yield from leaves(inner)


def test_every_command_has_it() -> None:
    """No command is without ``--json`` but those that are named here, with the reason."""
    commands = list(leaves(parser()))
    without = {
        it.prog.removeprefix("cypd ")
        for it in commands
        if "--json" not in it._option_string_actions
    }

    assert len(commands) > 15
    assert without == SILENT.keys()


def test_health_is_told(tmp_path: Path) -> None:
    """Ready or not, and why not."""
    floor = {"CYPD_STORAGE_MIN_FREE": str(1 << 60)}
    for settings, ready, trouble in (({}, True, ""), (floor, False, "disk")):
        with Daemon(tmp_path, settings) as daemon:
            done = run("health", "--json", folder=tmp_path, environment=daemon.environment)
        assert (done.returncode, done.stderr) == (0 if ready else 1, "")
        assert document(done.stdout) == {"ready": ready, "trouble": trouble}


def test_a_configuration_is_told(tmp_path: Path) -> None:
    """Where it listens, and where data goes."""
    addresses = {
        "CYPD_SERVER_LISTEN": "127.0.0.1:5000,[::1]:5001",
        "CYPD_SERVER_METRICS_LISTEN": "127.0.0.1:5001",
    }
    done = run("config", "check", "--json", folder=tmp_path, environment=addresses)
    told = document(done.stdout)

    assert (done.returncode, done.stderr) == (0, "")
    assert told["listen"] == ["127.0.0.1:5000", "[::1]:5001"]
    assert (told["tls_listen"], told["metrics_listen"]) == ([], ["127.0.0.1:5001"])
    assert told["root"] == f"{tmp_path}/data"


@pytest.mark.parametrize("command", COMMANDS[:3], ids=" ".join)
@pytest.mark.parametrize(
    ("settings", "more", "status"),
    [
        ({}, ("--no-such-option",), 2),
        ({"CYPD_SERVER_LISTN": "x"}, (), 78),
        ({}, ("--config", "a\nfile \x1b[31m"), 78),
    ],
)
def test_an_error_is_an_object(
    tmp_path: Path,
    command: tuple[str, ...],
    settings: dict[str, str],
    more: tuple[str, ...],
    status: int,
) -> None:
    """It is on standard error, nothing is on standard output, and the status is what it was."""
    plain = run(*command, *more, folder=tmp_path, environment=settings)
    done = run(*command, "--json", *more, folder=tmp_path, environment=settings)

    assert (done.returncode, plain.returncode, done.stdout) == (status, status, "")
    assert set(document(done.stderr)) == {"error"}
    assert plain.stderr.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("command", "status"),
    [(COMMANDS[0], 1), *((it, 78) for it in COMMANDS[2:])],
    ids=lambda it: " ".join(it) if isinstance(it, tuple) else str(it),
)
def test_what_is_not_there_is_an_error(
    tmp_path: Path, command: tuple[str, ...], status: int
) -> None:
    """No daemon, no registry: an object says so."""
    settings = {"CYPD_SERVER_LISTEN": f"127.0.0.1:{free_port()}"}
    done = run(*command, "--json", folder=tmp_path, environment=settings)

    assert (done.returncode, done.stdout) == (status, "")
    assert document(done.stderr)["error"]


def test_a_reader_may_leave_early(tmp_path: Path) -> None:
    """What is written into a pipe that nobody reads any more ends without a word."""
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as pipe:
        done = subprocess.run(
            [CYPD, "config", "check"],
            cwd=tmp_path,
            stdout=pipe,
            stderr=subprocess.PIPE,
            timeout=20,
            check=False,
        )

    assert (done.returncode, done.stderr) == (141, b"")
