"""Telling how far long work is, on standard error."""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable

_SCREEN_SECONDS = 0.5
_LINE_SECONDS = 10.0


@contextlib.asynccontextmanager
async def shown(line: Callable[[float], str], *, quiet: bool) -> AsyncIterator[None]:
    """Show a line, made of the seconds that have passed, until the context ends.

    On a terminal one line that changes, else a new one now and then.
    """
    task = asyncio.create_task(_show(line)) if not quiet else None
    try:
        yield
    finally:
        if task:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def _show(line: Callable[[float], str]) -> None:
    is_terminal = sys.stderr.isatty()
    started = time.monotonic()
    try:
        while True:
            await asyncio.sleep(_SCREEN_SECONDS if is_terminal else _LINE_SECONDS)
            text = line(time.monotonic() - started)
            form = f"\r\033[K{text}" if is_terminal else f"{text}\n"
            print(form, end="", file=sys.stderr, flush=True)
    finally:
        if is_terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
