"""The pages of all workers of one state folder, and what those have left that are gone.

Nobody waits for anybody. Who reads takes no lock: it reads the heritage, then the pages, and does
it again if the heritage was written meanwhile. Who finds a page whose worker is gone adds it to
the heritage (one worker at a time, and only if nobody else is at it), so there are never more
files than there were workers at once.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from cypd.metrics.page import SUFFIX, UNBORN, Series, is_locked, read
from cypd.metrics.table import BY_NAME, RESTARTS, WORKERS

log = logging.getLogger(__name__)

_BIRTH_SECONDS = 60.0  # a page is made in less

Values = dict[Series, list[int]]
Keep = Callable[[Series], bool]
"""Whether a series is still told of."""


class _Row(NamedTuple):
    series: Series
    numbers: list[int]


class _Heritage(msgspec.Struct, frozen=True):
    """What workers have left; ``pages`` are those that are in it and may still lie around."""

    pages: tuple[str, ...] = ()
    rows: tuple[_Row, ...] = ()


_decode = msgspec.json.Decoder(_Heritage).decode


class Pages:
    """The folder of pages."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self._folder = folder
        self._file = folder / "heritage.json"

    def values(self) -> Values:
        """Return what all workers have counted together, and how many of them run."""
        *_, found = self._steps()
        return found

    async def values_in_turns(self) -> Values:
        """Return the same; other work has its turn after each page."""
        found: Values = {}
        for found in self._steps():  # noqa: B007 (the last one counts)
            await asyncio.sleep(0)
        return found

    def _steps(self) -> Iterator[Values]:
        """Yield the sum after each page; the last one is it."""
        while True:
            heritage, identity = self._heritage()
            total = _Total(heritage.rows)
            for path in self._pages(heritage):
                total.add_page(path)
                yield total.values
            if identity == self._identity():
                yield total.values
                return

    def inherit(self, keep: Keep) -> None:
        """Add the pages of workers that are gone to the heritage, and drop series not to keep."""
        with locked(self._folder) as is_mine:
            if is_mine:
                try:
                    self._inherit(keep)
                except OSError as error:  # a full disk: they can wait
                    log.warning("metrics: %s", error)

    def _inherit(self, keep: Keep) -> None:
        heritage, _ = self._heritage()
        total = _Total(heritage.rows)
        gone = [path for path in self._pages(heritage) if total.add_dead(path)]
        if gone:
            kept = ((it, numbers) for it, numbers in total.values.items() if not _is_gauge(it))
            rows = tuple(_Row(it, numbers) for it, numbers in kept if keep(it))
            left = [name for name in heritage.pages if (self._folder / name).exists()]
            pages = (*left, *(path.name for path in gone))
            replace(self._file, msgspec.json.encode(_Heritage(pages, rows)))
            heritage = _Heritage(pages, rows)
        for name in heritage.pages:
            (self._folder / name).unlink(missing_ok=True)
        for path in self._folder.glob(f"*{UNBORN}"):
            _remove_if_orphaned(path)

    def _pages(self, heritage: _Heritage) -> list[Path]:
        found = self._folder.glob(f"*{SUFFIX}")
        return sorted(path for path in found if path.name not in heritage.pages)

    def _heritage(self) -> tuple[_Heritage, tuple[int, int]]:
        try:
            with self._file.open("rb") as file:
                found = os.fstat(file.fileno())
                content = file.read()
        except FileNotFoundError:
            return _Heritage(), (0, 0)
        identity = (found.st_ino, found.st_mtime_ns)
        try:
            return _decode(content), identity
        except msgspec.DecodeError:  # a power cut
            log.warning("metrics: %s can't be read; counting begins anew", self._file)
            return _Heritage(), identity

    def _identity(self) -> tuple[int, int]:
        try:
            found = self._file.stat()
        except FileNotFoundError:
            return (0, 0)
        return (found.st_ino, found.st_mtime_ns)


class _Total:
    """A sum that grows page by page."""

    def __init__(self, rows: tuple[_Row, ...]) -> None:
        self.values: Values = {(WORKERS.name,): [0]}
        for row in rows:
            self._add(row.series, row.numbers)

    def add_page(self, path: Path) -> None:
        """Add a page: all of it, or of a worker that is gone what it has counted."""
        page = read(path)
        if page is None:
            return
        if page.is_alive:
            self.values[(WORKERS.name,)][0] += 1
            self._add_all(page.values)
        else:
            self._bequeath(page.values, has_ended=page.has_ended)

    def add_dead(self, path: Path) -> bool:
        """Add a page if its worker is gone; tell whether it is."""
        page = read(path)
        if page is None or page.is_alive:
            return False
        self._bequeath(page.values, has_ended=page.has_ended)
        return True

    def _bequeath(self, values: Values, *, has_ended: bool) -> None:
        self._add_all({it: numbers for it, numbers in values.items() if not _is_gauge(it)})
        if not has_ended:
            self._add((RESTARTS.name,), [1])

    def _add_all(self, values: Mapping[Series, list[int]]) -> None:
        for series, numbers in values.items():
            self._add(series, numbers)

    def _add(self, series: Series, numbers: list[int]) -> None:
        metric = BY_NAME.get(series[0])
        if metric is None or metric.width != len(numbers):
            return  # of another version
        before = self.values.get(series)
        if before is None:
            self.values[series] = list(numbers)
        elif metric.kind == "gauge" and metric.merge != "sum":
            choose = max if metric.merge == "max" else min
            before[0] = choose(before[0], numbers[0])
        else:
            self.values[series] = [a + b for a, b in zip(before, numbers, strict=True)]


def _is_gauge(series: Series) -> bool:
    metric = BY_NAME.get(series[0])
    return metric is None or metric.kind == "gauge"


def replace(path: Path, content: bytes) -> None:
    """Put content in the place of a file; readers see the old one or the new one."""
    beside = path.with_suffix(".beside")
    beside.write_bytes(content)
    beside.replace(path)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Yield whether this process may write to the folder now; nobody waits for that."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(descriptor)


def _remove_if_orphaned(path: Path) -> None:
    """Remove a page that its worker never came to use."""
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            age = time.time() - os.fstat(descriptor).st_mtime
            if age > _BIRTH_SECONDS and not is_locked(descriptor):
                path.unlink()
        finally:
            os.close(descriptor)
