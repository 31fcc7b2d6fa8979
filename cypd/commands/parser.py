"""Every command with its arguments, and which function of which module here carries it out.

Each is carried out by a ``module:function`` that gets the configuration and the arguments, and
returns the exit status.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import cypd
from cypd.commands.sizes import parse_quota

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line; ``command`` of what it parses is set."""
    top = argparse.ArgumentParser(
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
    )
    _add_configuration(commands)
    _add_projects(commands)
    _add_users(commands)
    return top


def _command(
    commands: "Commands", name: str, command: str, told: str, description: str = ""
) -> argparse.ArgumentParser:
    """Add a command: ``told`` stands in the list, ``description`` in its own help."""
    added = commands.add_parser(
        name, help=told, description=description or f"{told[0].upper()}{told[1:]}."
    )
    added.add_argument(
        "--config", type=Path, metavar="FILE", help="TOML file; without it, all defaults hold"
    )
    added.set_defaults(command=command)
    return added


def _group(commands: "Commands", name: str, told: str) -> "Commands":
    """Add a word that other commands stand behind."""
    return commands.add_parser(name, help=told).add_subparsers(required=True, metavar="COMMAND")


def _add_configuration(commands: "Commands") -> None:
    _command(
        _group(commands, "config", "look at the configuration"),
        "check",
        "configuration:check",
        "tell whether the configuration can be used",
        "Tell whether the configuration can be used: 0 if so, else 78 and the reason.",
    )


def _add_projects(commands: "Commands") -> None:
    actions = _group(commands, "project", "look after projects and their quotas")
    listing = _command(
        actions,
        "list",
        "projects:show_all",
        "list the projects",
        "List the projects, with what they take.",
    )
    quota = _command(
        actions,
        "quota",
        "projects:quota",
        "show or set a project's quota",
        "Show what a project takes of its quota, or set the quota; it holds at once.",
    )
    quota.add_argument("name", help="the project's name")
    quota.add_argument(
        "bytes",
        nargs="?",
        type=parse_quota,
        help="bytes, also as 512MiB, 10GiB or 2TiB; or unlimited",
    )
    for each in (listing, quota):
        each.add_argument("--json", action="store_true", help="print JSON, sizes in bytes")


def _add_users(commands: "Commands") -> None:
    actions = _group(commands, "user", "make accounts and look after them")

    def add(name: str, command: str, told: str) -> argparse.ArgumentParser:
        added = _command(actions, name, f"users:{command}", told)
        added.add_argument("--json", action="store_true", help="print JSON")
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
