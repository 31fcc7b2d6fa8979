"""Claim: who pulls does not notice that an image is scanned."""

import gzip
import io
import json
import os
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory

from benchmarks.credentials import ask, sign_in
from benchmarks.figures import SUBJECT, Figure, Result, Target
from benchmarks.lab import Lab, Sample
from benchmarks.oci import Blob, manifest
from benchmarks.servers import REPOSITORY, TAG, Cypd

QUIET = "cypd, no scan"
_MOST = 2.0  # times what it takes while nothing is scanned
_LAYERS = 4
_FILE = 1 << 20
_LONGEST = 120.0  # seconds of a scan
_PACKAGE = "benchmarked"
_RECORD = {
    "id": "BENCHMARK-1",
    "modified": "2026-01-01T00:00:00Z",
    "affected": [{"package": {"ecosystem": "PyPI", "name": _PACKAGE}, "versions": ["1.0"]}],
}


def run(lab: Lab) -> Iterator[Result]:
    """HEAD a manifest on one connection, beside the scan of a large image and beside none."""
    if SUBJECT not in lab.servers:
        return
    size = lab.scale.large * _LAYERS
    figure = Figure(
        f"HEAD manifest beside the scan of {size >> 20:,} MiB, p99",
        "ms",
        "lower",
        [Target(_MOST, QUIET)],
    )
    with (
        TemporaryDirectory(prefix="benchmarks-") as directory,
        Cypd(Path(directory) / "cypd", lab.server_cpu) as server,
    ):
        _import(server)
        config = Blob.of(b'{"os":"linux","architecture":"amd64"}')
        layers = [Blob.of(_layer(number, lab.scale.large)) for number in range(_LAYERS)]
        for blob in (config, *layers):
            server.put_blob(blob)
        path = server.put_manifest(manifest(config, layers))
        access = sign_in(server)

        def take(name: str) -> Sample:
            if name == SUBJECT:
                return Sample(_beside_scan(server, path, access))
            end = time.monotonic() + lab.scale.seconds
            return Sample(_slowest(server, path, lambda: time.monotonic() < end))

        yield lab.alternate(figure, [SUBJECT, QUIET], take)


def _import(server: Cypd) -> None:
    record = server.directory / "record.json"
    record.write_text(json.dumps(_RECORD))
    command = [server.command()[0], "vulndb", "import", str(record)]
    environment = {**os.environ, **server.environment()}
    subprocess.run(command, check=True, capture_output=True, env=environment)


def _layer(number: int, size: int) -> bytes:
    """Return a layer of a package and files that are as hard to unpack as most are."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1, mtime=0) as unpacked,
        tarfile.open(fileobj=unpacked, mode="w|") as archive,
    ):
        info = f"usr/lib/python3/dist-packages/{_PACKAGE}{number}-1.0.dist-info/METADATA"
        _add(archive, info, f"Name: {_PACKAGE}{number}\nVersion: 1.0\n".encode())
        for at in range(size // _FILE):
            _add(archive, f"usr/share/{number}/{at}", os.urandom(_FILE // 2).hex().encode())
    return packed.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _beside_scan(server: Cypd, path: str, access: str) -> float:
    """Return the p99 of what is asked while a scan runs; raise ConnectionError if it fails."""
    wanted = {"repository": REPOSITORY, "reference": TAG}
    scan = ask(server, "POST", "/api/v1/scans", wanted, access)
    _wait(server, scan["id"], access, ("pending",))
    looked = time.monotonic()
    end = looked + _LONGEST
    is_running = True

    def goes_on() -> bool:
        nonlocal looked, is_running
        if time.monotonic() - looked > 0.2:
            status = _status(server, scan["id"], access)
            looked, is_running = time.monotonic(), status == "running"
        return is_running and looked < end

    slowest = _slowest(server, path, goes_on)
    _wait(server, scan["id"], access, ("running",))
    if (status := _status(server, scan["id"], access)) != "succeeded":
        raise ConnectionError(f"the scan {status}")
    return slowest


def _status(server: Cypd, scan_id: str, access: str) -> str:
    status: str = ask(server, "GET", f"/api/v1/scans/{scan_id}", None, access)["status"]
    return status


def _wait(server: Cypd, scan_id: str, access: str, over: tuple[str, ...]) -> None:
    end = time.monotonic() + _LONGEST
    while _status(server, scan_id, access) in over and time.monotonic() < end:
        time.sleep(0.02)


def _slowest(server: Cypd, path: str, goes_on: Callable[[], bool]) -> float:
    """Return the p99 of the milliseconds that an answer took."""
    taken: list[float] = []
    with server.anonymous() as connection:
        while goes_on():
            start = time.perf_counter()
            if connection.head(path) != 200:
                raise ConnectionError(f"HEAD {path}")
            taken.append(time.perf_counter() - start)
    return quantiles(taken, n=100)[98] * 1000
