"""What one worker counts, in a file that is mapped into memory, where other workers read it.

A count is one store to memory: no lock, no system call. And the kernel keeps what was stored
although the process is killed in the next moment (mmap(2), MAP_SHARED).

The file begins with whole numbers of 8 bytes: whether its worker has ended as it should, then the
series. Their names follow, a line each, in the same order: how many numbers it takes, the metric,
and the labels' values, with tabs between.
"""

import fcntl
import logging
import mmap
import os
import secrets
from bisect import bisect_left
from collections.abc import Hashable
from pathlib import Path
from typing import Any, NamedTuple

from cypd.metrics.table import BY_NAME, TABLE, Metric

log = logging.getLogger(__name__)

Series = tuple[str, ...]
"""A metric's name, and the values of its labels."""

SUFFIX = ".page"
UNBORN = ".new"
_NUMBERS = 4096
_NUMBER_BYTES = _NUMBERS * 8
_BYTES = _NUMBER_BYTES + 256 * 1024
_ENDED, _FIRST = 0, 1
_NOWHERE = _NUMBERS - 64  # from here on nobody reads: for what finds no place
# In what is counted, so that a bucket is found without a conversion.
_BOUNDS = {it.name: [round(bound / it.unit) for bound in it.buckets] for it in TABLE}


class Page:
    """The numbers of this worker, from its start to its end. Used by the event loop's thread alone.

    ``numbers[slots[...]] += 1`` is the cheapest way to count. ``turn`` replaces both, so nobody
    keeps a slot over an await.
    """

    numbers: memoryview
    slots: dict[Hashable, Any]
    """Slots that callers remember, by whatever they call them."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self._folder = folder
        self._begin()

    def __repr__(self) -> str:
        return f"<Page {self._path.name}, {len(self._placed)} series>"

    @property
    def is_full(self) -> bool:
        """Whether there are series that found no place: they are not counted."""
        return self._is_full

    def slot(self, metric: Metric, *labels: str) -> int:
        """Return the place of a series, of its first number; it has one from now on."""
        series = (metric.name, *labels)
        found = self._placed.get(series)
        return self._place(metric, series) if found is None else found

    def add(self, metric: Metric, amount: int, *labels: str) -> None:
        """Count so much more, or less."""
        self.numbers[self.slot(metric, *labels)] += amount

    def put(self, metric: Metric, value: int, *labels: str) -> None:
        """Set a gauge."""
        self.numbers[self.slot(metric, *labels)] = value

    def observe(self, metric: Metric, value: int, *labels: str) -> None:
        """Put a value into a histogram, in what the metric counts."""
        self.observe_at(self.slot(metric, *labels), metric, value)

    def observe_at(self, slot: int, metric: Metric, value: int) -> None:
        """Put a value into the histogram at that slot."""
        numbers = self.numbers
        numbers[slot + bisect_left(_BOUNDS[metric.name], value)] += 1
        numbers[slot + metric.width - 1] += value

    def turn(self) -> None:
        """Begin a new page, for series that found no place; what was counted stays counted."""
        gauges = {
            series: self.numbers[slot]
            for series, slot in self._placed.items()
            if BY_NAME[series[0]].kind == "gauge" and slot != _NOWHERE
        }
        self.close()
        self._begin()
        for series, value in gauges.items():
            self.put(BY_NAME[series[0]], value, *series[1:])

    def close(self) -> None:
        """Tell that the worker ends as it should; what is counted from now on may be lost."""
        self.numbers[_ENDED] = 1
        if self._descriptor is not None:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)  # the map has a descriptor of its own
            os.close(self._descriptor)

    def _begin(self) -> None:
        self.slots = {}
        self._placed: dict[Series, int] = {}
        self._is_full = False
        self._next, self._text = _FIRST, _NUMBER_BYTES
        self._descriptor: int | None
        self._path = self._folder / f"{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"
        try:
            self._descriptor, self._map = _make(self._path)
        except OSError as error:
            log.warning("metrics: %s: %s; this worker counts for itself", self._path, error)
            self._descriptor, self._map = None, mmap.mmap(-1, _BYTES)
        self.numbers = memoryview(self._map)[:_NUMBER_BYTES].cast("q")

    def _place(self, metric: Metric, series: Series) -> int:
        line = "\t".join((str(metric.width), *series)).encode() + b"\n"
        slot = self._next
        if slot + metric.width > _NOWHERE or self._text + len(line) > _BYTES:
            self._is_full = True
            slot = _NOWHERE
        else:
            self._map[self._text : self._text + len(line)] = line
            self._next += metric.width
            self._text += len(line)
        self._placed[series] = slot
        return slot


def _make(path: Path) -> tuple[int, mmap.mmap]:
    """Make a page that is locked before anybody can find it; without a lock its worker is dead."""
    unborn = path.with_suffix(UNBORN)
    descriptor = os.open(unborn, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        # A page that the disk has no room for would end the process: SIGBUS.
        os.posix_fallocate(descriptor, 0, _BYTES)
        mapped = mmap.mmap(descriptor, _BYTES)
        unborn.rename(path)
    except OSError:
        os.close(descriptor)
        unborn.unlink(missing_ok=True)
        raise
    return descriptor, mapped


class Counted(NamedTuple):
    """What stands on a page."""

    is_alive: bool
    """Its worker runs."""
    has_ended: bool
    """Its worker ended as it should."""
    values: dict[Series, list[int]]


def read(path: Path) -> Counted | None:
    """Return what stands on a page; ``None`` if there is none any more."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        is_alive = is_locked(descriptor)
        if os.fstat(descriptor).st_size != _BYTES:  # of another version
            return Counted(is_alive, has_ended=True, values={})
        with mmap.mmap(descriptor, _BYTES, prot=mmap.PROT_READ) as mapped:
            end = mapped.find(b"\0", _NUMBER_BYTES)
            text = mapped[_NUMBER_BYTES:end] if end >= 0 else mapped[_NUMBER_BYTES:]
            with memoryview(mapped) as view, view[:_NUMBER_BYTES] as head, head.cast("q") as it:
                numbers = it.tolist()
    finally:
        os.close(descriptor)
    return Counted(is_alive, bool(numbers[_ENDED]), _series(numbers, text))


def _series(numbers: list[int], text: bytes) -> dict[Series, list[int]]:
    values: dict[Series, list[int]] = {}
    lines = text[: text.rfind(b"\n") + 1].decode().splitlines()  # a line may be being written
    slot = _FIRST
    for line in lines:
        width, *series = line.split("\t")
        end = slot + int(width)
        values[tuple(series)] = numbers[slot:end]
        slot = end
    return values


def is_locked(descriptor: int) -> bool:
    """Tell whether somebody else holds the lock on an open file (flock(2))."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
