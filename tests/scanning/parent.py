"""Scans as the daemon does, in a process of its own, and tells how much memory that took.

``python -m tests.scanning.parent FOLDER LIMITS DIGEST:SIZE…`` prints one line of JSON: the
``reason`` why the scan failed, if it did, the number of ``findings`` and of ``packages``, and by
how many bytes its memory had ``grown`` at most.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from cypd.oci.digest import Digest
from cypd.scanning.embedded import EmbeddedEngine
from cypd.scanning.limits import Limits
from cypd.scanning.ports import Image, Layer, ScanFailed
from cypd.storage.filesystem import FilesystemStorage
from cypd.storage.spool import Spool
from tests.samples import name
from tests.scanning.laboratory import TAR


def _memory(field: str) -> int:
    """Return a figure of proc_pid_status(5) in bytes."""
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{field}:")[1].split()[0]) << 10


async def _scan(engine: EmbeddedEngine, image: Image) -> dict[str, Any]:
    said: list[str] = []
    try:
        report = await engine.scan(image, say=said.append)
    except ScanFailed as error:
        return {"reason": str(error), "said": len(said)}
    return {
        "findings": len(report.findings),
        "packages": report.packages,
        "sbom": len(report.sbom),
        "worst": report.findings[0].severity if report.findings else None,
        "said": len(said),
    }


def main(folder: str, limits: str, *layers: str) -> None:
    """Scan the layers twice: what is loaded at the first time is no growth."""
    storage = FilesystemStorage(Path(folder) / "storage")
    bounds = msgspec.json.decode(limits, type=Limits)
    engine = EmbeddedEngine(Spool(storage, Path(folder)).open, Path(folder) / "vulndb", bounds)
    listed = tuple(
        Layer(Digest.parse(it.rpartition(":")[0]), TAR, int(it.rpartition(":")[2])) for it in layers
    )
    image = Image(name(), Digest.of(b"a manifest"), None, ())

    async def work() -> None:
        await _scan(engine, image)
        Path("/proc/self/clear_refs").write_text("5")  # proc_pid_clear_refs(5): the peak is now
        before = _memory("VmRSS")
        told = await _scan(engine, image._replace(layers=listed))
        sys.stdout.write(json.dumps({**told, "grown": _memory("VmHWM") - before}) + "\n")

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work())
    storage.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
