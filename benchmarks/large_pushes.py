"""Claim: taking in a large blob costs cypd little more than hashing it."""

import os
from collections.abc import Iterator

from benchmarks import oci
from benchmarks.figures import Figure, Result, Target
from benchmarks.kernel import Window, warm_memory
from benchmarks.lab import Lab, Sample
from benchmarks.oci import Blob
from benchmarks.servers import REPOSITORY

GIB = 1 << 30
PEERS = ("cypd", "docker-registry")


def run(lab: Lab) -> Iterator[Result]:
    """Push blobs that no server has seen before: POST, PATCH with all the content, PUT."""
    content = bytearray(os.urandom(lab.scale.large))
    yield _compare(lab, content, "with its length", chunked=False)
    yield _compare(lab, content, "in chunks, as docker does", chunked=True)


def _compare(lab: Lab, content: bytearray, framing: str, *, chunked: bool) -> Result:
    size, times = lab.scale.large, lab.scale.large_pushes
    figure = Figure(
        f"push blob, {size >> 20} MiB, {framing}",
        "CPU-s/GiB",
        "lower",
        [Target(1.6), Target(0.3, "docker-registry")],
    )

    def take(name: str) -> Sample:
        cpu = disturbance = 0.0
        # A new server each time: what the last one stored gives its memory back.
        with lab.running(name) as servers, servers[name].connect() as connection:
            servers[name].warm_up()
            for _ in range(times):
                blob = _another(content)
                warm_memory(2 * size)
                with Window(servers[name].pid) as window:
                    oci.push_layer(connection, REPOSITORY, blob, chunked=chunked)
                cpu += window.cpu
                disturbance = max(disturbance, window.disturbance)
        return Sample(cpu / (times * size / GIB), disturbance)

    return lab.compare(figure, PEERS, take)


def _another(content: bytearray) -> Blob:
    """Change the first bytes: random content, and a digest never seen, at little cost."""
    content[:16] = os.urandom(16)
    return Blob.of(content)
