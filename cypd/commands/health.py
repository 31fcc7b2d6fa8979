"""``cypd health``: ask the running daemon whether it is ready."""

import argparse
from http import HTTPStatus

from cypd.commands.ask import ask
from cypd.commands.output import tell
from cypd.config import Config
from cypd.logs import printable


def run(config: Config, options: argparse.Namespace) -> int:
    """Ask at the first plain address."""
    status, body = ask(config.server.addresses()[0], "/readyz", most=100)
    is_ready = status == HTTPStatus.OK
    word = printable(body.decode(errors="replace").strip())
    if options.json:
        tell({"ready": is_ready, "trouble": "" if is_ready else word})
    else:
        print(word)
    return 0 if is_ready else 1
