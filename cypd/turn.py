"""Work that one process of several does at a time."""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator
from pathlib import Path


@contextlib.asynccontextmanager
async def turn(path: Path, *, look: float = 1.0) -> AsyncIterator[None]:
    """Wait until no other process has the turn that a file stands for, and have it.

    ``look``: seconds between two looks at whether it is free.

    The kernel takes it back from a process that ends, however it ends (flock(2)).
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while not _take(descriptor):  # noqa: ASYNC110 (no kernel tells a loop when it is free)
            await asyncio.sleep(look)
        yield
    finally:
        os.close(descriptor)


def is_taken(path: Path) -> bool:
    """Tell whether somebody has the turn at this moment."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        return not _take(descriptor)
    finally:
        os.close(descriptor)


def _take(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
