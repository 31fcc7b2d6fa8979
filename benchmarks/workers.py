"""Claim: two workers share no more than the disk, so each request costs what it costs with one."""

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.figures import Figure, Result, Target
from benchmarks.kernel import Window
from benchmarks.lab import Lab, Sample
from benchmarks.large_pulls import GB, WINDOW
from benchmarks.oci import Blob, manifest
from benchmarks.servers import Cypd
from benchmarks.small_pulls import LAYERS, answered, load

ONE = "cypd, one worker"
_CONNECTIONS = 8
_LEAST = 0.9  # of what one worker does with a CPU second
_WORKERS = {Cypd.name: 2, ONE: 1}


class _Workers(Cypd):
    """cypd with a number of workers, on as many CPUs: the last one is the client's as well."""

    def __init__(self, directory: Path, count: int, cpu: int) -> None:
        cpus = [cpu, *os.sched_getaffinity(0)][:count]
        super().__init__(directory, ",".join(map(str, cpus)))
        self._count = count

    def environment(self) -> Mapping[str, str]:
        """Say how many."""
        return {**super().environment(), "CYPD_SERVER_WORKERS": str(self._count)}


def run(lab: Lab) -> Iterator[Result]:
    """GET a manifest and a large blob from two workers and from one.

    On a machine of two CPUs the second worker and the client share one: the figures on the clock
    then say little.
    """
    if Cypd.name not in lab.servers:
        return
    image = [Blob.of(os.urandom(lab.scale.small)) for _ in range(LAYERS + 1)]
    large = Blob.of(os.urandom(lab.scale.large))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="benchmarks-")))
        pool = stack.enter_context(ThreadPoolExecutor(_CONNECTIONS))
        servers = {
            name: stack.enter_context(_Workers(folder / str(count), count, lab.server_cpu))
            for name, count in _WORKERS.items()
        }
        paths = {name: server.put_blob(large) for name, server in servers.items()}
        manifests: dict[str, str] = {}
        for name, server in servers.items():
            for blob in image:
                server.put_blob(blob)
            manifests[name] = server.put_manifest(manifest(image[0], image[1:]))

        def ask(name: str) -> tuple[float, Window]:
            server = servers[name]
            with Window(server.pid) as window:
                requests = answered(load(server.url + manifests[name], lab.scale.seconds))
            return requests, window

        def pull(name: str) -> tuple[float, Window]:
            def once(_: int) -> int:
                with servers[name].connect(WINDOW) as connection:
                    return connection.discard(paths[name])

            with Window(servers[name].pid) as window:
                received = sum(pool.map(once, range(_CONNECTIONS)))
            return received / GB, window

        yield from _both(lab, "GET manifest by tag, two workers", "requests", ask)
        yield from _both(lab, f"GET blob, {lab.scale.large >> 20} MiB, two workers", "GB", pull)


def _both(
    lab: Lab, name: str, unit: str, take: Callable[[str], tuple[float, Window]]
) -> Iterator[Result]:
    """Compare what a CPU second does, and what a second on the clock does."""
    figure = Figure(name, f"{unit}/CPU-s", "higher", [Target(_LEAST, ONE)])
    yield lab.alternate(figure, list(_WORKERS), lambda it: Sample.per_cpu(*take(it)))
    figure = Figure(name, f"{unit}/s", "higher")
    yield lab.alternate(figure, list(_WORKERS), lambda it: Sample.per_second(*take(it)))
