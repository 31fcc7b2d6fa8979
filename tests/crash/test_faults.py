"""Errors of the disk, put into the daemon's system calls with strace(1).

A full disk passes: 503, and on it goes. A disk that errs (EIO) can't be trusted: exit status 70, so
that whoever supervises the daemon starts it anew and it sees what is really there.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from time import sleep
from typing import NamedTuple

import pytest

from cypd.oci.digest import Digest
from tests.attacks.watch import eventually
from tests.crash import oracle
from tests.crash.client import Client
from tests.crash.mortal import Mortal
from tests.syscalls.strace import Strace

KEPT = b"acknowledged before"
SMALL = b"s" * 10_000
LARGE = b"l" * 300_000


class Fault(NamedTuple):
    """A system call on a file of one push."""

    call: str
    file: str

    def __str__(self) -> str:
        return f"{self.call}-{self.file}"


FAULTS = [
    Fault("openat", "upload"),
    Fault("pwrite64", "upload"),
    Fault("fdatasync", "upload"),
    Fault("rename", "upload"),
    Fault("fsync", "shard"),
    Fault("pwrite64", "metadata"),
    Fault("fdatasync", "metadata"),
]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Mortal]:
    """A daemon with one blob in it."""
    daemon = Mortal(tmp_path)
    with daemon:
        with Client(daemon) as client:
            assert client.push("library/app", _digest(KEPT), KEPT) == 201
        yield daemon


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_full_disk_is_told_and_passes(
    daemon: Mortal, tmp_path: Path, fault: Fault, content: bytes
) -> None:
    """ENOSPC at any step of a push is a 503; the daemon goes on, and the push repeated a 201."""
    with Client(daemon) as client:
        assert _push_into(daemon, client, fault, "ENOSPC", content, tmp_path) == 503
        assert client.send("GET", _path(KEPT)).body == KEPT
        assert client.send("GET", _path(content)).status == 404
        assert client.push("library/app", _digest(content), content) == 201
        assert client.send("GET", _path(content)).body == content


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_disk_that_errs_ends_the_daemon(
    daemon: Mortal, tmp_path: Path, fault: Fault, content: bytes
) -> None:
    """EIO at any step of a push is never a 201 and ends the daemon with 70; a restart heals."""
    with Client(daemon) as client:
        status = _push_into(daemon, client, fault, "EIO", content, tmp_path)

    assert status == 500
    assert daemon.ended() == 70
    oracle.check_metadata(daemon.state, map(_digest, (KEPT, content)))
    daemon.start()
    with Client(daemon) as client:
        assert client.send("GET", _path(KEPT)).body == KEPT
        found = client.send("GET", _path(content))
        assert found.status == 404 or (fault.file == "metadata" and found.body == content)
        assert client.push("library/app", _digest(content), content) == 201
        assert client.send("GET", _path(content)).body == content


def test_one_error_of_the_disk_fails_every_write_of_its_commit(
    daemon: Mortal, tmp_path: Path
) -> None:
    """EIO for a commit of several writes ends the daemon: none is tried again and acknowledged."""
    digest = _digest(KEPT)
    # While the first commit waits in its first write, the other mounts queue up for the second.
    slow = "inject=pwrite64:delay_enter=3000000:when=1"
    inject = (
        "-e",
        "trace=pwrite64,fdatasync",
        "-e",
        slow,
        "-e",
        "inject=fdatasync:error=EIO:when=2",
    )
    only = ("-P", str(daemon.state / "metadata" / "data.mdb"))
    log = tmp_path / "strace.log"
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(daemon)) for _ in range(6)]
        for client in clients:
            assert client.send("GET", "/v2/").status == 200
        assert clients[0].push("mount/first", digest, KEPT) == 201  # the project is there

        def mount(number: int) -> int:
            if number:
                assert eventually(lambda: log.stat().st_size > 0, 20), "that write has not begun"
            path = f"/v2/mount/{number}/blobs/uploads/?mount={digest}&from=library/app"
            return clients[number].send("POST", path, b"").status

        with (
            ThreadPoolExecutor(len(clients)) as pool,
            Strace(daemon.pid, log, *only, *inject),
        ):
            assert list(pool.map(mount, range(len(clients)))) == [201, 500, 500, 500, 500, 500]

    assert daemon.ended() == 70


@pytest.mark.parametrize("error", ["ENOSPC", "EDQUOT"])
def test_a_full_disk_never_leaves_a_daemon_that_only_fails(
    daemon: Mortal, tmp_path: Path, error: str
) -> None:
    """Whichever page of a commit finds no room, the daemon goes on or ends: it is never stuck.

    LMDB begins no transaction any more, not even a reader's, once a meta page failed.
    """
    data = daemon.state / "metadata" / "data.mdb"
    endings = set()
    for when in range(1, 6):
        inject = ("-e", "trace=pwrite64", "-e", f"inject=pwrite64:error={error}:when={when}")
        content = b"%d" % when
        with Client(daemon) as client:
            assert client.send("GET", "/v2/").status == 200
            with Strace(daemon.pid, tmp_path / "strace.log", "-P", str(data), *inject):
                status = client.push("library/app", _digest(content), content)
        endings.add(status)
        if status == 500:
            assert daemon.ended() == 70
            daemon.start()
        with Client(daemon) as client:
            assert client.send("GET", _path(KEPT)).body == KEPT
            assert client.push("library/app", _digest(content), content) == 201

    assert endings <= {201, 503, 500}
    assert 500 in endings  # the meta page was among them


def test_a_disk_that_errs_ends_the_daemon_though_the_client_has_gone(
    daemon: Mortal, tmp_path: Path
) -> None:
    """EIO for the bytes that a broken-off upload leaves ends the daemon as any other does."""
    with Client(daemon) as client:
        location = client.open_session("library/app")
        upload = daemon.state / "uploads" / location.rpartition("/")[2]
        inject = ("-e", "trace=pwrite64", "-e", "inject=pwrite64:error=EIO:when=1")
        with Strace(daemon.pid, tmp_path / "strace.log", "-P", str(upload), *inject):
            client.begin("PATCH", location, SMALL, of=2 * len(SMALL))
            sleep(0.3)
            client.close()
            assert daemon.ended() == 70


def _push_into(
    daemon: Mortal, client: Client, fault: Fault, error: str, content: bytes, tmp_path: Path
) -> int:
    """Push in two requests, the second of which meets the fault; return its status."""
    digest = _digest(content)
    location = client.open_session("library/app")
    files = {
        "upload": daemon.state / "uploads" / location.rpartition("/")[2],
        "shard": daemon.state / "blobs" / "sha256" / Digest(digest).hex[:2],
        "metadata": daemon.state / "metadata" / "data.mdb",
    }
    only = ("-P", str(files[fault.file]))
    inject = ("-e", f"trace={fault.call}", "-e", f"inject={fault.call}:error={error}:when=1")
    with Strace(daemon.pid, tmp_path / "strace.log", *only, *inject):
        return client.send("PUT", f"{location}?digest={digest}", content).status


def _digest(content: bytes) -> str:
    return str(Digest.of(content))


def _path(content: bytes) -> str:
    return f"/v2/library/app/blobs/{_digest(content)}"
