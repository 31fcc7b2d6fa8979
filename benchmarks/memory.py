"""Claim: a client that waits costs memory counted in kilobytes."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

from benchmarks.figures import Figure, Result, Target
from benchmarks.http import Connection
from benchmarks.kernel import anonymous_memory
from benchmarks.lab import Lab, Sample
from benchmarks.oci import Blob
from benchmarks.servers import Server

KIB = 1024
PEERS = ("cypd", "docker-registry")
WARM_UP = 20  # requests before the first look, so that one-time allocations do not count
SETTLE = 1.0  # seconds for the server to fill every socket buffer


def run(lab: Lab) -> Iterator[Result]:
    """Compare resident anonymous memory with and without the connections, in a fresh server."""
    blob = Blob.of(os.urandom(lab.scale.large))
    small = Blob.of(os.urandom(lab.scale.small))

    def stalled(name: str) -> Sample:
        with lab.running(name) as servers:
            server = servers[name]
            path, warm = server.put_blob(blob), server.put_blob(small)
            return _growth(server, lab.scale.stalled_pulls, path, warm, answer=False)

    def idle(name: str) -> Sample:
        with lab.running(name) as servers:
            return _growth(servers[name], lab.scale.idle_connections, "/v2/", "/v2/", answer=True)

    yield lab.compare(
        Figure(
            f"memory of a stalled pull, {lab.scale.stalled_pulls:,} at once",
            "KiB",
            "lower",
            [Target(32)],
        ),
        PEERS,
        stalled,
    )
    yield lab.compare(
        Figure(
            f"memory of an idle connection, {lab.scale.idle_connections:,} at once",
            "KiB",
            "lower",
            [Target(20)],
        ),
        PEERS,
        idle,
    )


def _growth(server: Server, count: int, path: str, warm: str, *, answer: bool) -> Sample:
    """Return the memory of each of ``count`` connections that asked for a path.

    Either they read the answer and stay idle, or its first byte and then no more.
    """
    with Connection(server.port) as connection:
        for _ in range(WARM_UP):
            connection.request("GET", warm)
    with ExitStack() as connections:
        time.sleep(SETTLE)
        before = anonymous_memory(server.pid)
        for _ in range(count):
            connection = connections.enter_context(Connection(server.port))
            if answer:
                connection.request("GET", path)
            else:
                connection.send("GET", path)
                connection.socket.recv(1, socket.MSG_PEEK)
        time.sleep(SETTLE)
        after = anonymous_memory(server.pid)
    return Sample((after - before) / count / KIB)
