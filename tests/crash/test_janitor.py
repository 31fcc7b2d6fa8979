"""The janitor, when the folder is not as it expects it to be."""

import os
import time
from pathlib import Path

import pytest

from cypd.oci.digest import Digest
from tests.attacks.watch import eventually
from tests.crash.client import Client
from tests.daemon import Daemon
from tests.syscalls.strace import Strace

SWEEPS = {"CYPD_GC_INTERVAL": "0.1", "CYPD_GC_BLOB_GRACE": "0.1"}
CONTENT = b"to be deleted"
DIGEST = Digest.of(CONTENT)
PATH = f"/v2/library/app/blobs/{DIGEST}"

pytestmark = pytest.mark.timeout(180)


@pytest.mark.parametrize("place", ["uploads", "blobs/sha256/00", f"blobs/sha256/{DIGEST.hex[:2]}"])
def test_a_stray_file_is_left_alone(tmp_path: Path, place: str) -> None:
    """A file that is no blob and no upload stops neither the daemon nor the janitor's work."""
    with Daemon(tmp_path, SWEEPS) as daemon:
        stray = daemon.state / place / ".nfs000000000001"
        stray.touch()
        os.utime(stray, (0, 0))
        _push_and_delete(daemon)
        assert eventually(lambda: not _file(daemon).exists(), 60)
        daemon.kill()
        daemon.start()
        time.sleep(0.3)
        assert stray.exists()


def test_an_upload_that_ends_beside_a_sweep_does_not_stop_it(tmp_path: Path) -> None:
    """A file that vanishes under the janitor, since it became a blob, does not end the sweep."""
    with Daemon(tmp_path, SWEEPS) as daemon:
        busy = daemon.state / "uploads" / "00000000-0000-0000-0000-000000000000"
        gone = ("-e", "trace=newfstatat", "-e", "inject=newfstatat:error=ENOENT")
        with Strace(daemon.pid, tmp_path / "strace.log", "-P", str(busy), *gone):
            busy.touch()
            os.utime(busy, (0, 0))
            _push_and_delete(daemon)
            assert eventually(lambda: not _file(daemon).exists(), 60)
        assert eventually(lambda: not busy.exists(), 60)


def _push_and_delete(daemon: Daemon) -> None:
    with Client(daemon) as client:
        assert client.push("library/app", DIGEST, CONTENT) == 201
        assert client.send("DELETE", PATH).status == 202


def _file(daemon: Daemon) -> Path:
    return daemon.state / "blobs" / "sha256" / DIGEST.hex[:2] / DIGEST.hex
