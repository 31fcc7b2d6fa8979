"""Log lines: one a record whatever a client sends, as text or JSON, with journald's priorities."""

import logging
import os
import random
import re
import sys
import threading
from collections.abc import Mapping
from typing import Any, TextIO

import orjson

log = logging.getLogger(__name__)

FIELDS = "fields"
"""The attribute of a record, given by ``extra``, that holds what JSON shows as keys of its own."""

# Together, as JSON and in the longest UTF-8, below what the journal takes for one line: 48 KiB
# (journald.conf(5), LineMax=). It would break a longer one into two, neither of them an object.
_MAX_MESSAGE = 4096  # characters
_MAX_TRACEBACK = 12_288  # bytes, the last ones
_MAX_LINES = 500  # of them
# As syslog(3) and sd-daemon(3) number them.
_PRIORITIES = {
    logging.CRITICAL: 2,
    logging.ERROR: 3,
    logging.WARNING: 4,
    logging.INFO: 6,
    logging.DEBUG: 7,
}
_TRACE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_ids = random.Random()  # noqa: S311 (they tell requests apart, and cost no system call)


def configure(level: str, form: str, environment: Mapping[str, str]) -> None:
    """Send the log of this process to standard error; also what nobody catches.

    ``level`` is our own; what libraries say starts at info, since to debug them is to see what they
    send: headers with what signs a request, bodies.
    """
    handler = logging.StreamHandler(sys.stderr)
    formatter: logging.Formatter = JsonFormatter() if form == "json" else TextFormatter()
    if is_journal(sys.stderr, environment):
        formatter = JournalFormatter(formatter)
    handler.setFormatter(formatter)
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(level=max(number, logging.INFO), handlers=[handler], force=True)
    logging.getLogger("cypd").setLevel(number)
    logging.captureWarnings(True)
    sys.excepthook = lambda *error: log.critical("unexpected end", exc_info=error)
    threading.excepthook = lambda args: log.critical(
        "unexpected end of %s", args.thread, exc_info=args.exc_value
    )
    sys.unraisablehook = lambda args: log.error(
        "%s: %r", args.err_msg or "not raised", args.object, exc_info=args.exc_value
    )


def is_journal(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Tell whether a stream ends in systemd's journal (systemd.exec(5), ``JOURNAL_STREAM``)."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environment.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def printable(text: str, limit: int = _MAX_MESSAGE) -> str:
    """Return text that no terminal, journal or line splitter takes for more than letters.

    Control characters, ANSI among them, line separators, and what changes the direction of writing
    become escapes; what is longer than ``limit`` characters then is cut.
    """
    shown = text[: limit + 1]
    if not shown.isprintable():
        shown = "".join(map(_escaped, shown))
    return shown if len(shown) <= limit else shown[:limit] + "…"


def _escaped(letter: str) -> str:
    return letter if letter.isprintable() else letter.encode("unicode_escape").decode()


def trace_id(scope: dict[str, Any]) -> str:
    """Return what a request goes by in the log and in its answer: the client's word, or ours."""
    known: str | None = scope.get("cypd.trace_id")
    if known is None:
        given = next((v.decode("latin-1") for k, v in scope["headers"] if k == b"x-request-id"), "")
        known = given if _TRACE_ID.fullmatch(given) else f"{_ids.getrandbits(32):08x}"
        scope["cypd.trace_id"] = known
    return known


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> list[str]:
    if not record.exc_info:
        return []
    # Not splitlines(): what else that takes for the end of a line becomes an escape.
    lines = formatter.formatException(record.exc_info).split("\n")
    text = "\n".join(map(printable, lines)).encode()
    return text[-_MAX_TRACEBACK:].decode(errors="ignore").split("\n")[-_MAX_LINES:]


class TextFormatter(logging.Formatter):
    """For people. A traceback's lines are indented, so that none of them passes for a record."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: ")

    def format(self, record: logging.LogRecord) -> str:
        record.asctime = self.formatTime(record)
        lines = [self.formatMessage(record) + printable(record.getMessage())]
        return "\n    ".join(lines + _traceback(self, record))


class JsonFormatter(logging.Formatter):
    """For programs: each record is one object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = getattr(record, FIELDS, {})
        document: dict[str, Any] = {
            "time": record.created,
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": printable(record.getMessage()),
            **{k: printable(v) if isinstance(v, str) else v for k, v in fields.items()},
        }
        if traceback := _traceback(self, record):
            document["traceback"] = traceback
        return orjson.dumps(document).decode()


class JournalFormatter(logging.Formatter):
    """Puts its priority before each line, as sd-daemon(3) has it; the journal takes it off."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        priority = _PRIORITIES.get(record.levelno, 6)
        lines = self._inner.format(record).split("\n")
        return "\n".join(f"<{priority}>{line}" for line in lines)
