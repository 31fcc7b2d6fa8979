"""A request to delete a blob that reaches the store late, when the blob has been pushed again."""

import time
from pathlib import Path

import pytest

from cypd.oci.digest import Digest
from tests.crash.client import Client
from tests.crash.gate import Gate
from tests.daemon import Daemon
from tests.weed import Weed

CONTENT = b"to be deleted, and to be pushed again"
DIGEST = Digest.of(CONTENT)
PATH = f"/v2/library/app/blobs/{DIGEST}"
SWEEPS = {"CYPD_GC_INTERVAL": "0.3", "CYPD_GC_BLOB_GRACE": "0.1"}


@pytest.mark.waits
@pytest.mark.timeout(600)
@pytest.mark.parametrize("is_killed", [True, False])
@pytest.mark.parametrize("is_later", [True, False])
def test_a_late_delete_takes_nothing_that_was_pushed_since(
    tmp_path: Path, *, is_killed: bool, is_later: bool
) -> None:
    """Once a push is answered, no delete of before it takes the blob, whoever sent it and died."""
    with (
        Weed(tmp_path) as weed,
        Gate(weed.port, _deletes_the_blob) as gate,
        Daemon(tmp_path, weed.environment | SWEEPS | {"CYPD_S3_ENDPOINT": gate.endpoint}) as daemon,
    ):
        assert _push(daemon) == 201
        assert daemon.request("DELETE", PATH).status == 202
        assert gate.held.wait(60), "the janitor deletes nothing"
        if is_killed:
            daemon.kill()
            daemon.start()
        if not is_later:
            gate.release()
        _push_until_done(daemon)
        gate.release()
        deadline = time.monotonic() + 30
        while not gate.answered:
            assert time.monotonic() < deadline, "the store has not answered the delete"
            time.sleep(0.1)
        time.sleep(1)

        response = daemon.request("GET", PATH)
        assert (response.status, response.body) == (200, CONTENT)
        with Client(daemon) as client:  # not from the memory of this process either
            daemon.kill()
            daemon.start()
            assert client.send("GET", PATH).body == CONTENT


def _deletes_the_blob(request: bytes) -> bool:
    line = request.partition(b"\r\n")[0]
    return DIGEST.hex.encode() in request and (line.startswith(b"DELETE ") or b"?delete" in line)


def _push(daemon: Daemon) -> int:
    with Client(daemon, timeout=200) as client:
        return client.push("library/app", DIGEST, CONTENT)


def _push_until_done(daemon: Daemon) -> None:
    """Push as a client does that is told to try again."""
    deadline = time.monotonic() + 300
    while (status := _push(daemon)) != 201:
        assert status == 503
        assert time.monotonic() < deadline, "the blob can't be pushed again"
        time.sleep(1)
