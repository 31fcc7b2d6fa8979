"""Limits of a running daemon: what is refused, how, and who is not."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.attacks.content import push_blob
from tests.attacks.watch import connections, eventually
from tests.attacks.wire import Closed, Wire, request
from tests.daemon import Daemon

MIB = 1 << 20
Start = Callable[..., Daemon]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a daemon with limits: ``start(requests_per_client=2)``."""
    running: list[Daemon] = []

    def start_one(section: str = "limits", **settings: float) -> Daemon:
        environment = {f"CYPD_{section}_{key}".upper(): str(it) for key, it in settings.items()}
        daemon = Daemon(tmp_path, environment)
        daemon.start()
        running.append(daemon)
        return daemon

    yield start_one
    for daemon in running:
        daemon.stop()


def visit(daemon: Daemon) -> None:
    """Ask on a connection of its own; raise where it is closed before the answer."""
    with Wire(daemon.port) as wire:
        wire.send(request("GET", "/v2/"))
        wire.answer()


def test_requests_of_a_client(start: Start) -> None:
    """Past the limit both APIs answer 429 in their own words, with the time to wait for."""
    daemon = start(requests_per_client=0.2, burst=20)
    statuses = [daemon.request("GET", "/v2/").status for _ in range(6)]
    v2 = daemon.request("GET", "/v2/")
    api = daemon.request("GET", "/api/v1/projects", headers={"X-Forwarded-For": "192.0.2.1"})

    assert statuses[0] == 200
    assert statuses[-1] == v2.status == api.status == 429
    assert json.loads(v2.body)["errors"][0]["code"] == "TOOMANYREQUESTS"
    envelope = json.loads(api.body)
    assert (envelope["code"], envelope["data"]) == (10005, None)
    assert envelope["trace_id"] == api.headers["X-Request-ID"]
    for refused in (v2, api):
        assert 1 <= int(refused.headers["Retry-After"]) <= 5
    assert daemon.request("GET", "/healthz").status == 200
    assert daemon.request("GET", "/readyz").status == 200
    time.sleep(int(v2.headers["Retry-After"]))
    assert daemon.request("GET", "/v2/").status == 200


def test_other_clients_are_not_meant(start: Start) -> None:
    """One address past its limit leaves all of it to another."""
    daemon = start(requests_per_client=0.1, burst=1)
    daemon.request("GET", "/v2/")
    assert daemon.request("GET", "/v2/").status == 429
    with Wire(daemon.port, address="127.0.0.2") as other:
        other.send(request("GET", "/v2/"))

        assert other.answer().status == 200


def test_requests_of_a_project(start: Start) -> None:
    """A project's limit is for those who may use it: strangers can't use it up, or see it."""
    daemon = start(requests_per_project=0.1, burst=100)
    digest = push_blob(daemon, "busy/app", b"content")
    for _ in range(12):
        assert daemon.request("GET", f"/v2/busy/app/blobs/{digest}", auth=False).status == 401
    answers = [daemon.request("GET", f"/v2/busy/app/blobs/{digest}") for _ in range(12)]
    quiet = daemon.request("GET", "/v2/quiet/app/tags/list")

    assert answers[0].status == 200
    assert answers[-1].status == 429
    assert json.loads(answers[-1].body)["errors"][0]["code"] == "TOOMANYREQUESTS"
    assert int(answers[-1].headers["Retry-After"]) >= 1
    assert quiet.status == 404
    assert daemon.request("GET", f"/v2/busy/app/blobs/{digest}", auth=False).status == 401


@pytest.mark.parametrize("whose", ["bytes_per_client", "bytes_per_project"])
def test_bytes_are_held_to_a_pace(start: Start, whose: str) -> None:
    """A push and a pull take as long as the rate makes them, and are whole."""
    daemon = start(**{whose: 4 * MIB}, burst=0.1)
    content = bytes(range(256)) * (8 * MIB // 256)
    begun = time.monotonic()
    digest = push_blob(daemon, "paced/app", content)
    pushed = time.monotonic()
    answer = daemon.request("GET", f"/v2/paced/app/blobs/{digest}")
    pulled = time.monotonic()

    assert (answer.status, answer.body) == (200, content)
    assert pushed - begun > 1.5
    assert pulled - pushed > 1.5
    assert daemon.request("GET", "/healthz").status == 200


def test_connections_of_a_client(start: Start) -> None:
    """One connection too many is closed at once; another address has its own."""
    daemon = start(connections_per_client=2)
    assert eventually(lambda: connections(daemon) == 0, 20)  # those of the start are gone
    with Wire(daemon.port) as first, Wire(daemon.port) as second:
        for wire in (first, second):
            wire.send(request("GET", "/v2/"))
            assert wire.answer().status == 200
        with pytest.raises((Closed, ConnectionResetError)):
            visit(daemon)
        with Wire(daemon.port, address="127.0.0.2") as other:
            other.send(request("GET", "/v2/"))
            assert other.answer().status == 200
    assert eventually(lambda: connections(daemon) == 0, 20)
    assert daemon.request("GET", "/v2/").status == 200


def test_open_uploads_of_a_project(start: Start) -> None:
    """Users together may have so many uploads open in one project; finishing one makes room."""
    daemon = start("uploads", max_sessions_per_project=2)
    opened = [daemon.request("POST", "/v2/few/app/blobs/uploads/") for _ in range(3)]
    elsewhere = daemon.request("POST", "/v2/other/app/blobs/uploads/")

    assert [it.status for it in opened] == [202, 202, 429]
    assert json.loads(opened[2].body)["errors"][0]["code"] == "TOOMANYREQUESTS"
    assert elsewhere.status == 202
    assert daemon.request("DELETE", opened[0].headers["Location"]).status == 204
    assert daemon.request("POST", "/v2/few/app/blobs/uploads/").status == 202
