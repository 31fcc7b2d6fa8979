"""SIGKILL at the entry of each system call with which pushes, tags and deletes are done."""

import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from cypd.oci.digest import Digest
from tests.crash import oracle
from tests.crash.client import Client
from tests.crash.pusher import GONE, Pusher
from tests.crash.shelf import Change, Log, Shelf
from tests.daemon import Daemon
from tests.syscalls.strace import Strace

CALLS = ["openat", "pwrite64", "writev", "fchmod", "fdatasync", "rename", "fsync", "unlink"]
# As many points of each call as there is time for; those of a thread are counted by themselves.
POINTS = int(os.environ.get("CRASH_POINTS") or (6 if os.environ.get("CI") else 2))
_SOURCE = b"to be mounted"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("call", CALLS)
def test_sigkill_at_each_system_call(tmp_path: Path, call: str) -> None:
    """Killed at the n-th call of a kind, whichever n, the daemon keeps its word."""
    log = Log(tmp_path / "acknowledged.jsonl")
    points = 0
    with Daemon(tmp_path) as daemon:
        shelves = [_source(daemon, log)]
        for when in range(1, POINTS + 1):
            shelf = Shelf(f"crash/{when}", log)
            shelves.append(shelf)
            inject = ("-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={when}")
            if not _is_killed(daemon, shelves, tmp_path / "strace.log", *inject):
                break
            points += 1
            daemon.kill()
            oracle.check_metadata(daemon.state, oracle.ever(shelves))
            daemon.start()
            with Client(daemon) as client:
                oracle.check(client, shelf, shelf.ever)
        daemon.kill()
        daemon.environment |= {"CYPD_UPLOADS_SESSION_TTL": "0.1", "CYPD_GC_BLOB_GRACE": "0.1"}
        daemon.environment |= {"CYPD_GC_INTERVAL": "0.1"}
        daemon.start()
        oracle.wait_until_clean(daemon.state, shelves)
        with Client(daemon) as client:
            for shelf in shelves:
                oracle.check(client, shelf, shelf.ever)
    log.sync()
    log.close()

    print(f"{call}: {points} points")  # noqa: T201 (for the curious: pytest -s)
    assert points


def _source(daemon: Daemon, log: Log) -> Shelf:
    """Return a repository with a blob that others mount."""
    shelf = Shelf("crash/source", log)
    digest = str(Digest.of(_SOURCE))
    with Client(daemon) as client:
        shelf.sizes[digest] = len(_SOURCE)
        shelf.intend(Change("link", digest))
        assert client.push(shelf.repository, digest, _SOURCE) == 201
        shelf.settle(done=True)
    return shelf


def _is_killed(daemon: Daemon, shelves: Sequence[Shelf], log: Path, *inject: str) -> bool:
    """Do everything once under a trap; return whether the daemon stepped into it."""
    with Client(daemon) as client:
        assert client.send("GET", "/v2/").status == 200
        pusher = Pusher(client, shelves[-1], shelves[:1], Random(1), threading.Event())
        with Strace(daemon.pid, log, *inject), suppress(*GONE):
            pusher.run_once()
            return False
    return True
