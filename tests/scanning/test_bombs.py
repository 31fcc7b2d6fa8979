"""Images that are made to hurt: each ends with a reason, within bounds, the daemon unhurt."""

import asyncio
import io
import json
import random
import sqlite3
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.scanning.laboratory import (
    DEBIAN,
    LIMITS,
    Entry,
    Laboratory,
    dpkg,
    layer,
    link,
    python,
    record,
    tar,
)
from tests.scanning.packing import zstd
from tests.scanning.rpmdb import database, header

ROOT = Path(__file__).parents[2]
MIB = 1 << 20
ZEROS = bytes(MIB)
GROWTH = 16 * MIB
pytestmark = pytest.mark.timeout(400)


async def scan(laboratory: Laboratory, *layers: bytes, **limits: Any) -> dict[str, Any]:
    """Scan in another process, which may grow by less than 16 MiB; return what it tells."""
    if not laboratory.data.exists():
        laboratory.know(record("CVE-1", "PyPI", "x"))
    digests = [f"{await laboratory.push(it)}:{len(it)}" for it in layers]
    bounds = msgspec.json.encode(msgspec.structs.replace(LIMITS, **limits)).decode()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.scanning.parent", str(laboratory.folder), bounds, *digests,
        cwd=ROOT, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await process.communicate()
    assert process.returncode == 0
    told: dict[str, Any] = json.loads(output)
    assert told["grown"] < GROWTH, told
    return told


def header_of(path: str, size: int, mode: int = 0o644) -> bytes:
    """Return the header of an archive's entry that claims that size."""
    info = tarfile.TarInfo(path)
    info.size, info.mode = size, mode
    return info.tobuf(tarfile.GNU_FORMAT)


def packed(pieces: Iterable[bytes], kind: str) -> bytes:
    """Return bytes packed as a stream, so that a bomb is never whole here either."""
    compressor: Any = zstd.ZstdCompressor() if kind == "zstd" else zlib.compressobj(9, wbits=31)
    return b"".join(map(compressor.compress, pieces)) + bytes(compressor.flush())


def repeated(start: bytes, piece: bytes, times: int) -> Iterator[bytes]:
    """Yield a beginning, and then the same again and again."""
    yield start
    for _ in range(times):
        yield piece


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
async def test_a_bomb_of_zeros(laboratory: Laboratory, kind: str) -> None:
    """A thousand times its size is refused long before it is unpacked."""
    bomb = packed(repeated(header_of("zeros", 256 * MIB), ZEROS, 256), kind)
    told = await scan(laboratory, bomb)

    assert "unpacks to more than 100 times its size (scanning.max_ratio)" in told["reason"]


async def test_zeros_of_a_real_image_are_no_bomb(laboratory: Laboratory) -> None:
    """The first 16 MiB may be anything, and what is packed well on the whole is fine."""
    text = random.Random(1).randbytes(2 * MIB)
    fine = packed([header_of("a", 14 * MIB), *[ZEROS] * 14, header_of("b", len(text)), text,
                   header_of("c", 90 * MIB), *[ZEROS] * 90, bytes(1024)], "gzip")  # fmt: skip
    assert (await scan(laboratory, fine))["packages"] == 0


async def test_more_than_may_be_unpacked(laboratory: Laboratory) -> None:
    """All layers together are counted, not each."""
    bomb = packed(repeated(header_of("zeros", 40 * MIB), ZEROS, 40), "zstd")
    told = await scan(laboratory, bomb, bomb, max_bytes=64 * MIB, max_ratio=1 << 30)

    assert told["reason"] == f"the image unpacks to more than {64 * MIB} bytes (scanning.max_bytes)"


async def test_a_window_that_takes_gigabytes(laboratory: Laboratory) -> None:
    """zstd lets a few bytes ask for 2 GiB of memory."""
    wide = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 31})
    bomb = wide.compress(tar(python("a", "1"))) + wide.flush()
    told = await scan(laboratory, bomb)

    assert "is damaged: " in told["reason"]
    assert "memory" in told["reason"] or "indow" in told["reason"]


async def test_a_million_entries(laboratory: Laboratory) -> None:
    """Entries are counted, and none is kept."""
    bomb = packed(repeated(b"", header_of("a", 0) * 1000, 1000), "zstd")
    told = await scan(laboratory, bomb, max_files=100_000, max_ratio=1 << 30, memory=256 * MIB)

    assert told["reason"] == "the image has more than 100000 files (scanning.max_files)"


async def test_a_header_of_gigabytes(laboratory: Laboratory) -> None:
    """Names and pax records are read whole, so they are bounded."""
    for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
        info = tarfile.TarInfo("x")
        info.type, info.size = kind, 1 << 30
        bomb = packed(repeated(info.tobuf(tarfile.GNU_FORMAT), ZEROS, 1024), "zstd")
        told = await scan(laboratory, bomb, max_ratio=1 << 30)

        assert "has an entry whose header takes 1073741824 bytes" in told["reason"]


async def test_a_package_json_of_a_gigabyte(laboratory: Laboratory) -> None:
    """Nobody has one that is larger than 16 MiB; it is not read at all."""
    path = "node_modules/a/package.json"
    bomb = packed(repeated(header_of(path, 1 << 30), b" " * MIB, 1024), "zstd")
    told = await scan(laboratory, bomb, max_ratio=1 << 30)

    assert f"{path} has 1,073,741,824 bytes; 16,777,216 are read" in told["reason"]


