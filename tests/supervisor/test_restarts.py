"""Restarts that nobody notices: by SIGHUP, and of a service whose sockets somebody else keeps."""

import asyncio
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from cypd.oci.media_types import OCI_INDEX
from tests.crash.client import Client
from tests.supervisor.load import Load, Uploader
from tests.systemd.launcher import Launcher

RESTARTS = 50 if os.environ.get("CI") else 8
REQUESTS_PER_SECOND = 300

MANIFEST = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).encode()
PATH = "/v2/library/app/manifests/latest"
UPLOAD_BYTES, UPLOAD_SECONDS = 2_000_000, 3.0
SETTINGS = {
    "CYPD_ACCESS_ANONYMOUS": "pull",
    "CYPD_SERVER_DRAIN_TIMEOUT": "1",  # less than an upload takes: each restart cuts some
}


def hang_up(service: Launcher) -> None:
    """Have new workers, and return when they serve."""
    reloads, ready = service.heard("RELOADING=1"), service.heard("READY=1")
    os.kill(service.pid, signal.SIGHUP)
    service.hear("RELOADING=1", count=reloads + 1, deadline=60)
    service.hear("READY=1", count=ready + 1, deadline=60)


def restart(service: Launcher) -> None:
    """Stop the service, and start it on the same sockets."""
    service.stop(60)
    service.start(60)


@pytest.mark.waits
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("again", [hang_up, restart])
async def test_nobody_notices_a_restart(tmp_path: Path, again: Callable[[Launcher], None]) -> None:
    """Restart after restart every request is a 200, and every upload that was cut is resumed."""
    with Launcher(tmp_path, SETTINGS) as service:
        with Client(service) as client:
            media_type = {"Content-Type": OCI_INDEX}
            assert client.send("PUT", PATH, MANIFEST, media_type).status == 201
        load = Load(service.port, PATH, MANIFEST, per_second=REQUESTS_PER_SECOND)
        uploaders = [
            Uploader(service, f"library/up{number}", UPLOAD_BYTES, UPLOAD_SECONDS)
            for number in range(3)
        ]
        running = asyncio.ensure_future(load.run())
        for uploader in uploaders:
            uploader.start()
        for _ in range(RESTARTS):
            await asyncio.sleep(0.3)
            await asyncio.to_thread(again, service)
        load.stop()
        await running
        for uploader in uploaders:
            await asyncio.to_thread(uploader.stop)

    assert load.outcomes == {"200": load.sent}
    assert load.sent > RESTARTS * REQUESTS_PER_SECOND / 2
    assert all(uploader.done for uploader in uploaders)
    assert sum(uploader.cuts for uploader in uploaders) >= RESTARTS / 2
    statuses = sum((uploader.statuses for uploader in uploaders), start=uploaders[0].statuses)
    assert [status for status in statuses if status >= 500] == []
