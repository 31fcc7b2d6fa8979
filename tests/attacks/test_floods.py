"""Crowds: of slow clients, and of connections that nobody has descriptors for."""

import contextlib
import json
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks.content import push_blob
from tests.attacks.watch import (
    anonymous_memory,
    complaints,
    descriptors,
    eventually,
    kept,
    processor_seconds,
)
from tests.attacks.wire import AUTHORIZATION, Wire, request
from tests.daemon import Daemon

_SLOW = 300
_BORNE = 40.0  # seconds
_DESCRIPTORS = 256
_FLOOD = 2000
ROOT = Path(__file__).parents[2]


@pytest.fixture
def flooded(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon that has few descriptors."""
    with Daemon(tmp_path) as daemon:
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (_DESCRIPTORS, _DESCRIPTORS))
        yield daemon
        assert complaints(daemon) == []


class Visitor(threading.Thread):
    """Sends ordinary requests on a connection of its own all the time, while its context lasts."""

    def __init__(self, daemon: Daemon) -> None:
        super().__init__()
        self._wire = Wire(daemon.port)
        self._done = threading.Event()
        self.waits: list[float] = []
        self.statuses: set[int] = set()

    def __enter__(self) -> "Visitor":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()
        self._wire.close()

    def run(self) -> None:
        while not self._done.wait(0.02):
            begun = time.monotonic()
            self._wire.send(request("GET", "/v2/"))
            self.statuses.add(self._wire.answer().status)
            self.waits.append(time.monotonic() - begun)


@pytest.mark.waits
@pytest.mark.timeout(180)
def test_slow_clients_are_reaped(tmp_path: Path) -> None:
    """Hundreds that dribble headers, bodies and reads are gone in 40 s, and hold up nobody."""
    with Daemon(tmp_path) as daemon:
        blob = f"/v2/benchmarks/slow/blobs/{push_blob(daemon, 'benchmarks/slow', bytes(8 << 20))}"
        before = descriptors(daemon)
        command = [sys.executable, "-m", "benchmarks.dribble", str(daemon.port), str(_SLOW)]
        with Visitor(daemon) as visitor:
            done = subprocess.run(
                [*command, blob, AUTHORIZATION], cwd=ROOT, capture_output=True, check=True
            )
        outcome = json.loads(done.stdout)

        assert outcome["closed"] == _SLOW
        assert outcome["longest"] < _BORNE
        assert visitor.statuses == {200}
        assert sorted(visitor.waits)[int(len(visitor.waits) * 0.99)] < 1
        assert eventually(lambda: not kept(daemon, before))
        assert complaints(daemon) == []


def test_slow_bodies_take_little_memory(tmp_path: Path) -> None:
    """A body that comes byte by byte takes a page of its buffer, not all of it."""
    with Daemon(tmp_path) as daemon, contextlib.ExitStack() as stack:
        target = "/v2/slow/app/blobs/uploads/?digest=sha256:" + "0" * 64
        begin = request("POST", target, fields=[("Content-Length", "1000000")])
        before = anonymous_memory(daemon)
        for _ in range(_SLOW):
            stack.enter_context(Wire(daemon.port)).send(begin + b"x")
        time.sleep(1)

        assert anonymous_memory(daemon) - before < _SLOW * (64 << 10)


def test_there_is_room_for_descriptors(tmp_path: Path) -> None:
    """The kernel has not to enlarge the table, for which all threads would wait."""
    with Daemon(tmp_path, {"CYPD_SERVER_MAX_CONNECTIONS": "5000"}) as daemon:
        status = Path(f"/proc/{daemon.pid}/status").read_text()
        room = int(status.partition("FDSize:")[2].split()[0])
        _, most = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)

        assert room >= min(15_000, most)
        assert len(descriptors(daemon)) < 100


@pytest.mark.alone
def test_a_flood_of_connections(flooded: Daemon) -> None:
    """More connections than descriptors: who is there is served, and all are when it is over."""
    digest = push_blob(flooded, "flooded/app", bytes(1 << 20))
    with contextlib.ExitStack() as stack, Visitor(flooded) as visitor, Wire(flooded.port) as early:
        for _ in range(_FLOOD):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError, ConnectionResetError):
                sock.connect(("127.0.0.1", flooded.port))
        time.sleep(0.5)
        used = processor_seconds(flooded)
        time.sleep(1)
        spinning = processor_seconds(flooded) - used
        assert not _answers(flooded)  # it does not hang either
        before = len(visitor.waits)
        assert eventually(lambda: len(visitor.waits) > before)
        early.send(request("GET", f"/v2/flooded/app/blobs/{digest}"))
        assert early.answer().status == 200  # there are descriptors for files
    begun = time.monotonic()
    assert eventually(lambda: _answers(flooded), 5)

    assert time.monotonic() - begun < 1
    assert spinning < 0.5
    assert visitor.statuses == {200}
    assert max(visitor.waits) < 5
    assert "new connections turned away" in flooded.log.read_text()


def _answers(daemon: Daemon) -> bool:
    try:
        return daemon.request("GET", "/v2/").status == 200
    except OSError:
        return False
