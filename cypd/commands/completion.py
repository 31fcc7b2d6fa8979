"""``cypd completion``: scripts that make shells complete arguments."""

import argparse

import shtab

from cypd.commands.parser import parser
from cypd.config import Config

_PATHS = {"FILE": shtab.FILE, "FOLDER": shtab.DIRECTORY}


def run(_: Config, options: argparse.Namespace) -> int:
    """Print the script for a shell."""
    top = parser()
    _complete_paths(top)
    print(shtab.complete(top, shell=options.shell))
    return 0


def _complete_paths(parser: argparse.ArgumentParser) -> None:
    """Tell which arguments are files and folders; here, so that only this command loads shtab."""
    for action in parser._actions:  # argparse has no other way to walk over them
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                _complete_paths(inner)
        elif action.metavar in _PATHS:
            action.complete = _PATHS[action.metavar]  # type: ignore[attr-defined]  # its protocol
