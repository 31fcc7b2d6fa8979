"""What is the same for all workers: asked of the store and of the disk at each scrape."""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from heapq import nlargest
from pathlib import Path
from typing import NamedTuple

from cypd.metrics import table
from cypd.metrics.page import Series
from cypd.metrics.table import OTHER, Metric
from cypd.projects.ports import UNLIMITED, Holding, ProjectStore
from cypd.registry.ports import Figures
from cypd.registry.scrub import Rounds
from cypd.webhooks.ports import WebhookStore

# A piece of a list takes less than a millisecond; then others have their turn.
_PROJECTS = 100
_WEBHOOKS = 20


class State:
    """Reads it in small pieces, between which requests are answered.

    ``named`` projects are told of one by one: one half those whose quotas are the fullest, which
    one wants to be warned of, the other those that hold the most. ``scans`` returns how many wait
    or run; ``None`` if nothing is scanned.
    """

    def __init__(
        self,
        projects: ProjectStore,
        webhooks: WebhookStore,
        figures: Callable[[], Figures],
        root: Path,
        *,
        named: int,
        scans: Callable[[], int] | None = None,
    ) -> None:
        self._projects = projects
        self._webhooks = webhooks
        self._figures = figures
        self._root = root
        self._scrubs = Rounds(root / "scrub.json")
        self._named = named
        self._scans = scans

    async def values(self) -> dict[Series, list[float]]:
        """Return all of it."""
        values: dict[Series, list[float]] = {}

        def put(metric: Metric, value: float, *labels: str) -> None:
            values[metric.name, *labels] = [value]

        totals = self._projects.totals()
        put(table.LOGICAL, totals.used)
        put(table.PHYSICAL, totals.physical)
        put(table.DEDUPLICATION, totals.used / totals.physical if totals.physical else 1.0)
        disk = os.statvfs(self._root)
        put(table.DISK_FREE, disk.f_bavail * disk.f_frsize)
        put(table.DISK_SIZE, disk.f_blocks * disk.f_frsize)
        figures = self._figures()
        put(table.MAP_SIZE, figures.map_size)
        put(table.MAP_USED, figures.map_used)
        put(table.OLDEST_READER, figures.oldest_reader)
        put(table.UPLOAD_SESSIONS, figures.uploads)
        if self._scans:
            put(table.SCANS, self._scans())
        self._put_scrub(put)
        await self._put_backlog(put)
        await self._put_projects(put)
        return values

    def _put_scrub(self, put: Callable[[Metric, float], None]) -> None:
        round_ = self._scrubs.last()
        put(table.SCRUBBED_AT, (round_ and (round_.finished_at or round_.finished_before)) or 0.0)
        put(table.SCRUBBED, round_.blobs if round_ else 0)
        put(table.DAMAGED, round_.damaged if round_ else 0)
        put(table.MISSING, round_.missing if round_ else 0)

    async def _put_backlog(self, put: Callable[[Metric, float], None]) -> None:
        after, pending, since = "", 0, float("inf")
        while found := self._webhooks.backlogs(after=after, limit=_WEBHOOKS):
            after = found[-1].webhook_id
            pending += sum(it.pending for it in found)
            since = min([since, *(it.since for it in found if it.since is not None)])
            await asyncio.sleep(0)
        put(table.BACKLOG, pending)
        put(table.BACKLOG_AGE, max(0.0, time.time() - since))  # minus infinity: nothing waits

    async def _put_projects(self, put: Callable[..., None]) -> None:
        ranking = _Ranking(self._named)
        after = ""
        while found := self._projects.holdings(after=after, limit=_PROJECTS):
            after = found[-1].project_id
            ranking.add(found)
            await asyncio.sleep(0)
        named = ranking.places()
        for each in named:
            _Sum().plus([each]).tell(put, each.name)
        ranking.all.plus(named, -1).tell(put, OTHER)
        put(table.PROJECTS, ranking.all.projects)


class _Sum(NamedTuple):
    """Some projects together; ``quota`` is of those that have a bound."""

    projects: int = 0
    used: int = 0
    reserved: int = 0
    bounded: int = 0
    quota: int = 0

    def plus(self, holdings: Sequence[Holding], sign: int = 1) -> "_Sum":
        """Return the sum with some projects more, or with ``-1`` less."""
        quotas = [it.quota for it in holdings if it.quota != UNLIMITED]
        return _Sum(
            self.projects + sign * len(holdings),
            self.used + sign * sum(it.used for it in holdings),
            self.reserved + sign * sum(it.reserved for it in holdings),
            self.bounded + sign * len(quotas),
            self.quota + sign * sum(quotas),
        )

    def tell(self, put: Callable[..., None], name: str) -> None:
        """Put it under a name, if there is something."""
        if self.projects:
            put(table.USED, self.used, name)
            put(table.RESERVED, self.reserved, name)
        if self.bounded:
            put(table.QUOTA, self.quota, name)


class _Ranking:
    """Finds the projects to name while the list goes by."""

    def __init__(self, limit: int) -> None:
        self.all = _Sum()
        self._limit = limit
        self._fullest: list[Holding] = []
        self._largest: list[Holding] = []

    def add(self, holdings: Sequence[Holding]) -> None:
        """Look at some more projects."""
        self.all = self.all.plus(holdings)
        named = [it for it in holdings if it.name != OTHER]  # that one is one of the others
        half = self._limit - self._limit // 2
        self._fullest = nlargest(half, [*self._fullest, *named], key=_fullness)
        self._largest = nlargest(self._limit, [*self._largest, *named], key=_used)

    def places(self) -> list[Holding]:
        """Return those to name: half of them for being full, the others for being large."""
        chosen = {it.name: it for it in self._fullest}
        rest = [it for it in self._largest if it.name not in chosen]
        return [*self._fullest, *rest[: self._limit - len(chosen)]]


def _used(holding: Holding) -> int:
    return holding.used


def _fullness(holding: Holding) -> tuple[float, int]:
    if holding.quota <= 0:
        return (0.0, holding.used)
    return ((holding.used + holding.reserved) / holding.quota, holding.used)
