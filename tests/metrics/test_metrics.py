"""The metrics of a worker: which series end and begin when other projects are used more."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cypd.doors.asgi import Message, Receive, Scope, Send
from cypd.metadata.lmdb import LmdbMetadata
from cypd.metrics import metrics as module
from cypd.metrics import table
from cypd.metrics.metrics import Metrics
from cypd.metrics.state import State
from cypd.registry.janitor import Round
from cypd.request_meter import metered
from tests.metrics.measured import Samples, samples, series
from tests.samples import project

PULLED, PUSHED = table.PULLED, table.PUSHED
PATHS = ("/v2/x", "/api/v1/x", "/docs", "/healthz", "/readyz", "/metrics", "/x")


@pytest.fixture
def metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Metrics]:
    """Metrics with a place for one project, which is contested at every occasion."""
    monkeypatch.setattr(module, "_CONTEST_SECONDS", 0.0)
    metadata = LmdbMetadata(tmp_path / "metadata", 16 << 20)
    state = State(metadata.projects, metadata.webhooks, metadata.figures, tmp_path, named=1)
    metrics = Metrics(tmp_path / "metrics", state, projects=1, waiting_writes=lambda: 0)
    yield metrics
    metrics.close()
    metadata.close()


def pull(metrics: Metrics, project: str, size: int) -> None:
    """Count a pull."""
    label = metrics.named.label(project, size)
    metrics.page.add(table.PULLED, size, label, "memory")


async def told(metrics: Metrics) -> dict[str, float]:
    """Return the bytes that each project is told to have pulled."""
    found: Samples = samples((await metrics.text()).decode())
    return {
        dict(labels)["project"]: value
        for (name, labels), value in found.items()
        if name == "cypd_pulled_bytes_total"
    }


async def test_places_follow_the_traffic(metrics: Metrics) -> None:
    """Each series only grows while it is told; the one that ends takes nothing with it."""
    pull(metrics, "first", 1000)
    pull(metrics, "second", 10)
    metrics.tend()
    assert await told(metrics) == {"first": 1000, "other": 10}

    pull(metrics, "first", 10)
    pull(metrics, "second", 500)
    metrics.tend()
    assert await told(metrics) == {"other": 510}
    pull(metrics, "first", 5)
    pull(metrics, "second", 3)
    assert await told(metrics) == {"second": 3, "other": 515}

    metrics.tend()
    metrics.tend()
    pull(metrics, "second", 1)
    assert await told(metrics) == {"second": 4, "other": 515}


async def test_a_full_page_is_turned_and_nothing_is_told_twice(metrics: Metrics) -> None:
    """Series that find no place are counted from the next page on."""
    for number in range(5000):
        metrics.page.add(table.REQUESTS, 1, "other", "GET", str(number))
    assert metrics.page.is_full
    metrics.tend()
    metrics.page.add(table.REQUESTS, 1, "other", "GET", "200")
    found = samples((await metrics.text()).decode())

    assert not metrics.page.is_full
    assert found[series("cypd_requests_total", endpoint="other", method="GET", status="200")] == 2
    assert found[series("cypd_workers")] == 1


async def test_the_janitor_the_writer_and_scans_tell(metrics: Metrics) -> None:
    """What a round has removed adds up; what it has left is as of the last one."""
    for status in ("failed", "succeeded", "failed"):
        metrics.saw_scan(status)
    for links in (3, 4):
        metrics.saw_collection(Round(1, links, 2, 9, 90))
    metrics.saw_commit(0.002, 50)
    metrics.saw_commit(0.3, 1)
    found = samples((await metrics.text()).decode())

    removed = [
        found[series("cypd_collection_removed_total", what=it)]
        for it in ("uploads", "links", "blobs")
    ]
    assert removed == [2, 7, 4]
    left = [found[series(f"cypd_collection_unused_{it}")] for it in ("blobs", "bytes")]
    assert left == [9, 90]
    assert found[series("cypd_writer_commit_seconds_bucket", le="0.0025")] == 1
    assert found[series("cypd_writer_commit_seconds_bucket", le="1.0")] == 2
    assert found[series("cypd_writer_commit_seconds_sum")] == pytest.approx(0.302)
    assert found[series("cypd_writer_operations_total")] == 51
    assert found[series("cypd_scans_total", status="succeeded")] == 1
    assert found[series("cypd_scans_total", status="failed")] == 2


async def test_a_thousand_series_are_the_most(tmp_path: Path) -> None:
    """About: with 100 projects (the default), all used in every way, and every kind of request."""
    metadata = LmdbMetadata(tmp_path / "metadata", 64 << 20)
    for number in range(250):
        await metadata.projects.create_project(project(f"project-{number}", 1000))
    state = State(metadata.projects, metadata.webhooks, metadata.figures, tmp_path, named=100)
    metrics = Metrics(tmp_path / "metrics", state, projects=100, waiting_writes=lambda: 0)
    for number in range(250):
        label = metrics.named.label(f"project-{number}", 1)
        for metric, sources in ((PULLED, ("sendfile", "memory")), (PUSHED, ("upload", "manifest"))):
            for source in sources:
                metrics.page.add(metric, 1, label, source)
    application = metered(_answer, metrics.page, metrics.named)
    for path in PATHS:
        for method in ("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"):
            for status in (200, 401, 404):
                scope: Scope = {"method": method, "path": path, "status": status, "extensions": {}}
                await application(scope, None, _nowhere)  # type: ignore[arg-type]
    found = samples((await metrics.text()).decode())
    metrics.close()
    metadata.close()

    named = {dict(labels).get("project") for _, labels in found}
    assert 100 < len(named) <= 203
    assert sum(name == "cypd_pulled_bytes_total" for name, _ in found) == 202
    assert sum(name == "cypd_requests_total" for name, _ in found) == 6 * 7 * 3
    assert len(found) < 1100


async def _answer(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": scope["status"], "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def _nowhere(message: Message) -> None:
    pass
