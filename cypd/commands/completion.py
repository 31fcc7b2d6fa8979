"""``cypd completion``: scripts that make shells complete arguments."""

import argparse

import shtab

from cypd.commands.parser import parser
from cypd.config import Config


def run(_: Config, options: argparse.Namespace) -> int:
    """Print the script for a shell."""
    top = parser()
    _complete_files(top)
    print(shtab.complete(top, shell=options.shell))
    return 0


def _complete_files(parser: argparse.ArgumentParser) -> None:
    """Tell which arguments are files; here, so that no other command has to load shtab for it."""
    for action in parser._actions:  # argparse has no other way to walk over them
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                _complete_files(inner)
        elif action.metavar == "FILE":
            action.complete = shtab.FILE  # type: ignore[attr-defined]  # its protocol
