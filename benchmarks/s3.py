"""Claim: with blobs in a store by S3, cypd costs no more than its peer, and little memory."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import oci
from benchmarks.figures import SUBJECT, Figure, Result, Target
from benchmarks.http import Connection
from benchmarks.kernel import MemoryPeak, Window, anonymous_memory, warm_memory
from benchmarks.lab import Lab, Sample
from benchmarks.oci import Blob
from benchmarks.servers import REPOSITORY, Cypd, Distribution, Registry
from tests.weed import Weed

MIB, GIB = 1 << 20, 1 << 30
PUSHES = 16  # at once, where memory is measured
PULLS = 2  # of the same blob, one after the other, in a sample
PEERS = ("cypd", "docker-registry")


class _Cypd(Cypd):
    weed: Weed

    def environment(self) -> Mapping[str, str]:
        store = {**self.weed.environment, "CYPD_S3_REDIRECT": "off", "CYPD_S3_READ_TIMEOUT": "120"}
        return {**super().environment(), **store}


class _Distribution(Distribution):
    weed: Weed

    def command(self) -> Sequence[str]:
        configuration = self.directory / "config.yml"
        configuration.write_text(f"""\
version: 0.1
log:
  level: error
  accesslog:
    disabled: true
storage:
  s3:
    regionendpoint: {self.weed.endpoint}
    region: us-east-1
    bucket: {self.weed.bucket}
    accesskey: {self.weed.access_key}
    secretkey: {self.weed.secret_key}
    secure: false
    v4auth: true
    rootdirectory: /distribution
  redirect:
    disable: true
  cache:
    blobdescriptor: inmemory
  maintenance:
    uploadpurging:
      enabled: false
http:
  addr: 127.0.0.1:{self.port}
""")
        return ["docker-registry", "serve", str(configuration)]

    def environment(self) -> Mapping[str, str]:
        # Where certificates of one's own are configured for AWS's SDK, Debian's build panics.
        return {**super().environment(), "AWS_CA_BUNDLE": ""}


_KINDS: Mapping[str, type[_Cypd | _Distribution]] = {
    "cypd": _Cypd,
    "docker-registry": _Distribution,
}


def run(lab: Lab) -> Iterator[Result]:
    """Push to, and pull through, servers whose blobs are in one SeaweedFS, on the client's CPU."""
    yield from _pushes(lab)
    yield from _pulls(lab)
    yield _memory(lab)


@contextmanager
def _running(lab: Lab, name: str) -> Iterator[Registry]:
    """Run one server over a store of its own, both from an empty state."""
    with TemporaryDirectory(prefix="benchmarks-") as directory, Weed(Path(directory)) as weed:
        server = _KINDS[name](Path(directory) / name, lab.server_cpu)
        server.weed = weed
        with server:
            server.warm_up()
            yield server


def _pushes(lab: Lab) -> Iterator[Result]:
    size, times = lab.scale.large, lab.scale.large_pushes
    content = bytearray(os.urandom(size))

    def push(name: str) -> tuple[float, list[Window]]:
        windows = []
        with _running(lab, name) as server, server.connect() as connection:
            for _ in range(times):
                content[:16] = os.urandom(16)
                blob = Blob.of(content)
                warm_memory(2 * size)
                with Window(server.pid) as window:
                    oci.push_layer(connection, REPOSITORY, blob, chunked=False)
                windows.append(window)
        return times * size / GIB, windows

    yield from _both(lab, f"S3: push blob, {size >> 20} MiB", Target(1.0, "docker-registry"), push)


def _pulls(lab: Lab) -> Iterator[Result]:
    size = lab.scale.large
    blob = Blob.of(os.urandom(size))

    def pull(name: str) -> tuple[float, list[Window]]:
        with _running(lab, name) as server, server.connect() as connection:
            path = server.put_blob(blob)
            with Window(server.pid) as window:
                received = sum(connection.discard(path) for _ in range(PULLS))
        return received / GIB, [window]

    yield from _both(lab, f"S3: GET blob, {size >> 20} MiB", Target(1.0, "docker-registry"), pull)


def _both(
    lab: Lab, title: str, target: Target, work: Callable[[str], tuple[float, list[Window]]]
) -> Iterator[Result]:
    """Compare what work costs, and, of the same samples, how fast it is."""
    speeds: dict[str, list[float]] = {}

    def take(name: str) -> Sample:
        amount, windows = work(name)
        speeds.setdefault(name, []).append(amount / sum(it.wall for it in windows))
        cpu = sum(it.cpu for it in windows)
        return Sample(cpu / amount, max(it.disturbance for it in windows))

    # What the store does beside the server counts as a disturbance: nothing would be quiet enough.
    result = replace(lab, patience=0.0).compare(
        Figure(title, "CPU-s/GiB", "lower", [target]), PEERS, take
    )
    yield result
    yield Result(Figure(title, "GiB/s", "higher"), speeds, result.disturbance)


def _memory(lab: Lab) -> Result:
    """Measure how much memory pushes at once take above what an idle server has.

    Of the subject alone: Debian's docker-registry answers some of so many with 500.
    """
    size = lab.scale.large * 4
    content = memoryview(os.urandom(size))

    def push(server: Registry, beginning: bytes) -> None:
        """Push what nobody has pushed yet, and of which there is no copy."""
        rest = content[len(beginning) :]
        hashed = hashlib.sha256(beginning)
        hashed.update(rest)
        digest = f"sha256:{hashed.hexdigest()}"
        with Connection(server.port, server.credentials, patience=1200) as connection:
            oci.push_pieces(connection, REPOSITORY, digest, [beginning, rest])

    def take(name: str) -> Sample:
        with _running(lab, name) as server, ThreadPoolExecutor(PUSHES) as pool:
            idle = anonymous_memory(server.pid)
            with MemoryPeak(server.pid) as peak:
                pushes = [pool.submit(push, server, os.urandom(16)) for _ in range(PUSHES)]
                for pushed in pushes:
                    pushed.result()
        return Sample((peak.highest - idle) / MIB)

    title = f"S3: memory of {PUSHES} pushes of {size >> 20} MiB at once"
    figure = Figure(title, "MiB", "lower", [Target(32)])
    return replace(lab, rounds=1).compare(figure, [SUBJECT], take)
