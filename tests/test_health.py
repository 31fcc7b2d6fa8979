"""Health, as a load balancer and an operator see it."""

import asyncio
import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from cypd.health import Health
from cypd.oci.digest import Digest
from cypd.oci.errors import OCIError
from cypd.registry.ports import Fatal, Unavailable
from cypd.storage.space import FreeSpace
from tests.attacks.watch import connections, eventually
from tests.crash.client import Client
from tests.daemon import Daemon, Response
from tests.samples import EMPTY, image
from tests.systemd.wedge import wedged
from tests.test_cli import run

BLOB_PATH = f"/v2/library/app/blobs/{Digest.of(EMPTY)}"
START_PATH = "/v2/library/app/blobs/uploads/"
NO_FLOOR, NO_ROOM = {"CYPD_STORAGE_MIN_FREE": "0"}, {"CYPD_STORAGE_MIN_FREE": str(1 << 62)}


def ask(daemon: Daemon, path: str = "/readyz") -> tuple[int, str]:
    """Ask without credentials."""
    response = daemon.request("GET", path, auth=False)
    return response.status, response.body.decode().strip()


def test_health_is_open_and_says_a_word(tmp_path: Path) -> None:
    """Both answer everybody, GET and HEAD alone, with nothing about the host."""
    with Daemon(tmp_path) as daemon:
        assert ask(daemon, "/healthz") == (200, "alive")
        assert ask(daemon) == (200, "ready")
        for path in ("/healthz", "/readyz"):
            assert daemon.request("HEAD", path, auth=False).body == b""
            refused = daemon.request("POST", path, auth=False)
            assert (refused.status, refused.headers["Allow"]) == (405, "GET, HEAD")
            assert daemon.request("GET", path, auth=False).headers["Cache-Control"] == "no-store"
        environment = {"CYPD_SERVER_LISTEN": daemon.host}
        done = run("health", folder=tmp_path, environment=environment)
    gone = run("health", folder=tmp_path, environment=environment)

    assert (done.returncode, done.stdout) == (0, "ready\n")
    assert gone.returncode == 1
    assert "nobody answers" in gone.stderr


def test_a_writer_that_hangs_is_not_ready(tmp_path: Path) -> None:
    """The daemon lives and its pulls go on, but it is not ready until the writer answers again."""
    with Daemon(tmp_path) as daemon, Client(daemon) as client:
        assert client.push("library/app", Digest.of(EMPTY), EMPTY) == 201
        time.sleep(1.1)  # an answer holds for a second
        with wedged(daemon):
            assert ask(daemon) == (503, "metadata")
            assert ask(daemon, "/healthz") == (200, "alive")
            assert client.send("GET", BLOB_PATH).body == EMPTY
        time.sleep(1.1)
        assert ask(daemon) == (200, "ready")


def test_a_disk_that_is_almost_full_refuses_pushes_and_nothing_else(tmp_path: Path) -> None:
    """Below storage.min_free: 503 with the reason and Retry-After for pushes; the rest goes on."""
    manifest = image(EMPTY)
    daemon = Daemon(tmp_path, NO_FLOOR)
    with daemon, Client(daemon) as client:
        assert client.push("library/app", Digest.of(EMPTY), EMPTY) == 201
        location = client.open_session("library/app")
    daemon.environment |= NO_ROOM
    with daemon:
        refused = [
            daemon.request("POST", START_PATH),
            daemon.request("POST", f"{START_PATH}?digest={Digest.of(EMPTY)}", body=EMPTY),
            daemon.request("PATCH", location, body=EMPTY),
            daemon.request("PUT", f"{location}?digest={Digest.of(EMPTY)}", body=EMPTY),
            daemon.request("PUT", "/v2/library/app/manifests/latest", body=manifest),
        ]
        assert [_refusal(response) for response in refused] == [(503, "60", True)] * 5
        assert ask(daemon) == (503, "disk")
        assert daemon.request("GET", location).status == 204
        assert daemon.request("GET", BLOB_PATH).body == EMPTY
        assert daemon.request("DELETE", location).status == 204
        assert daemon.request("DELETE", BLOB_PATH).status == 202
        assert daemon.request("POST", START_PATH, auth=False).status == 401
    assert daemon.log.read_text().count("less than storage.min_free") == 1


def _refusal(response: Response) -> tuple[int, str | None, bool]:
    is_clear = b'"UNAVAILABLE","message":"the disk is almost full' in response.body
    return response.status, response.headers["Retry-After"], is_clear


def test_a_daemon_on_its_way_out_is_not_ready(tmp_path: Path) -> None:
    """Who got through before the end is told that this daemon takes nothing new."""
    daemon = Daemon(tmp_path)
    with daemon, Client(daemon) as client:
        assert eventually(lambda: connections(daemon) == 0, 20)
        client.connect()
        assert eventually(lambda: connections(daemon) == 1, 20)
        os.kill(daemon.pid, signal.SIGTERM)
        daemon.wait_for("stopping: ")
        answer = client.send("GET", "/readyz")
        assert (answer.status, answer.body) == (503, b"draining\n")
        daemon.wait_for_end()


async def test_a_store_that_hangs_is_asked_once() -> None:
    """However many ask, one question waits: nobody fills the writer's queue from outside."""
    asked, answer = Counter[str](), asyncio.Event()

    async def probe() -> None:
        asked["store"] += 1
        await answer.wait()

    health = Health(probe, lambda: True, lambda _: None)
    waiting = [asyncio.ensure_future(health.trouble()) for _ in range(100)]
    await asyncio.sleep(0.01)
    answer.set()

    assert set(await asyncio.gather(*waiting)) == {""}
    assert await health.trouble() == ""
    assert asked["store"] == 1


@pytest.mark.parametrize("error", [Unavailable("full"), Fatal("EIO")])
async def test_a_store_that_fails_is_not_ready(error: Exception) -> None:
    """What a look at the store raises is trouble; and where it is fatal, the end is near."""

    async def probe() -> None:
        raise error

    fatal: list[Fatal] = []
    health = Health(probe, lambda: True, fatal.append)

    assert await health.trouble() == "metadata"
    assert not await health.is_well()
    assert fatal == [error] * isinstance(error, Fatal)


def test_what_is_announced_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A push that would go below the floor is refused before its first byte; one look a second."""
    looks = Counter[str]()
    statvfs = os.statvfs

    def look(path: Path) -> os.statvfs_result:
        looks["disk"] += 1
        return statvfs(path)

    monkeypatch.setattr(os, "statvfs", look)
    monkeypatch.setattr(time, "monotonic", lambda: 5.0)
    found = statvfs(tmp_path)
    free = found.f_bavail * found.f_frsize
    space = FreeSpace(tmp_path, free // 2)
    for _ in range(100):
        space.require()
    assert space.is_enough()
    assert looks["disk"] == 1

    with pytest.raises(OCIError):
        FreeSpace(tmp_path, 2 * free).require()
    assert looks["disk"] == 2
