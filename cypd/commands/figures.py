"""What the daemon is doing, from two looks at its metrics."""

import math
import time
from collections.abc import Iterable

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from cypd.metrics import table
from cypd.metrics.table import Metric

_TOP = 10  # projects

Labels = dict[str, str]


class Sample:
    """One scrape, and when it was taken (monotonic seconds)."""

    def __init__(self, text: str, at: float) -> None:
        self.at = at
        self._series: dict[str, list[tuple[Labels, float]]] = {}
        for family in text_string_to_metric_families(text):
            for it in family.samples:
                self._series.setdefault(it.name, []).append((it.labels, it.value))

    def series(self, metric: Metric, suffix: str = "") -> list[tuple[Labels, float]]:
        """Return the labels and values of a metric; none if it has not got any."""
        return self._series.get(metric.name + suffix, [])

    def total(self, metric: Metric, suffix: str = "", *, status: str = "") -> float:
        """Return the sum of a metric over its labels; 0 where it has no value.

        With ``status`` only where that begins so. A histogram has a ``_sum`` and a ``_count``.
        """
        found = self.series(metric, suffix)
        return sum(value for labels, value in found if labels.get("status", "").startswith(status))

    def by_project(self, metric: Metric) -> dict[str, float]:
        """Return the values of a metric that projects have."""
        return {labels["project"]: value for labels, value in self.series(metric)}


class Requests(msgspec.Struct, frozen=True):
    """Requests, and how many of them were answered with 4xx and 5xx; per second."""

    answered: float
    refused: float
    failed: float


class Traffic(msgspec.Struct, frozen=True):
    """Bytes per second of all answers and requests."""

    sent: float
    received: float


class Flow(msgspec.Struct, frozen=True):
    """Content that goes one way: how many right now, and bytes per second."""

    active: int
    bytes_per_second: float


class Queues(msgspec.Struct, frozen=True):
    """What waits."""

    writer: int
    commit_seconds: float
    """The mean of the transactions between the two looks; 0 if there were none."""
    webhooks: int
    webhooks_oldest_seconds: float
    scans: int


class Storage(msgspec.Struct, frozen=True):
    """Bytes: of all projects, each digest once, and of the disk."""

    logical: int
    physical: int
    deduplication: float
    disk_free: int
    disk_size: int


class Process(msgspec.Struct, frozen=True):
    """All workers together."""

    workers: int
    restarts: int
    uptime_seconds: float
    cpu_cores: float
    resident_bytes: int
    open_files: int
    connections: int
    loop_lag_seconds: float


class Project(msgspec.Struct, frozen=True):
    """Bytes; ``quota`` is None where there is no bound, ``percent`` is that of the quota."""

    name: str
    used: int
    reserved: int
    quota: int | None
    percent: float | None


class Report(msgspec.Struct, frozen=True):
    """What the daemon is doing; rates over the seconds between two looks."""

    version: str
    seconds: float
    traffic: Traffic
    requests: Requests
    pulls: Flow
    uploads: Flow
    upload_sessions: int
    queues: Queues
    storage: Storage
    process: Process
    projects: list[Project]
    """Those that fill most of their quota, then those that hold most; at most 10."""


def report(before: Sample, now: Sample) -> Report:
    """Return what happened between two scrapes, and how things are at the second."""
    seconds = max(now.at - before.at, 1e-3)

    def rate(metric: Metric, suffix: str = "", *, status: str = "") -> float:
        then, here = (it.total(metric, suffix, status=status) for it in (before, now))
        # A counter that shrinks began anew, as Prometheus takes it.
        return (here - then if here >= then else here) / seconds

    def count(metric: Metric) -> int:
        return int(now.total(metric))

    commits = rate(table.COMMIT, "_count")
    return Report(
        version=next((it["version"] for it, _ in now.series(table.BUILD)), ""),
        seconds=seconds,
        traffic=Traffic(rate(table.SENT), rate(table.RECEIVED)),
        requests=Requests(
            answered=rate(table.REQUESTS),
            refused=rate(table.REQUESTS, status="4"),
            failed=rate(table.REQUESTS, status="5"),
        ),
        pulls=Flow(count(table.ACTIVE_PULLS), rate(table.PULLED)),
        uploads=Flow(count(table.ACTIVE_UPLOADS), rate(table.PUSHED)),
        upload_sessions=count(table.UPLOAD_SESSIONS),
        queues=Queues(
            writer=count(table.WRITER_QUEUE),
            commit_seconds=rate(table.COMMIT, "_sum") / commits if commits else 0.0,
            webhooks=count(table.BACKLOG),
            webhooks_oldest_seconds=now.total(table.BACKLOG_AGE),
            scans=count(table.SCANS),
        ),
        storage=Storage(
            logical=count(table.LOGICAL),
            physical=count(table.PHYSICAL),
            deduplication=now.total(table.DEDUPLICATION),
            disk_free=count(table.DISK_FREE),
            disk_size=count(table.DISK_SIZE),
        ),
        process=Process(
            workers=count(table.WORKERS),
            restarts=count(table.RESTARTS),
            uptime_seconds=_age(now.total(table.STARTED_AT)),
            cpu_cores=rate(table.CPU),
            resident_bytes=count(table.RESIDENT),
            open_files=count(table.DESCRIPTORS),
            connections=count(table.CONNECTIONS),
            loop_lag_seconds=now.total(table.LOOP_LAG),
        ),
        projects=_top(now),
    )


def _age(started_at: float) -> float:
    return max(0.0, time.time() - started_at) if started_at else 0.0


def _top(sample: Sample) -> list[Project]:
    used = sample.by_project(table.USED)
    reserved = sample.by_project(table.RESERVED)
    quotas = sample.by_project(table.QUOTA)
    found: Iterable[Project] = (
        _project(name, int(size), int(reserved.get(name, 0)), quotas.get(name))
        for name, size in used.items()
        if name != table.OTHER
    )
    return sorted(found, key=lambda it: (it.percent or 0.0, it.used), reverse=True)[:_TOP]


def _project(name: str, used: int, reserved: int, quota: float | None) -> Project:
    if quota is None or not math.isfinite(quota):
        return Project(name, used, reserved, None, None)
    percent = round(100 * (used + reserved) / quota, 1) if quota else 100.0
    return Project(name, used, reserved, int(quota), percent)