@pytest.mark.parametrize(
    "content",
    [b"[" * (8 * MIB), b'{"name":' * MIB, b'{"a":"' + b"\\u0041" * MIB, b'{"version":1e999999999}'],
    ids=["brackets", "objects", "escapes", "number"],
)
async def test_json_that_is_hard_to_read(laboratory: Laboratory, content: bytes) -> None:
    """Deep, endless or absurd: the file is left out, and the scan goes on."""
    entries = [
        Entry("app/node_modules/a/package.json", content),
        Entry("app/package-lock.json", content),
        python("x", "1"),
    ]
    told = await scan(laboratory, layer(*entries), max_ratio=1 << 30)
    assert (told.get("packages"), told.get("findings")) == (1, 1), told


async def test_links_lead_nowhere(laboratory: Laboratory) -> None:
    """Absolute, relative, circular, hard or symbolic: none is followed, and nothing is written."""
    secret = laboratory.folder / "secret"
    secret.write_bytes(python("secret", "1").content)
    path = "x.dist-info/METADATA"
    evil = [
        link("a/" + path, str(secret)),
        link("b/" + path, "../" * 30 + str(secret)[1:]),
        link("c/" + path, str(secret), hard=True),
        link("d/" + path, "d/" + path, hard=True),
        link("e", "f"), link("f", "e"), link("e/" + path, "f/" + path, hard=True),
        link("etc", str(laboratory.folder)),
        Entry("etc/written", b"x"),
        Entry("/tmp/../" + str(laboratory.folder)[1:] + "/written", b"x"),
        Entry("dev/null", type=tarfile.CHRTYPE),
        Entry("fifo.dist-info/METADATA", type=tarfile.FIFOTYPE),
    ]  # fmt: skip
    told = await scan(laboratory, layer(*evil))

    assert (told["packages"], told["findings"]) == (0, 0)
    assert not list(laboratory.folder.rglob("written"))


async def test_a_file_that_claims_to_be_negative(laboratory: Laboratory) -> None:
    """A size below zero would lead backwards, for ever."""
    block = bytearray(header_of("a", 0))
    block[124:136] = (-1024).to_bytes(12, "big", signed=True)
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + 8 * 32 + sum(block[156:]))
    told = await scan(laboratory, bytes(block) * 8)

    assert "is damaged" in told["reason"]


async def test_archives_in_archives(laboratory: Laboratory) -> None:
    """A jar of zeros, and jars within each other without an end, are bounded as layers are."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner.jar", bytes(128 * MIB))
    zeros = await scan(laboratory, layer(Entry("a.jar", file.getvalue())))
    nested = python("x", "1").content
    for _ in range(50):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("inner.jar", nested)
            archive.writestr("again.jar", nested[:1000])
        nested = file.getvalue()

    assert "inner.jar of a jar unpacks to more than 100 times its size" in zeros["reason"]
    assert (await scan(laboratory, layer(Entry("a.jar", nested))))["packages"] == 0


async def test_a_database_of_rpm_that_never_ends(laboratory: Laboratory) -> None:
    """Damaged ones fail with a reason; one whose table is a query without an end, by its bounds."""
    content = bytearray(database(laboratory.folder, *[header("a", "1", "1")] * 400))
    for start in range(4096, len(content), 512):
        content[start : start + 64] = b"\xff" * 64
    path = "var/lib/rpm/rpmdb.sqlite"
    told = await scan(laboratory, layer(Entry(path, bytes(content))))
    assert f"{path} is damaged: not a database of rpm: " in told["reason"]

    with sqlite3.connect(":memory:") as connection:
        connection.execute(
            "CREATE VIEW Packages AS "
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
            " SELECT i AS hnum, zeroblob(i % 2) AS blob FROM n WHERE i < 0"
        )
        endless = connection.serialize()
    connection.close()
    told = await scan(laboratory, layer(Entry(path, endless)), cpu_seconds=1)
    assert told["reason"] == "it took more than 1 seconds of a processor (scanning.cpu_seconds)"


async def test_memory_is_bounded(laboratory: Laboratory) -> None:
    """What asks for more than it may have fails, and says how much it may have."""
    start = header_of("var/lib/rpm/rpmdb.sqlite", 180 * MIB) + b"SQLite format 3\0".ljust(
        MIB, b"\0"
    )
    bomb = packed([*repeated(start, ZEROS, 179), bytes(1024)], "zstd")
    told = await scan(laboratory, bomb, memory=256 * MIB, max_ratio=1 << 30)

    assert "of memory (scanning.memory)" in told["reason"]


async def test_more_packages_than_can_be_told(laboratory: Laboratory) -> None:
    """They are counted before anything is made of them."""
    status = dpkg(*((f"package-{number}", "1") for number in range(20_001)))
    told = await scan(laboratory, layer(status), max_ratio=1 << 30)

    assert told["reason"] == "the image has 20001 packages, more than 20000"


async def test_more_findings_than_can_be_told(laboratory: Laboratory) -> None:
    """The least severe are left out; what is told costs the daemon less than 16 MiB."""
    names = [f"package-{number:04}-with-{'a-long-name-' * 12}" for number in range(4000)]
    text = "a title of many words, " * 20
    worst = {"database_specific": {"severity": "CRITICAL"}}
    common = [
        {
            **record(f"CVE-{severity}-{year}", "Debian:12", names[0], summary=text),
            "affected": [record("x", "Debian:12", it)["affected"][0] for it in names],
            "database_specific": {"severity": severity},
        }
        for year, severity in enumerate(["LOW", "MODERATE", "HIGH"])
    ]
    laboratory.know(*common, {**record("CVE-1", "Debian:12", names[-1], summary=text), **worst})
    system = Entry("etc/os-release", DEBIAN)
    told = await scan(
        laboratory, layer(system, dpkg(*((name, "1") for name in names))), max_ratio=1 << 30
    )

    assert told.get("packages") == 4000, told
    assert 2000 < told["findings"] <= 8000
    assert told["worst"] == "critical"
