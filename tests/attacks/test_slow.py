"""Clients that take their time take nobody else's."""

import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.attacks.content import push_blob
from tests.attacks.watch import complaints, descriptors, eventually, kept, tcp_sockets
from tests.attacks.wire import Wire, request
from tests.daemon import Daemon

_HEADER, _IDLE = 3.0, 4.0
_QUICK = 2.0  # less than who waits for the slow ones would wait
_SWEEP = 1.0  # the door looks at its connections once a second
_MARGIN = 5.0  # for a machine that is busy
_CROWD = 200


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that waits for a few seconds."""
    settings = {
        "CYPD_SERVER_HEADER_TIMEOUT": str(_HEADER),
        "CYPD_SERVER_IDLE_TIMEOUT": str(_IDLE),
    }
    with Daemon(tmp_path_factory.mktemp("impatient"), settings) as daemon:
        yield daemon
        assert complaints(daemon) == []


def _slowest(daemon: Daemon) -> float:
    """Return how long the slowest of some ordinary requests took."""
    slowest = 0.0
    for _ in range(20):
        start = time.monotonic()
        assert daemon.request("GET", "/v2/").status == 200
        slowest = max(slowest, time.monotonic() - start)
    return slowest


@pytest.mark.parametrize(
    "start", [b"G", b"GET /v2/ HTTP/1.1\r\n", request("GET", "/v2/")[:-1], b"\r\nGET"], ids=repr
)
def test_a_head_that_does_not_end_is_cut_off(impatient: Daemon, start: bytes) -> None:
    """Whoever sends a head byte by byte gets 408 in time, in a crowd as alone."""
    before = descriptors(impatient)
    with ExitStack() as stack:
        crowd = [stack.enter_context(Wire(impatient.port)) for _ in range(_CROWD)]
        begun = time.monotonic()
        for wire in crowd:
            wire.send(start)
        while time.monotonic() - begun < _HEADER / 2:
            for wire in crowd:
                wire.send(b"x")
            assert _slowest(impatient) < _QUICK
        for wire in crowd:
            assert wire.rest().startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - begun < _HEADER + _SWEEP + _MARGIN
    assert eventually(lambda: not kept(impatient, before))


def test_idle_connections_are_closed(impatient: Daemon) -> None:
    """Whether a request was answered on it or none came, an idle connection ends in time."""
    with ExitStack() as stack:
        crowd = [stack.enter_context(Wire(impatient.port)) for _ in range(_CROWD)]
        for wire in crowd[::2]:
            wire.send(request("GET", "/v2/"))
        for wire in crowd[::2]:
            assert wire.answer().status == 200
        begun = time.monotonic()
        assert _slowest(impatient) < _QUICK
        for wire in crowd:
            assert wire.rest() == b""
        assert time.monotonic() - begun < _IDLE + _SWEEP + _MARGIN


def test_slow_bodies_and_slow_readers_hold_up_nobody(impatient: Daemon) -> None:
    """With a hundred of either, ordinary requests are quick, and the slow ones go on."""
    digest = push_blob(impatient, "slow", bytes(8 << 20))
    download = request("GET", f"/v2/slow/blobs/{digest}")
    upload = request(
        "POST", f"/v2/slow/blobs/uploads/?digest={digest}", b"", [("Content-Length", "8388608")]
    )
    with ExitStack() as stack:
        readers = [
            stack.enter_context(Wire(impatient.port, receive_buffer=4096)) for _ in range(100)
        ]
        writers = [stack.enter_context(Wire(impatient.port)) for _ in range(100)]
        for wire in readers:
            wire.send(download)
        for wire in writers:
            wire.send(upload)
        begun = time.monotonic()
        while time.monotonic() - begun < _IDLE:
            for wire in writers:
                wire.send(b"\0" * 100)
            for wire in readers:
                assert wire.up_to(100)
            assert _slowest(impatient) < _QUICK
        first = readers[0]
        first.send(request("GET", "/v2/"))

        assert b"HTTP/1.1 " in first.rest()[-4000:]


def test_little_is_queued_for_who_reads_nothing(impatient: Daemon) -> None:
    """Of a large pull the kernel holds a small part for a client that takes none of it."""
    digest = push_blob(impatient, "slow/queued", bytes(8 << 20))
    with Wire(impatient.port, receive_buffer=4096) as wire:
        wire.send(request("GET", f"/v2/slow/queued/blobs/{digest}"))
        assert eventually(lambda: _queued(impatient.port, wire.socket.getsockname()[1]) > 0)
        time.sleep(0.5)

        assert _queued(impatient.port, wire.socket.getsockname()[1]) < 1 << 19


def _queued(local: int, remote: int) -> int:
    """Return how many bytes a connection's sender has in the kernel."""
    for it in tcp_sockets():
        if (it.port, it.peer) == (local, remote):
            return it.queued
    return 0
