"""What pushes into a store by S3 take of the daemon's memory."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import pytest

from benchmarks.kernel import MemoryPeak, anonymous_memory
from cypd.oci.digest import Digest
from tests.crash.client import Client
from tests.daemon import Daemon
from tests.weed import Weed

MIB = 1 << 20
PUSHES = 16
PATIENT = {"CYPD_S3_READ_TIMEOUT": "120"}  # all of them wait for one small machine
CONTENT = Random(16).randbytes(64 * MIB)


@pytest.mark.waits
@pytest.mark.timeout(600)
def test_pushes_at_once_take_as_much_memory_however_large_they_are(tmp_path: Path) -> None:
    """Sixteen of 64 MiB each, all of them longer than several parts, stay below 32 MiB together."""
    with Weed(tmp_path) as weed, Daemon(tmp_path, weed.environment | PATIENT) as daemon:
        _push(daemon, MIB)  # what is made at the first push is there from now on
        idle = anonymous_memory(daemon.pid)
        with MemoryPeak(daemon.pid) as peak, ThreadPoolExecutor(PUSHES) as pool:
            sizes = range(len(CONTENT) - PUSHES, len(CONTENT))
            for pushed in [pool.submit(_push, daemon, size) for size in sizes]:
                pushed.result()

        assert (peak.highest - idle) / MIB <= 32


def _push(daemon: Daemon, size: int) -> None:
    content = CONTENT[:size]
    digest = str(Digest.of(content))
    with Client(daemon, timeout=300) as client:
        location = client.open_session("library/app")
        assert client.send("PATCH", location, content).status == 202
        assert client.send("PUT", f"{location}?digest={digest}", b"").status == 201
