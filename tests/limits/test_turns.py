"""Who gets how much of what a daemon can send, when clients take more than that."""

import os
import selectors
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.attacks.content import push_blob
from tests.attacks.wire import PATIENCE, Wire, request
from tests.daemon import Daemon

MIB = 1 << 20
SIZE = 64 * MIB
PULLS = 32


@pytest.mark.timeout(120)
def test_large_pulls_take_turns_by_client(tmp_path: Path) -> None:
    """Beside a client with many pulls, one with a single pull is sent about as much as that one."""
    with Daemon(tmp_path) as daemon, ExitStack() as stack, ThreadPoolExecutor(1) as pool:
        digest = push_blob(daemon, "fair/app", bytes(SIZE))

        def begin(address: str) -> socket.socket:
            wire = stack.enter_context(Wire(daemon.port, address=address))
            wire.send(request("GET", f"/v2/fair/app/blobs/{digest}"))
            return wire.socket

        pool.submit(come_first, daemon).result()
        taken = {begin("127.0.0.1"): 0 for _ in range(PULLS)}
        pool.submit(take, taken, lambda: all(taken.values())).result()
        before = sum(taken.values())
        single = begin("127.0.0.2")
        taken[single] = 0
        pool.submit(take, taken, lambda: taken[single] >= SIZE).result()

    many = sum(taken.values()) - taken[single] - before
    assert many < 10 * SIZE  # by pulls it would be 30 times as much


def come_first(daemon: Daemon) -> None:
    """Let this thread take what the daemon sends before the daemon goes on: have one core for both,
    and precedence there. So sockets always have room, and what is sent is the daemon's choice.
    """
    core = {max(os.sched_getaffinity(0))}
    os.sched_setaffinity(daemon.pid, core)
    os.sched_setaffinity(0, core)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        pytest.skip("precedence over the daemon (SCHED_FIFO) needs root")


def take(taken: dict[socket.socket, int], is_enough: Callable[[], bool]) -> None:
    """Read whatever comes on all connections, and count it, until it is enough."""
    with selectors.DefaultSelector() as selector:
        for connection in taken:
            selector.register(connection, selectors.EVENT_READ, connection)
        unused = bytearray(8 * MIB)
        while not is_enough():
            ready = selector.select(PATIENCE)
            assert ready, "the daemon sends nothing"
            for key, _ in ready:
                # MSG_TRUNC: TCP lets the bytes go instead of copying them (tcp(7)).
                count = key.data.recv_into(unused, 0, socket.MSG_TRUNC)
                assert count, "the daemon has closed"
                taken[key.data] += count
