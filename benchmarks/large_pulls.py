"""Claim: a large blob leaves cypd about as cheaply as nginx sends a file."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from benchmarks.figures import Figure, Result, Target
from benchmarks.kernel import Window
from benchmarks.lab import Lab, Sample
from benchmarks.oci import Blob
from benchmarks.servers import Server

GB = 1e9
CONNECTIONS = 4
WINDOW = 128 * 1024  # see "method" in README.md
PEERS = ("cypd", "nginx", "docker-registry")


def run(lab: Lab) -> Iterator[Result]:
    """GET one blob from page cache, over and over on a few connections."""
    size, times = lab.scale.large, lab.scale.large_pulls
    blob = Blob.of(os.urandom(size))
    with lab.running(*PEERS) as servers, ThreadPoolExecutor(CONNECTIONS) as pool:
        paths = {name: server.put_blob(blob) for name, server in servers.items()}
        for name in servers:
            _check(servers[name], paths[name], blob)

        def pull(name: str) -> int:
            with servers[name].connect(WINDOW) as connection:
                return sum(connection.discard(paths[name]) for _ in range(times))

        def take(name: str) -> tuple[float, Window]:
            with Window(servers[name].pid) as window:
                received = sum(pool.map(pull, [name] * CONNECTIONS))
            return received / GB, window

        def server(name: str) -> Sample:
            return Sample.cpu_per(*take(name))

        def both(name: str) -> Sample:
            amount, window = take(name)
            return Sample(window.both / amount, window.disturbance)

        title = f"GET blob, {size >> 20} MiB"
        targets = [Target(1.3, "nginx"), Target(0.5, "docker-registry")]
        yield lab.compare(Figure(title, "CPU-s/GB", "lower", targets), PEERS, server)
        yield lab.compare(Figure(f"{title}, client included", "CPU-s/GB", "lower"), PEERS, both)


def _check(server: Server, path: str, blob: Blob) -> None:
    """Look once at what is thrown away afterwards."""
    with server.connect() as connection:
        body = connection.request("GET", path).body
    if f"sha256:{hashlib.sha256(body).hexdigest()}" != blob.digest:
        raise ConnectionError(f"{server.name} sends something else than was pushed")
