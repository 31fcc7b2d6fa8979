"""The metrics of a worker, and through it of all."""

import asyncio
import logging
import platform
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cypd
from cypd.metrics import table
from cypd.metrics.exposition import expose
from cypd.metrics.named import NamedProjects
from cypd.metrics.page import Page, Series
from cypd.metrics.pages import Pages, Values
from cypd.metrics.state import State
from cypd.metrics.table import BY_NAME, OTHER
from cypd.metrics.vitals import Vitals
from cypd.registry.janitor import Round

log = logging.getLogger(__name__)

_TEND_SECONDS = 5.0
_CONTEST_SECONDS = 600.0


class Metrics:
    """Counts on a page of its own; tells what all workers have counted, and what they share.

    ``waiting_writes`` tells how many writes wait for this worker's writer, ``projects`` how many
    projects have series of their own.
    """

    def __init__(
        self, folder: Path, state: State, *, projects: int, waiting_writes: Callable[[], int]
    ) -> None:
        self.page = Page(folder)
        self.named = NamedProjects(folder, projects)
        self._pages = Pages(folder)
        self._state = state
        self.vitals = Vitals(self.page, waiting_writes)
        self._turn = asyncio.Lock()
        self._contested_at = time.monotonic()
        for status in ("succeeded", "failed"):
            self.page.slot(table.SCANNED, status)  # a rate needs a series before the first of them
        self.vitals.note()
        self.tend()

    def close(self) -> None:
        """Tell that this worker ends as it should."""
        self.vitals.note()
        self.page.close()

    async def watch(self) -> None:
        """Keep gauges fresh, and the folder tidy, until cancelled: where somebody may look."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self.vitals.watch())
            both.create_task(self._tend())

    async def _tend(self) -> None:
        while True:
            await asyncio.sleep(_TEND_SECONDS)
            self.tend()

    def tend(self) -> None:
        """Take over what workers have left, and see which projects are counted for themselves."""
        try:
            self._try_to_tend()
        except OSError as error:  # a full disk, or no descriptor left: it can wait
            log.warning("metrics: %s", error)

    def _try_to_tend(self) -> None:
        self.named.refresh()
        if time.monotonic() - self._contested_at > _CONTEST_SECONDS:
            self._contested_at = time.monotonic()
            self.named.contest(_traffic(self._pages.values()))
        self.page.slots.clear()
        if self.page.is_full:
            self.page.turn()
        self._pages.inherit(self._is_told)

    async def text(self) -> bytes:
        """Return everything as Prometheus reads it; one scrape at a time, the others wait."""
        async with self._turn:
            self.vitals.note()
            self.named.refresh()
            counted = await self._pages.values_in_turns()
            told = {it: numbers for it, numbers in counted.items() if self._is_told(it)}
            state = await self._state.values()
            build = (table.BUILD.name, cypd.__version__, platform.python_version())
            return await expose({**told, **state, build: [1]})

    # --- what the parts of the registry tell ----------------------------------------------------

    def saw_commit(self, seconds: float, operations: int) -> None:
        """Count a transaction of the writer."""
        self.page.observe(table.COMMIT, round(seconds / table.NANOSECOND))
        self.page.add(table.COMMITTED, operations)

    def saw_collection(self, done: Round) -> None:
        """Count a round of the janitor: what it removed, and what it left for now."""
        page = self.page
        page.add(table.COLLECTIONS, 1)
        page.add(table.COLLECTED, done.sessions, "uploads")
        page.add(table.COLLECTED, done.links, "links")
        page.add(table.COLLECTED, done.blobs, "blobs")
        page.put(table.COLLECTED_AT, time.time_ns())
        page.put(table.UNUSED_BLOBS, done.unused_blobs)
        page.put(table.UNUSED_BYTES, done.unused_bytes)

    def saw_scan(self, status: str) -> None:
        """Count a scan that ended, as what it is told to be."""
        self.page.add(table.SCANNED, 1, status)

    def _is_told(self, series: Series) -> bool:
        metric = BY_NAME.get(series[0])
        if metric is None or metric.labels[:1] != ("project",):
            return metric is not None
        return series[1] == OTHER or series[1] in self.named


def _traffic(values: Values) -> Counter[str]:
    """Return the bytes that were pulled from and pushed to each project."""
    traffic: Counter[str] = Counter()
    for series, numbers in values.items():
        if series[0] in (table.PULLED.name, table.PUSHED.name):
            traffic[series[1]] += numbers[0]
    return traffic
