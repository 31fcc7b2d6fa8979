"""What a worker tells of itself: how late its loop is, what it has open, what it takes."""

import asyncio
import contextlib
import os
import resource
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from cypd.metrics import table
from cypd.metrics.page import Page

_TICK_SECONDS = 0.5
_WINDOW = 30  # ticks: the lag's 15 seconds
_NANOSECONDS = 1_000_000_000


class Vitals:
    """Writes gauges to the worker's page twice a second.

    ``waiting_writes`` tells how many there are. Nothing of it needs ``/proc/stat``, which
    ``ProcSubset=pid`` hides.
    """

    def __init__(self, page: Page, waiting_writes: Callable[[], int]) -> None:
        self.connections: Callable[[], int] = lambda: 0
        """Tells how many are open; to be set when there are doors."""
        self._page = page
        self._waiting_writes = waiting_writes
        self._lags: deque[int] = deque([0], maxlen=_WINDOW)
        self._cpu = 0
        self._started_at = _started_at()
        self._page_bytes = os.sysconf("SC_PAGE_SIZE")

    async def watch(self) -> None:
        """Do it until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _TICK_SECONDS
            await asyncio.sleep(_TICK_SECONDS)
            self._lags.append(max(0, round((loop.time() - due) * _NANOSECONDS)))
            with contextlib.suppress(OSError):  # out of descriptors
                self.note()

    def note(self) -> None:
        """Write all of it as it is now."""
        put = self._page.put
        put(table.LOOP_LAG, max(self._lags))
        put(table.CONNECTIONS, self.connections())
        put(table.WRITER_QUEUE, self._waiting_writes())
        cpu = time.process_time_ns()
        self._page.add(table.CPU, cpu - self._cpu)
        self._cpu = cpu
        put(table.RESIDENT, _resident_pages() * self._page_bytes)
        put(table.DESCRIPTORS, _open_descriptors())
        put(table.MAX_DESCRIPTORS, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        put(table.STARTED_AT, self._started_at)


def _started_at() -> int:
    """Return when this process began, in unix nanoseconds (proc_pid_stat(5), field 22)."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[22 - 3])  # the first field behind the name is the third
    age = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - ticks * (
        _NANOSECONDS // os.sysconf("SC_CLK_TCK")
    )
    return time.time_ns() - age


def _resident_pages() -> int:
    return int(Path("/proc/self/statm").read_bytes().split()[1])


def _open_descriptors() -> int:
    # Linux 6.2 and newer tell it as the size of the folder; with 10,000 connections listing takes
    # milliseconds.
    return os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd"))
