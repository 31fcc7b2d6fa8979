"""Uploads over restarts: those that were cut, and those that are drained."""

from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from random import Random

import pytest

from cypd.oci.digest import Digest
from tests.attacks.watch import eventually
from tests.crash.client import Client
from tests.crash.oracle import resumed_at
from tests.daemon import Daemon

PARTS = 16
CONTENT = Random(16).randbytes(PARTS * 100_000 + 7)
DIGEST = Digest.of(CONTENT)
PATH = f"/v2/library/app/blobs/{DIGEST}"


def test_a_session_survives_a_kill_after_each_sixteenth(tmp_path: Path) -> None:
    """Each acknowledged chunk is there after a SIGKILL, and half of the next one at most."""
    half = len(CONTENT) // PARTS // 2
    with Daemon(tmp_path) as daemon:
        with Client(daemon) as client:
            location = client.open_session("library/app")
        offset = 0
        for _ in range(PARTS):
            acknowledged = offset + half
            with Client(daemon) as client:
                window = {"Content-Range": f"{offset}-{acknowledged - 1}"}
                chunk = CONTENT[offset:acknowledged]
                assert client.send("PATCH", location, chunk, window).status == 202
                cut = CONTENT[acknowledged : acknowledged + half]
                client.begin("PATCH", location, cut, of=len(CONTENT) - acknowledged)
                daemon.kill()
            daemon.start()
            with Client(daemon) as client:
                offset = resumed_at(client.send("GET", location).headers["Range"])
            assert acknowledged <= offset <= acknowledged + len(cut)
        with Client(daemon) as client:
            path = f"{location}?digest={DIGEST}"
            assert client.send("PUT", path, CONTENT[offset:]).status == 201
            assert client.send("GET", PATH).body == CONTENT
            assert client.send("GET", location).status == 404


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_push_in_flight_ends_before_the_daemon_does(tmp_path: Path, method: str) -> None:
    """After SIGTERM nobody new is let in, the push in flight ends in 201, and the exit is 0."""
    half = len(CONTENT) // 2
    with Daemon(tmp_path) as daemon:
        with Client(daemon) as client, ThreadPoolExecutor(1) as pool:
            location = "/v2/library/app/blobs/uploads/"
            if method == "PUT":
                location = client.open_session("library/app")
            client.begin(method, f"{location}?digest={DIGEST}", CONTENT[:half], of=len(CONTENT))
            assert eventually(lambda: any((daemon.state / "uploads").iterdir()), 20)
            stopped = pool.submit(daemon.stop)
            assert eventually(lambda: _refuses(daemon), 20)
            assert not stopped.done()
            assert client.finish(CONTENT[half:]).status == 201
            stopped.result()  # asserts the exit status
        daemon.start()
        with Client(daemon) as client:
            assert client.send("GET", PATH).body == CONTENT


def _refuses(daemon: Daemon) -> bool:
    """Return whether nobody listens any more, so that the kernel refuses who connects."""
    try:
        with Client(daemon) as late:
            late.send("GET", "/v2/")
    except ConnectionRefusedError:
        return True
    except (OSError, HTTPException):  # it came while the door closed
        pass
    return False
