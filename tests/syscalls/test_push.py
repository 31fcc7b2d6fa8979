"""What a push costs in flushes, and their order: bytes, then their name, then the link to them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cypd.oci.digest import ALGORITHMS, Digest
from cypd.registry.room import UNRESERVED_BYTES
from tests.crash.client import Client
from tests.daemon import Daemon
from tests.syscalls.strace import Call, Strace, parse, require_strace

SOURCE = b"to be mounted"
COMMIT = ["fdatasync metadata", "meta page"]
PUSH = ["fdatasync upload", "rename", "fsync shard", *COMMIT]
# The last, of 120 bytes, is LMDB's meta page, on a descriptor that is synchronous (O_DSYNC).
_FLUSHES = "trace=fdatasync,fsync,rename,pwrite64,sync,syncfs,sync_file_range"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with one blob, so that no thread has to be started any more."""
    with Daemon(tmp_path_factory.mktemp("push")) as daemon:
        with Client(daemon) as client:
            assert client.push("library/app", Digest.of(SOURCE), SOURCE) == 201
        yield daemon


@pytest.mark.parametrize("size", [1, 10_000, 300_000, UNRESERVED_BYTES])
def test_a_push_is_durable_with_three_flushes(daemon: Daemon, tmp_path: Path, size: int) -> None:
    """fdatasync of the file, rename, fsync of the folder, one commit; only then the answer."""
    content = b"x" * size
    with Client(daemon) as client:
        assert client.send("GET", "/v2/").status == 200
        with Strace(daemon.pid, tmp_path / "strace.log", "-y", "-e", _FLUSHES) as strace:
            assert client.push("library/app", Digest.of(content), content) == 201

    assert _steps(strace.calls()) == PUSH


def test_a_large_push_commits_once_before(daemon: Daemon, tmp_path: Path) -> None:
    """Its room in the quota is reserved before its bytes are read; nothing else is added."""
    content = b"x" * (UNRESERVED_BYTES + 1)
    with Client(daemon) as client:
        assert client.send("GET", "/v2/").status == 200
        with Strace(daemon.pid, tmp_path / "strace.log", "-y", "-e", _FLUSHES) as strace:
            assert client.push("library/app", Digest.of(content), content) == 201

    assert _steps(strace.calls()) == [*COMMIT, *PUSH]


def test_a_mount_is_durable_with_one_commit(daemon: Daemon, tmp_path: Path) -> None:
    """A mount touches no file but the metadata."""
    with Client(daemon) as client:
        assert client.send("GET", "/v2/").status == 200
        path = f"/v2/library/other/blobs/uploads/?mount={Digest.of(SOURCE)}&from=library/app"
        with Strace(daemon.pid, tmp_path / "strace.log", "-y", "-e", _FLUSHES) as strace:
            assert client.send("POST", path, b"").status == 201

    assert _steps(strace.calls()) == COMMIT


def test_a_chunk_flushes_nothing(daemon: Daemon, tmp_path: Path) -> None:
    """A chunk is promised to survive the process, not the machine: it waits for no disk."""
    with Client(daemon) as client:
        location = client.open_session("library/app")
        with Strace(daemon.pid, tmp_path / "strace.log", "-y", "-e", _FLUSHES) as strace:
            assert client.send("PATCH", location, b"x" * 300_000).status == 202

    assert _steps(strace.calls()) == []


def test_a_start_saves_the_names_of_all_folders(tmp_path: Path) -> None:
    """Each start fsyncs the folders that hold folders: the start before may have been killed."""
    daemon = Daemon(tmp_path)
    log = tmp_path / "strace.log"
    with daemon:
        daemon.kill()
        options = ("-f", "--seccomp-bpf", "-y", "-o", str(log), "-e", "trace=fsync")
        daemon.command = (require_strace(), *options, *Daemon.command)
        daemon.start()
        daemon.kill()
    saved = {call.arguments.partition("<")[2].rstrip(">") for call in parse(log.read_text())}
    blobs = daemon.state / "blobs"
    folders = [tmp_path, daemon.state, blobs, *(blobs / algorithm for algorithm in ALGORITHMS)]
    assert saved >= {str(folder) for folder in folders}


def _steps(calls: list[Call]) -> list[str]:
    """Return what was flushed or placed, in order; LMDB's data pages are counted by its flush."""
    steps = []
    for call in calls:
        target = call.arguments.partition("<")[2].partition(">")[0]
        is_metadata = target.endswith("data.mdb")
        if call.name == "rename":
            steps.append("rename")
        elif call.name == "pwrite64":
            if is_metadata and call.result < 4096:
                steps.append("meta page")
        else:
            kind = "metadata" if is_metadata else "upload" if "/uploads/" in target else "shard"
            steps.append(f"{call.name} {kind}")
    return steps
