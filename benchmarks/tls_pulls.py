"""Claim: a large blob leaves cypd by TLS no dearer than nginx sends a file by TLS."""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from benchmarks.figures import Figure, Result, Target
from benchmarks.kernel import Window
from benchmarks.lab import Lab, Sample
from benchmarks.large_pulls import CONNECTIONS, GB, WINDOW
from benchmarks.oci import Blob
from benchmarks.servers import Server

PEERS = ("cypd", "nginx")


def run(lab: Lab) -> Iterator[Result]:
    """GET one blob from page cache by HTTP/1.1 over TLS, over and over on a few connections."""
    size, times = lab.scale.large, lab.scale.large_pulls
    blob = Blob.of(os.urandom(size))
    with (
        lab.running(*PEERS, tls=True) as servers,
        ThreadPoolExecutor(CONNECTIONS) as pool,
    ):
        _require_one_cipher(servers)
        paths = {name: server.put_blob(blob) for name, server in servers.items()}

        def pull(name: str) -> int:
            with servers[name].connect_tls(WINDOW) as connection:
                return sum(connection.discard(paths[name]) for _ in range(times))

        def take(name: str) -> Sample:
            with Window(servers[name].pid) as window:
                received = sum(pool.map(pull, [name] * CONNECTIONS))
            return Sample.cpu_per(received / GB, window)

        title = f"GET blob, {size >> 20} MiB, by TLS"
        figure = Figure(title, "CPU-s/GB", "lower", [Target(1.0, "nginx")])
        yield lab.compare(figure, PEERS, take)


def _require_one_cipher(servers: Mapping[str, Server]) -> None:
    """Compare what is comparable: one protocol and one cipher."""
    ciphers = {}
    for name, server in servers.items():
        with server.connect_tls() as connection:
            ciphers[name] = connection.cipher
    if len(set(ciphers.values())) > 1:
        raise ConnectionError(f"the servers have not agreed on one cipher: {ciphers}")
