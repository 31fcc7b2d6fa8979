"""What commands print: a few lines for people, or with ``--json`` one document for programs.

A document goes to standard output; an error is one line, or ``{"error": …}``, on standard error,
and the exit status says which kind. So what stands on standard output is never half of something.
"""

import sys

import orjson

from cypd.logs import printable


class Failed(Exception):
    """The command could not do what it was asked for; the message says why."""


def tell(document: object) -> None:
    """Print a document."""
    print(orjson.dumps(document).decode())


def complain(message: str, *, as_json: bool) -> None:
    """Print what ends a command."""
    said = printable(message)
    text = orjson.dumps({"error": said}).decode() if as_json else f"cypd: {said}"
    print(text, file=sys.stderr)
