"""How a pull is done, counted in system calls: bytes go from file to socket inside the kernel."""

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from cypd.oci.digest import Digest
from cypd.oci.media_types import OCI_INDEX
from cypd.turn import is_taken
from tests.attacks.watch import eventually, open_files
from tests.crash.client import Client
from tests.daemon import Daemon
from tests.syscalls.strace import Call, Strace

BLOB = Random(0).randbytes(1 << 20) * 256
DIGEST = Digest.of(BLOB)
BLOB_PATH = f"/v2/library/app/blobs/{DIGEST}"
MANIFEST = b'{"schemaVersion":2,"manifests":[]}'
MANIFEST_PATH = "/v2/library/app/manifests/latest"
_READS = {"read", "readv", "pread64", "preadv", "preadv2", "recvfrom", "recvmsg"}
_WRITES = {"write", "writev", "sendto", "sendmsg"}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with a blob of 256 MiB and a manifest; its timers do nothing meanwhile."""
    settings = {
        "CYPD_SCANNING_ENGINE": "off",  # it looks for a new database twice a second
        "CYPD_EVENTS_PULL_INTERVAL": "3600",
    }
    with Daemon(tmp_path_factory.mktemp("pull"), settings) as daemon:
        with Client(daemon) as client:
            assert client.push("library/app", DIGEST, BLOB) == 201
            media_type = {"Content-Type": OCI_INDEX}
            assert client.send("PUT", MANIFEST_PATH, MANIFEST, media_type).status == 201
            _wait_for_sweep(daemon)
        yield daemon


def _wait_for_sweep(daemon: Daemon) -> None:
    """Wait until the janitor's first round is over: it opens files too."""
    assert eventually(lambda: not is_taken(daemon.state / "collection.lock"), 30)


def test_a_pull_moves_its_body_with_sendfile_alone(daemon: Daemon, tmp_path: Path) -> None:
    """256 MiB leave by sendfile(2) to the last byte; reads and writes carry only the heads."""
    with Client(daemon) as client:
        assert client.send("HEAD", BLOB_PATH).status == 200
        before = sorted(open_files(daemon.pid))
        with Strace(daemon.pid, tmp_path / "strace.log", "-y") as strace:
            body = client.send("GET", BLOB_PATH).body
            after = _settled(daemon, before)
        calls = strace.calls()

    assert body == BLOB
    assert sum(it.result for it in calls if it.name == "sendfile" and it.result > 0) == len(BLOB)
    assert _bytes(calls, _WRITES, "socket:") < 1024
    assert _bytes(calls, _READS, "socket:") < 1024
    # Asking whether a page is in memory reads one byte of it: twice for each slice of 1 MiB, and
    # again where the slice did not fit into the socket at once.
    assert _bytes(calls, _READS, DIGEST.hex) <= 4 * len(BLOB) >> 20
    assert not [it for it in calls if it.name in ("mmap", "splice") and DIGEST.hex in it.arguments]
    assert after == before
    _check_balance(calls)


def test_a_manifest_pull_is_three_system_calls(daemon: Daemon, tmp_path: Path) -> None:
    """On a kept connection a manifest by tag costs a wait, a read and a write, and no file."""
    pulls = 300
    usual = Counter(read=pulls, write=pulls)
    found: list[Counter[str]] = []
    while usual not in found and len(found) < 3:  # what is done once a minute may come between
        with Client(daemon) as client:
            assert client.send("GET", MANIFEST_PATH).body == MANIFEST
            with Strace(daemon.pid, tmp_path / "strace.log") as strace:
                for _ in range(pulls):
                    assert client.send("GET", MANIFEST_PATH).status == 200
        # Clocks tick some times a second: waits that time out, and asyncio asks which process it
        # is in.
        ticks = {("epoll_pwait", 0), ("getpid", daemon.pid)}
        counts = Counter(it.name for it in strace.calls() if (it.name, it.result) not in ticks)
        assert pulls - 1 <= counts.pop("epoll_pwait") <= pulls * 1.5
        found.append(counts)

    assert usual in found


def _bytes(calls: list[Call], names: set[str], file: str) -> int:
    """Return how many bytes some calls moved from or to a file."""
    return sum(
        max(0, call.result)
        for call in calls
        if call.name in names and file in call.arguments.partition(",")[0]
    )


def _check_balance(calls: list[Call]) -> None:
    """Every descriptor that was opened was closed, and no other."""
    opened = {"open", "openat", "dup", "dup2", "dup3", "accept4", "socket"}
    opens = sum((it.name in opened or "F_DUPFD" in it.arguments) and it.result >= 0 for it in calls)
    assert opens == sum(it.name == "close" and it.result == 0 for it in calls)


def _settled(daemon: Daemon, expected: list[str], seconds: float = 20) -> list[str]:
    """Return what is open when the exchange is over, a moment after its last byte arrived."""
    deadline = time.monotonic() + seconds
    while (found := sorted(open_files(daemon.pid))) != expected and time.monotonic() < deadline:
        time.sleep(0.02)
    return found
