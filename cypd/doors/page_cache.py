"""Files that a door sends: whether their bytes are in memory, and how they get there.

A read that waits for a disk on the loop would stop everybody's requests.
"""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Final

# Asked of the disk at once when a file turns out to be cold.
_READ_AHEAD: Final = 8 * 1024 * 1024

_threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="cypd-warm")


def is_cold(file: int, offset: int, size: int) -> bool:
    """Would reading ``size`` bytes from ``offset`` wait for the disk?

    Asked of the first and the last page (preadv2(2), RWF_NOWAIT: EAGAIN if the page is not there).
    """
    try:
        for position in (offset, offset + size - 1):
            os.preadv(file, [bytearray(1)], position, os.RWF_NOWAIT)
    except BlockingIOError:
        return True
    except OSError:  # EOPNOTSUPP: a filesystem that cannot tell
        return False
    return False


def warm(
    loop: asyncio.AbstractEventLoop, file: int, offset: int, size: int, left: int
) -> asyncio.Future[None]:
    """Read ``size`` bytes from ``offset`` into the page cache, in a thread.

    Of the ``left`` bytes that will be sent after all, those behind are asked for as well. The
    future raises OSError for what can't be read; ``file`` may be closed meanwhile.
    """
    ahead = min(_READ_AHEAD, left)
    return loop.run_in_executor(_threads, _read_ahead, os.dup(file), offset, size, ahead)


def _read_ahead(file: int, offset: int, size: int, ahead: int) -> None:
    """Ask for ``ahead`` bytes and wait for the first ``size``. Closes ``file``."""
    try:
        os.posix_fadvise(file, offset, ahead, os.POSIX_FADV_WILLNEED)
        for position in (offset, offset + size // 2, offset + size - 1):
            os.preadv(file, [bytearray(1)], position)
    finally:
        os.close(file)
