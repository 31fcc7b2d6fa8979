"""Files and layers that chance has damaged: each is read, or refused in words; nothing else."""

import io
import os
import random
import zlib
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cypd.oci.digest import Digest
from cypd.scanning.detectors import DETECTORS
from cypd.scanning.inventory import Inventory
from cypd.scanning.packages import Damaged
from cypd.scanning.ports import ScanFailed
from cypd.scanning.unpacking import Budget
from cypd.scanning.wire import LayerFile
from tests.scanning.laboratory import DEBIAN, LIMITS, TAR, Entry, dpkg, layer, link, python, tar
from tests.scanning.rpmdb import database, header
from tests.scanning.test_detectors import elf, jar, old_go_binary

# What scans gives way to all else on the machine.
pytestmark = pytest.mark.timeout(300)

Make = Callable[[Path], bytes]
FILES: dict[str, Make] = {
    "etc/os-release": lambda _: DEBIAN,
    "var/lib/dpkg/status": lambda _: dpkg(("a", "1"), ("b", "2")).content,
    "var/lib/dpkg/info/a.list": lambda _: b"/.\n/x/a-1.dist-info/METADATA\n",
    "lib/apk/db/installed": lambda _: b"P:a\nV:1\no:b\nF:x.dist-info\nR:METADATA\n\nP:c\nV:2\n\n",
    "var/lib/rpm/rpmdb.sqlite": lambda folder: database(
        folder, header("a", "1", "1", epoch=2, files=["/x/a-1.dist-info/METADATA"])
    ),
    "x/a-1.dist-info/METADATA": lambda _: python("a", "1").content,
    "node_modules/a/package.json": lambda _: b'{"name": "a", "version": "1"}',
    "package-lock.json": lambda _: b'{"dependencies": {"a": {"version": "1", "dependencies": {}}}}',
    "specifications/a-1.gemspec": lambda _: b's.name = "a".freeze\ns.version = "1"\n',
    "a-1.jar": lambda _: jar(META_INF__MANIFEST_MF=b"Bundle-Version: 1\n", b_jar=jar(x=b"y")),
    "bin/b": lambda _: elf(".dep-v0", zlib.compress(b'{"packages":[{"name":"a","version":"1"}]}')),
    "bin/a": lambda _: old_go_binary("go1.16", "path\tx\ndep\ta\tv1.0.0\n"),
}  # fmt: skip
ODD = [
    b"\xff" * 4,
    b"\x7f\xff\xff\xff",
    bytes(8),
    b"77777777777\0",
    b"\x80" + b"\xff" * 11,
    b"",
    b"\n",
]


def damaged(content: bytes, seed: int) -> bytes:
    """Return content with a few changes, half of them near its beginning."""
    chance = random.Random(seed)
    changed = bytearray(content)
    for _ in range(chance.choice([1, 2, 5, 20])):
        place = chance.randrange(min(len(changed), chance.choice([64, 600, 1 << 30])) + 1)
        piece = chance.choice([*ODD, bytes([chance.randrange(256)])])
        changed[place : place + chance.choice([len(piece), len(piece), 0, 100])] = piece
    return bytes(changed)


@pytest.mark.parametrize("path", FILES)
@given(seed=st.integers(0, 1 << 32))
@settings(max_examples=150)
def test_a_damaged_file_is_read_or_refused(path: str, seed: int, tmp_path: Path) -> None:
    """By the detector that wants it, whatever its libraries make of it."""
    content = FILES[path](tmp_path)
    detector = next(it for it in DETECTORS if it.wants(path, 0o755))
    if seed % 10:
        content = damaged(content, seed)
    else:
        assert list(detector.read(path, io.BytesIO(content), Budget(LIMITS))), "it has something"
    with suppress(Damaged, ScanFailed, MemoryError):
        for fact in detector.read(path, io.BytesIO(content), Budget(LIMITS)):
            assert all(isinstance(field, str) for field in fact)


ENTRIES = [
    python("a", "1"), dpkg(("a", "1")), link("l", "m"), Entry("y" * 300, b"z" * 700),
    link("h.dist-info/METADATA", "usr/x", hard=True), Entry("usr/.wh.x"), Entry("é" * 200, b"abc"),
]  # fmt: skip


@pytest.mark.parametrize("pack", [bytes, zlib.compress], ids=["plain", "gzip"])
@given(seed=st.integers(0, 1 << 32))
@settings(max_examples=300)
def test_a_damaged_layer_is_read_or_refused(pack: Callable[[bytes], bytes], seed: int) -> None:
    """Whether its packing, its archive or a file in it was hit."""
    content = tar(*ENTRIES) if pack is bytes else layer(*ENTRIES)
    content = damaged(content, seed)
    with closing(io.FileIO(os.memfd_create("layer"), "r+")) as file, suppress(ScanFailed):
        file.write(content)
        inventory = Inventory(lambda _: None, Budget(LIMITS))
        inventory.add([LayerFile(file.fileno(), Digest.of(content), TAR)])
        assert len(inventory.packages()) <= 2
