"""A terminal that shows one page at a time, and is left as it was found."""

import contextlib
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Mapping, Sequence
from types import FrameType, TracebackType
from typing import Any, Self, TextIO

# ECMA-48 and xterm's control sequences, which every terminal that is not dumb knows.
_ENTER = "\x1b[?1049h\x1b[?25l"  # the other buffer, without a cursor
_LEAVE = "\x1b[?25h\x1b[?1049l"
_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


def is_screen(environment: Mapping[str, str], *streams: TextIO) -> bool:
    """Tell whether pages can be shown: all streams are a terminal, and not a dumb one."""
    return environment.get("TERM", "dumb") != "dumb" and all(it.isatty() for it in streams)


class Screen:
    """The terminal of standard input and output, while it is entered.

    SIGTERM and SIGHUP end the process by way of SystemExit meanwhile, so that the terminal is
    restored; SIGINT by way of KeyboardInterrupt, as always.
    """

    def __init__(self) -> None:
        self._input = sys.stdin.fileno()
        self._settings: list[Any] = []
        self._handlers: dict[signal.Signals, Any] = {}
        self._end: BaseException | None = None

    def __enter__(self) -> Self:
        self._settings = termios.tcgetattr(self._input)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._handlers[number] = signal.signal(number, self._leave)
        tty.setcbreak(self._input)
        settings = termios.tcgetattr(self._input)
        settings[6][termios.VSUSP] = b"\x00"  # Ctrl-Z would leave the other buffer behind
        termios.tcsetattr(self._input, termios.TCSANOW, settings)
        self._write(_ENTER)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError, termios.error):  # it may have hung up
            self._write(_LEAVE)
            # What was typed meanwhile is not meant for the shell.
            termios.tcsetattr(self._input, termios.TCSAFLUSH, self._settings)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def show(self, lines: Sequence[str]) -> None:
        """Show lines from the top on; what does not fit is cut."""
        columns, rows = os.get_terminal_size(sys.stdout.fileno())
        # A terminal that does not know its size says 0.
        shown = [line[: columns or 80] for line in lines[: rows or 24]]
        self._write(_HOME + "\n".join(line + _CLEAR_LINE for line in shown) + _CLEAR_BELOW)

    def is_left(self, seconds: float) -> bool:
        """Wait that long; tell, at once, if the user wants to leave: q, Ctrl-D, or hanging up."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._end:  # raised where Python only prints an exception, as in a finalizer
                raise self._end
            readable, _, _ = select.select([self._input], [], [], left)
            if readable and os.read(self._input, 1) in (b"q", b"Q", b"\x04", b""):
                return True
        return False

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    def _leave(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT:
            self._end = KeyboardInterrupt()
        else:
            self._end = SystemExit(128 + number)  # as a shell reports a signal
        raise self._end
