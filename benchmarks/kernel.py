"""What the kernel knows: the CPU time and memory of a server, and who else was busy."""

import mmap
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class CpuTime(NamedTuple):
    """CPU seconds, in user space and altogether."""

    user: float
    total: float


class Window:
    """A stretch of time: what a server spent in it, and how far others disturbed it.

    The server is a process with all that descend from it; the client is this process and the
    children it has waited for.
    """

    cpu: float  # seconds the server spent
    both: float  # seconds server and client spent
    wall: float  # seconds that passed
    disturbance: float  # CPUs kept busy in user space by anybody else

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def __enter__(self) -> Self:
        self._start = self._read()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        wall, server, client, everybody = (
            after - before for before, after in zip(self._start, self._read(), strict=True)
        )
        self.wall = wall.total
        self.cpu = server.total
        self.both = server.total + client.total
        self.disturbance = max(0.0, everybody.user - server.user - client.user) / wall.total

    def _read(self) -> tuple["_Reading", ...]:
        now = time.monotonic()
        return (
            _Reading(now, now),
            _Reading(*cpu_time(self._pid)),
            _Reading(*_client_time()),
            _Reading(*_machine_time()),
        )


class _Reading(CpuTime):
    """A clock's value; the difference of two is what happened between."""

    def __sub__(self, earlier: CpuTime) -> CpuTime:
        return CpuTime(self.user - earlier.user, self.total - earlier.total)


def cpu_time(pid: int) -> CpuTime:
    """Return what a process and all its descendants have used so far."""
    user = total = 0
    for member in tree(pid):
        # proc(5): the name in parentheses may hold anything, so count from behind it
        fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        utime, stime, dead_utime, dead_stime = map(int, fields[11:15])
        user += utime + dead_utime
        total += utime + stime + dead_utime + dead_stime
    return CpuTime(user / TICKS_PER_SECOND, total / TICKS_PER_SECOND)


def anonymous_memory(pid: int) -> int:
    """Return the bytes of resident anonymous memory of a process and all its descendants."""
    return sum(
        int(line.split()[1]) * 1024
        for member in tree(pid)
        for line in Path(f"/proc/{member}/status").read_text().splitlines()
        if line.startswith("RssAnon:")
    )


class MemoryPeak:
    """The most memory that a process and its descendants have while this is entered.

    Looked at fifty times a second, as ``anonymous_memory`` does.
    """

    highest: int

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self.highest = anonymous_memory(self._pid)
        self._watcher.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        self._watcher.join()

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            self.highest = max(self.highest, anonymous_memory(self._pid))


def warm_memory(size: int) -> None:
    """Touch as much free memory, so that the server's page cache is made of it.

    In a virtual machine the first touch of a page is a trip to the host: at 1-2 s per GiB dearer
    than anything measured here, and charged to whoever comes first.
    """
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    mmap.mmap(-1, size, flags=flags).close()


def tree(pid: int) -> Iterator[int]:
    """Yield a process and all its descendants."""
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended meanwhile
            for child in (task / "children").read_text().split():
                yield from tree(int(child))


def _client_time() -> CpuTime:
    times = os.times()
    user = times.user + times.children_user
    return CpuTime(user, user + times.system + times.children_system)


def _machine_time() -> CpuTime:
    """Return the time of all CPUs; what the hypervisor kept from us counts as user time."""
    line = Path("/proc/stat").read_text().partition("\n")[0]
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, line.split()[1:9])
    taken = user + nice + steal
    return CpuTime(taken / TICKS_PER_SECOND, (taken + system + irq + softirq) / TICKS_PER_SECOND)
