"""Claim: manifests and small blobs leave cypd nearly as fast as nginx sends small files."""

import os
import re
import subprocess
from collections.abc import Iterator, Mapping

from benchmarks.figures import Figure, Result, Target
from benchmarks.kernel import Window
from benchmarks.lab import Lab, Sample
from benchmarks.oci import MANIFEST, Blob, manifest
from benchmarks.servers import Server

CONNECTIONS = 64
LAYERS = 6  # Docker Hub's median image has less than 8
PEERS = ("cypd", "nginx", "docker-registry")


def run(lab: Lab) -> Iterator[Result]:
    """GET one path on many connections, each as soon as the last answer is there."""
    config, *layers = [Blob.of(os.urandom(lab.scale.small)) for _ in range(LAYERS + 1)]
    image = manifest(config, layers)
    with lab.running(*PEERS) as servers:
        blobs = {
            name: [server.put_blob(blob) for blob in (config, *layers)][-1]
            for name, server in servers.items()
        }
        manifests = {name: server.put_manifest(image) for name, server in servers.items()}
        yield _compare(
            lab,
            Figure(
                f"GET manifest by tag, {len(image):,} bytes",
                "requests/CPU-s",
                "higher",
                [Target(0.4, "nginx"), Target(40, "docker-registry")],
            ),
            servers,
            manifests,
        )
        yield _compare(
            lab,
            Figure(
                f"GET blob, {lab.scale.small:,} bytes",
                "requests/CPU-s",
                "higher",
                [Target(0.3, "nginx")],
            ),
            servers,
            blobs,
        )


def _compare(
    lab: Lab, figure: Figure, servers: Mapping[str, Server], paths: Mapping[str, str]
) -> Result:
    def take(name: str) -> Sample:
        with Window(servers[name].pid) as window:
            requests = answered(load(servers[name].url + paths[name], lab.scale.seconds))
        return Sample.per_cpu(requests, window)

    return lab.compare(figure, PEERS, take)


def load(url: str, seconds: int, *fields: str) -> str:
    """Put a URL under load, each request with these header fields; return wrk's report."""
    options = ["-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "30s"]
    for field in (f"Accept: {MANIFEST}", *fields):
        options += ["-H", field]
    command = ["wrk", *options, url]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def answered(report: str) -> int:
    """Return the number of requests in a report of wrk; any failed one spoils it."""
    requests = re.search(r"(\d+) requests in", report)
    if requests is None or "Non-2xx" in report or "Socket errors" in report:
        raise ConnectionError(f"wrk was not answered properly:\n{report}")
    return int(requests[1])
