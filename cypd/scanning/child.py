"""The process that looks at one image: ``python -m cypd.scanning.child``, started by the engine.

It gets open files, gives up what it does not need, and trusts nothing it reads. What it loads stays
out of the daemon.
"""

import os
import sys
import time
import traceback
from pathlib import Path

import cypd
from cypd.scanning.confine import close_off, confine
from cypd.scanning.ports import NotReady, Say, ScanFailed
from cypd.scanning.wire import (
    MAX_LINE,
    MAX_SAID,
    Done,
    Failed,
    Found,
    Job,
    Message,
    Said,
    decode_job,
    encode,
)

_MAX_JOB = 4 << 20


def main() -> int:
    """Do the one job that stands at the standard input."""
    job = decode_job(sys.stdin.buffer.read(_MAX_JOB))
    try:
        confine(job.limits)
        _scan(job, _sayer())
    except ScanFailed as error:
        _send(Failed(str(error)))
    except NotReady as error:
        _send(Failed(str(error), is_unready=True))
    except MemoryError:
        _send(Failed(f"it needs more than {job.limits.memory} bytes of memory (scanning.memory)"))
    except Exception:  # noqa: BLE001 (whatever the image has brought about, the daemon is told)
        _send(Failed("the scanner failed", trace=traceback.format_exc(limit=-8)[-4000:]))
    return 0


def _scan(job: Job, say: Say) -> None:
    # Loaded here, so that a failure of it is told, and within the limits.
    from cypd.scanning.comparing import findings  # noqa: PLC0415
    from cypd.scanning.cyclonedx import make_sbom  # noqa: PLC0415
    from cypd.scanning.inventory import Inventory  # noqa: PLC0415
    from cypd.scanning.unpacking import Budget  # noqa: PLC0415
    from cypd.scanning.vulndb.store import VulnerabilityData  # noqa: PLC0415

    started = time.monotonic()
    data = VulnerabilityData(Path(job.database))
    close_off()
    inventory = Inventory(say, Budget(job.limits))
    inventory.add(job.layers)
    packages, distribution = inventory.packages(), inventory.distribution()
    say(f"{len(packages):,} packages, on {distribution.name if distribution else 'no system'}")
    layers = [layer.digest for layer in job.layers]
    found = findings(packages, layers, distribution, data, say)
    sbom = make_sbom(job.repository, job.digest, packages, layers, distribution)
    say(f"{len(found):,} findings, after {time.monotonic() - started:.1f} s")
    for finding in found:
        _send(Found(finding))
    _send(Done(len(packages), f"cypd {cypd.__version__}", data.updated_at(), len(sbom)))
    _write(sbom)


def _sayer() -> Say:
    said = 0

    def say(line: str) -> None:
        nonlocal said
        said += 1
        if said < MAX_SAID:
            _send(Said(line[: MAX_LINE // 16]))
        elif said == MAX_SAID:
            _send(Said("… and more"))

    return say


def _send(message: Message) -> None:
    _write(encode(message) + b"\n")


def _write(data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(1, rest) :]


if __name__ == "__main__":
    sys.exit(main())
