"""Every command with its arguments, and which function of which module here carries it out.

Each is carried out by a ``module:function`` that gets the configuration and the arguments, and
returns the exit status.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import cypd
from cypd.commands.sizes import parse_quota, parse_size

_JSON = "print JSON"
_SIZES = "print JSON, sizes in bytes"


class Misuse(Exception):
    """Arguments that there are not; ``usage`` shows those that there are."""

    def __init__(self, message: str, usage: str) -> None:
        super().__init__(message)
        self.usage = usage


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Misuse(message, self.format_usage())


if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[_Parser]


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line; ``command`` of what it parses is set."""
    top = _Parser(
        prog="cypd",
        description="A storage-optimised OCI registry daemon for one host.",
        epilog="Each key of the configuration file can be set in the environment as well: "
        "CYPD_<SECTION>_<KEY>, for example CYPD_SERVER_LISTEN=0.0.0.0:5000.",
    )
    top.add_argument("--version", action="version", version=f"cypd {cypd.__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    _command(commands, "serve", "serve:run", "run the registry")
    _command(
        commands,
        "health",
        "health:run",
        "ask the running daemon whether it is ready",
        "Ask the daemon at the first address of server.listen whether it is ready: "
        "0 if so, else 1 and what keeps it from being so.",
        json=_JSON,
    )
    _add_status(commands)
    _add_backup(commands)
    _add_configuration(commands)
    _add_projects(commands)
    _add_scrub(commands)
    _add_storage(commands)
    _add_users(commands)
    _add_completion(commands)
    _add_vulndb(commands)
    return top


def _command(
    commands: "Commands",
    name: str,
    command: str,
    told: str,
    description: str = "",
    *,
    json: str = "",
) -> argparse.ArgumentParser:
    """Add a command: ``told`` stands in the list, ``description`` in its own help.

    ``json`` is what --json does; without it there is no such option.
    """
    added = _bare_command(commands, name, command, told, description)
    added.add_argument(
        "--config", type=Path, metavar="FILE", help="TOML file; without it, all defaults hold"
    )
    if json:
        added.add_argument("--json", action="store_true", help=json)
    return added


def _bare_command(
    commands: "Commands", name: str, command: str, told: str, description: str
) -> argparse.ArgumentParser:
    """Add one that has nothing to do with a configuration."""
    added = commands.add_parser(
        name, help=told, description=description or f"{told[0].upper()}{told[1:]}."
    )
    added.set_defaults(command=command)
    return added


def _group(commands: "Commands", name: str, told: str) -> "Commands":
    """Add a word that other commands stand behind."""
    return commands.add_parser(name, help=told).add_subparsers(required=True, metavar="COMMAND")


def _add_status(commands: "Commands") -> None:
    status = _command(
        commands,
        "status",
        "status:run",
        "show what the running daemon is doing",
        "Show what the running daemon is doing, anew each second until q or Ctrl-C ends that; or "
        "once, where no terminal is. Asks at the first address of server.metrics_listen.",
        json="print JSON, once; bytes and seconds",
    )
    status.add_argument("--once", action="store_true", help="show it once")


def _add_completion(commands: "Commands") -> None:
    completion = _bare_command(
        commands,
        "completion",
        "completion:run",
        "print what makes a shell complete cypd's arguments",
        "Print a script that makes a shell complete cypd's arguments.",
    )
    completion.add_argument("shell", choices=("bash", "zsh", "fish"), help="which one")


def _add_backup(commands: "Commands") -> None:
    backup = _command(
        commands,
        "backup",
        "backup:run",
        "copy everything to another folder",
        "Copy everything to another folder, beside the running daemon: what is new since the last "
        "time. The copy is a state folder itself: to restore it, serve it, or put it in the place "
        "of the lost one.",
        json=_SIZES,
    )
    backup.add_argument(
        "folder", type=Path, metavar="FOLDER", help="where to; a new folder, or an earlier backup"
    )
    _add_copying(backup)


def _add_copying(command: argparse.ArgumentParser) -> None:
    """Add how blobs are copied."""
    command.add_argument(
        "--jobs", type=int, choices=range(1, 65), default=4, metavar="N",
        help="blobs that are copied at a time, 1 to 64 (4)",
    )  # fmt: skip
    command.add_argument(
        "--verify",
        action="store_true",
        help="read what is there already, and replace what is wrong",
    )
    _add_rate(command)


def _add_rate(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--limit-rate", type=parse_size, default=0, metavar="BYTES",
        help="bytes a second, also as 50MiB; without it, as fast as it goes",
    )  # fmt: skip


def _add_configuration(commands: "Commands") -> None:
    _command(
        _group(commands, "config", "look at the configuration"),
        "check",
        "configuration:check",
        "tell whether the configuration can be used",
        "Tell whether the configuration can be used: 0 if so, else 78 and the reason.",
        json=_JSON,
    )


def _add_projects(commands: "Commands") -> None:
    actions = _group(commands, "project", "look after projects and their quotas")
    _command(
        actions,
        "list",
        "projects:show_all",
        "list the projects",
        "List the projects, with what they take.",
        json=_SIZES,
    )
    quota = _command(
        actions,
        "quota",
        "projects:quota",
        "show or set a project's quota",
        "Show what a project takes of its quota, or set the quota; it holds at once.",
        json=_SIZES,
    )
    quota.add_argument("name", help="the project's name")
    quota.add_argument(
        "bytes",
        nargs="?",
        type=parse_quota,
        help="bytes, also as 512MiB, 10GiB or 2TiB; or unlimited",
    )


def _add_scrub(commands: "Commands") -> None:
    scrub = _command(
        commands,
        "scrub",
        "scrub:run",
        "read all blobs, and find those that are damaged",
        "Read every blob that is in use where it is kept, beside the running daemon, and set aside "
        "what is damaged, so that a push heals it. The daemon does this by itself, see [scrub].",
        json=_SIZES,
    )
    _add_rate(scrub)


def _add_storage(commands: "Commands") -> None:
    migrate = _command(
        _group(commands, "storage", "move blobs from one storage to another"),
        "migrate",
        "storage:migrate",
        "copy all blobs to another storage",
        "Copy all blobs that are in use to another storage, beside the running daemon. What is "
        "there already is left alone: repeat it at will, also after it was cut off.",
        json=_SIZES,
    )
    migrate.add_argument("--to", required=True, choices=("filesystem", "s3"), help="where to")
    _add_copying(migrate)
    migrate.add_argument(
        "--remove-source", action="store_true", help="empty the other storage when all is copied"
    )


def _add_users(commands: "Commands") -> None:
    actions = _group(commands, "user", "make accounts and look after them")

    def add(name: str, command: str, told: str) -> argparse.ArgumentParser:
        added = _command(actions, name, f"users:{command}", told, json=_JSON)
        added.set_defaults(action=name)
        if name != "list":
            added.add_argument("name", help="the user's name")
        if name in ("add", "passwd"):
            added.add_argument(
                "--password-stdin",
                action="store_true",
                help="read the password from standard input",
            )
        return added

    add("list", "show_all", "list the users")
    adding = add("add", "add", "make an account")
    adding.add_argument("--email", default="", help="the user's email address")
    adding.add_argument("--admin", action="store_true", help="make an administrator")
    add("passwd", "set_password", "set a password, which ends all sessions")
    add("disable", "disable", "keep a user out, sessions and tokens included")
    add("enable", "enable", "let a disabled user in again")
    add("reset-mfa", "reset_mfa", "take a lost second factor from a user")


def _add_vulndb(commands: "Commands") -> None:
    actions = _group(commands, "vulndb", "get the vulnerability data that images are compared with")
    importing = _command(
        actions,
        "import",
        "vulndb:import_files",
        "import files in OSV's format",
        "Import files in OSV's format: an ecosystem's all.zip, which replaces what there was of "
        "it, or single records as JSON, which add to it.",
        json=_JSON,
    )
    importing.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a .zip or .json")
    update = _command(
        actions,
        "update",
        "vulndb:update",
        "download what has changed, and import it",
        "Download what has changed of ecosystems below scanning.update_url, and import it.",
        json=_JSON,
    )
    update.add_argument(
        "ecosystems",
        nargs="*",
        metavar="ECOSYSTEM",
        help="PyPI, npm, Go, Maven, RubyGems, crates.io, Debian:12, Alpine:v3.20 and the like; "
        "those that were imported before, if none is named",
    )
    _command(actions, "status", "vulndb:status", "show what was imported", json=_JSON)
