"""Claim: many small blobs are taken in quickly, although each is durable when it is confirmed."""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from benchmarks import oci
from benchmarks.figures import Figure, Result, Target
from benchmarks.kernel import Window
from benchmarks.lab import Lab, Sample
from benchmarks.oci import Blob
from benchmarks.servers import REPOSITORY, Server

CONNECTIONS = 16
PEERS = ("cypd", "docker-registry")


def run(lab: Lab) -> Iterator[Result]:
    """Push distinct blobs, POST and PUT each, on connections that are open already."""
    count, size = lab.scale.small_pushes, lab.scale.small
    figure = Figure(
        f"push {count:,} blobs of {size:,} bytes, {CONNECTIONS} connections",
        "blobs/s",
        "higher",
        [Target(5, "docker-registry")],
    )
    with lab.running(*PEERS) as servers, ThreadPoolExecutor(CONNECTIONS) as pool:

        def take(name: str) -> Sample:
            server = servers[name]
            blobs = [Blob.of(os.urandom(size)) for _ in range(count)]
            shares = [blobs[start::CONNECTIONS] for start in range(CONNECTIONS)]
            server.warm_up()
            with Window(server.pid) as window:
                list(pool.map(_push, [server] * CONNECTIONS, shares))
            return Sample.per_second(count, window)

        yield lab.compare(figure, PEERS, take)


def _push(server: Server, blobs: Iterable[Blob]) -> None:
    with server.connect() as connection:
        for blob in blobs:
            oci.push_blob(connection, REPOSITORY, blob)
