"""Claim: what is measured costs a pull next to nothing, and a scrape delays none."""

import asyncio
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from benchmarks.figures import SUBJECT, Figure, Result, Target
from benchmarks.http import Connection
from benchmarks.kernel import Window
from benchmarks.lab import Lab, Sample
from benchmarks.oci import MANIFEST, Blob, manifest
from benchmarks.servers import Cypd
from benchmarks.small_pulls import CONNECTIONS, LAYERS
from cypd.doors.asgi import Application, Scope, Send
from cypd.metadata.lmdb import LmdbMetadata
from cypd.metrics.named import NamedProjects
from cypd.metrics.page import Page
from cypd.oci.digest import Digest
from cypd.oci.endpoints import parse
from cypd.oci.names import RepositoryName
from cypd.projects.ports import Project
from cypd.request_meter import metered

ALONE = "cypd, not scraped"
_PROJECTS = 10_000
_BATCH = 500
_SCRAPES = 20
_INTERVAL_SECONDS = 1.0  # a fifteenth of what is usual
_REQUESTS = 100_000
_MAP_BYTES = 16 << 30


def run(lab: Lab) -> Iterator[Result]:
    """Scrape a registry of 10,000 projects, alone and beside pulls; and count without a server."""
    if SUBJECT not in lab.servers:
        return
    yield lab.alternate(
        Figure("to count a pull of a manifest", "µs of CPU", "lower", [Target(2.0)]),
        [SUBJECT],
        lambda _: Sample(_cost_of_counting()),
    )
    blobs = [Blob.of(os.urandom(lab.scale.small)) for _ in range(LAYERS + 1)]
    with (
        TemporaryDirectory(prefix="benchmarks-") as directory,
        Cypd(Path(directory) / "cypd", lab.server_cpu) as server,
    ):
        asyncio.run(_fill(server.directory / "state" / "metadata"))
        for blob in blobs:
            server.put_blob(blob)
        url = server.url + server.put_manifest(manifest(blobs[0], blobs[1:]))
        yield lab.alternate(
            Figure(f"slowest of {_SCRAPES} scrapes, 10,000 projects", "ms", "lower", [Target(100)]),
            [SUBJECT],
            lambda _: Sample(max(_scrape(server) for _ in range(_SCRAPES)) * 1000),
        )

        def cost(which: str) -> Sample:
            with Window(server.pid) as window:
                for _ in range(_SCRAPES):
                    _scrape(server)
            return Sample.cpu_per(_SCRAPES / 1000, window)

        yield lab.alternate(
            Figure("a scrape, 10,000 projects", "CPU-ms", "lower", [Target(100)]), [SUBJECT], cost
        )

        def take(which: str) -> Sample:
            if which == ALONE:
                return Sample(_slow_pulls(url, lab.scale.seconds))
            with _scraped(server):
                return Sample(_slow_pulls(url, lab.scale.seconds))

        yield lab.alternate(
            Figure("99 % of pulls, a scrape a second", "ms", "lower", [Target(1.5, ALONE)]),
            [SUBJECT, ALONE],
            take,
        )


async def _fill(path: Path) -> None:
    """Make projects beside the daemon, each with a quota and with something in it."""
    metadata = LmdbMetadata(path, _MAP_BYTES)
    try:
        for start in range(0, _PROJECTS, _BATCH):
            names = [f"project-{number:05}" for number in range(start, start + _BATCH)]
            await asyncio.gather(*(_make(metadata, it) for it in names))
    finally:
        metadata.close()


async def _make(metadata: LmdbMetadata, name: str) -> None:
    await metadata.projects.create_project(
        Project(str(uuid4()), name, "nobody", 0.0, 0.0, 10 << 30)
    )
    repository = RepositoryName(f"{name}/app")
    await metadata.registry.link_blob(repository, Digest.of(name.encode()), 1 << 20, upload_id=None)


def _scrape(server: Cypd) -> float:
    """Return the seconds that a scrape took."""
    with Connection(server.metrics_port) as connection:
        begin = time.perf_counter()
        answer = connection.request("GET", "/metrics")
        took = time.perf_counter() - begin
    if answer.status != 200 or f"cypd_projects {_PROJECTS + 1:g}".encode() not in answer.body:
        raise ConnectionError(f"/metrics: {answer.status} {answer.body[:200]!r}")
    return took


@contextmanager
def _scraped(server: Cypd) -> Iterator[None]:
    """Scrape again and again."""
    is_over = threading.Event()

    def scrape() -> None:
        while not is_over.wait(_INTERVAL_SECONDS):
            _scrape(server)

    scraper = threading.Thread(target=scrape)
    scraper.start()
    try:
        yield
    finally:
        is_over.set()
        scraper.join()


def _slow_pulls(url: str, seconds: int) -> float:
    """Return within how many milliseconds 99 % of pulls are answered."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency"]
    command += ["-H", f"Accept: {MANIFEST}", url]
    report = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"99%\s+([\d.]+)(us|ms|s)", report)
    if found is None or "Non-2xx" in report:
        raise ConnectionError(f"wrk was not answered properly:\n{report}")
    return float(found[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[found[2]]


def _cost_of_counting() -> float:
    """Return the microseconds that the meter adds to an application that answers at once."""
    target = parse("GET", "/v2/library/app/manifests/latest")
    start = {"type": "http.response.start", "status": 200, "headers": []}
    body = {"type": "http.response.body", "body": b"x" * 1200}

    async def application(scope: Scope, receive: Any, send: Send) -> None:
        scope["target"] = target
        await send(start)
        await send(body)

    with TemporaryDirectory(prefix="benchmarks-") as directory:
        page = Page(Path(directory))
        counting = metered(application, page, NamedProjects(Path(directory), 100))
        costs = [_cost(counting) - _cost(application) for _ in range(3)]
        page.close()
    return min(costs)


def _cost(application: Application) -> float:
    async def send(message: dict[str, Any]) -> None:
        pass

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def ask() -> None:
        for _ in range(_REQUESTS):
            await application({"method": "GET", "path": "/v2/", "headers": []}, receive, send)

    begin = time.process_time()
    asyncio.run(ask())
    return (time.process_time() - begin) / _REQUESTS * 1e6
