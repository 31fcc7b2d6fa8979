"""Which files an image has in the end, and which layer a package came with."""

import gzip
import zlib
from pathlib import Path

import pytest

from cypd.registry.ports import BlobMissing
from cypd.scanning.ports import Image, Layer, ScanFailed
from tests.samples import name
from tests.scanning.laboratory import (
    DEBIAN,
    TAR,
    TAR_ZSTD,
    Entry,
    Laboratory,
    dpkg,
    folder,
    layer,
    link,
    python,
    record,
    tar,
)
from tests.scanning.packing import zstd

# What scans gives way to all else on the machine.
pytestmark = pytest.mark.timeout(300)

SITE = "usr/local/lib/python3.12/site-packages"
JINJA = "pkg:pypi/jinja2@2.4.1"
BASE = layer(python("jinja2", "2.4.1"))


async def purls(laboratory: Laboratory, *layers: bytes) -> set[str]:
    """Return the package URLs of an image."""
    return set((await laboratory.scan(*layers)).components)


@pytest.mark.parametrize(
    "packed",
    [
        tar(python("jinja2", "2.4.1")),
        gzip.compress(tar(python("jinja2", "2.4.1"))),
        # RFC 1952: members one after the other, as pigz and eStargz write them.
        b"".join(
            gzip.compress(tar(python("jinja2", "2.4.1"))[i : i + 700]) for i in range(0, 10240, 700)
        ),
        zstd.compress(tar(python("jinja2", "2.4.1"))),
        # Frames, one of them to be skipped (RFC 8878 3.1.2), such as zstd:chunked has.
        b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc".join(
            zstd.compress(tar(python("jinja2", "2.4.1"))[i : i + 5120]) for i in (0, 5120)
        ),
    ],
    ids=["plain", "gzip", "members", "zstd", "frames"],
)
@pytest.mark.parametrize(
    "media_type", [TAR, TAR_ZSTD, "application/vnd.docker.image.rootfs.diff.tar.gzip"]
)
async def test_a_layer_is_read_whatever_it_is_packed_with(
    laboratory: Laboratory, packed: bytes, media_type: str
) -> None:
    """Its first bytes tell, as they do to a container runtime; the media type is only a claim."""
    scan = await laboratory.scan(packed, media_type=media_type)

    assert {JINJA} == set(scan.components)
    assert scan.report.packages == 1


@pytest.mark.parametrize(
    "upper",
    [
        [Entry(f"{SITE}/jinja2-2.4.1.dist-info/.wh.METADATA")],
        [Entry(f"{SITE}/.wh.jinja2-2.4.1.dist-info")],
        [Entry("usr/.wh.local")],
        [folder("usr/local"), Entry("usr/local/.wh..wh..opq")],
        [Entry(".wh..wh..opq")],
        [Entry("./usr/local/.wh.lib")],
        [link("usr/local", "/opt/local")],
        [folder(f"{SITE}/jinja2-2.4.1.dist-info/METADATA")],
        [Entry(f"{SITE}/jinja2-2.4.1.dist-info")],
    ],
    ids=["file", "folder", "parent", "opaque", "root", "dotted", "symlink", "replaced", "covered"],
)
async def test_what_an_upper_layer_takes_away_is_gone(
    laboratory: Laboratory, upper: list[Entry]
) -> None:
    """By a whiteout, an opaque folder, or something else in its place (image-spec, layer.md)."""
    other = layer(python("left", "1.0", "opt"))
    kept = {"pkg:pypi/left@1.0"} if upper[0].path != ".wh..wh..opq" else set()

    assert kept == await purls(laboratory, other, BASE, layer(*upper))
    assert {JINJA} | kept == await purls(laboratory, other, layer(*upper), BASE) | kept


async def test_a_whiteout_is_about_the_layers_below_only(laboratory: Laboratory) -> None:
    """What the same layer brings stays, wherever in the archive it stands."""
    new = python("jinja2", "3.1.6")
    whiteouts = [Entry(f"{SITE}/.wh..wh..opq"), Entry(f"{SITE}/.wh.jinja2-3.1.6.dist-info")]

    for entries in ([new, *whiteouts], [*whiteouts, new]):
        assert {"pkg:pypi/jinja2@3.1.6"} == await purls(laboratory, BASE, layer(*entries))


async def test_an_upper_file_replaces_a_lower_one(laboratory: Laboratory) -> None:
    """Only the packages of the uppermost are there; folders of the same name add up."""
    upper = [
        folder(SITE),
        Entry(f"{SITE}/jinja2-2.4.1.dist-info/METADATA", b"Name: jinja2\nVersion: 9\n"),
    ]
    assert {"pkg:pypi/jinja2@9"} == await purls(laboratory, BASE, layer(*upper))


async def test_a_package_belongs_to_the_layer_that_brought_it(laboratory: Laboratory) -> None:
    """Not to the last one that rewrote dpkg's status; a new version is a new package."""
    laboratory.know(*(record(f"CVE-{it}", "Debian:12", it) for it in ("a", "b", "c")))
    scan = await laboratory.scan(
        layer(Entry("etc/os-release", DEBIAN), dpkg(("a", "1"), ("b", "1"))),
        layer(dpkg(("a", "1"), ("b", "2"))),
        layer(dpkg(("a", "1"), ("b", "2"), ("c", "1"))),
    )

    assert [scan.of(f"CVE-{it}").layer for it in "abc"] == scan.layers
    assert [scan.of(f"CVE-{it}").installed_version for it in "abc"] == ["1", "2", "1"]
    listed = {it["name"]: it["properties"][0]["value"] for it in scan.components.values()}
    assert dict(zip("abc", scan.layers, strict=True)) == listed


@pytest.mark.parametrize("path", ["/etc/x", "../../etc/x", "./../x", "//x", "a/../../../x"])
async def test_no_name_leads_out_of_the_image(laboratory: Laboratory, path: str) -> None:
    """Absolute names and dots begin at its root, as for container runtimes."""
    entry = python("jinja2", "2.4.1", path)

    assert {JINJA} == await purls(laboratory, layer(entry))
    assert not list(laboratory.folder.rglob("x"))
    assert not Path("/etc/x").exists()


async def test_a_hard_link_is_another_name_of_the_file(laboratory: Laboratory) -> None:
    """Also where the first name tells nothing, as in the stores of package managers."""
    module = b'{"name": "left-pad", "version": "1.3.0"}'
    scan = await laboratory.scan(
        layer(
            Entry("store/ab/cdef", module),
            Entry("store/ab/other", b"{}"),
            link("app/node_modules/left-pad/package.json", "store/ab/cdef", hard=True),
            link("app/node_modules/again/package.json", "/store/ab/cdef", hard=True),
            python("jinja2", "2.4.1"),
            link("x.dist-info/METADATA", f"{SITE}/jinja2-2.4.1.dist-info/METADATA", hard=True),
            link("y/node_modules/lost/package.json", "nowhere", hard=True),
        )
    )
    assert {JINJA, "pkg:npm/left-pad@1.3.0"} == set(scan.components)


async def test_the_last_entry_of_a_name_counts(laboratory: Laboratory) -> None:
    """An archive may have a name twice."""
    first, second = python("jinja2", "2.4.1"), python("jinja2", "2.4.1")
    second = second._replace(content=b"Name: jinja2\nVersion: 3\n")
    gone = link(first.path, "/dev/null")

    assert {"pkg:pypi/jinja2@3"} == await purls(laboratory, layer(first, second))
    assert set() == await purls(laboratory, layer(first, gone))


async def test_the_log_tells_what_was_read(laboratory: Laboratory) -> None:
    """Each layer with its files, bytes, packages and seconds; then packages, findings, seconds."""
    laboratory.know(record("CVE-1", "PyPI", "jinja2"))
    scan = await laboratory.scan(BASE, layer(Entry("x", b"1")))
    [first, second, total, compared, end] = scan.log

    assert first.startswith(f"layer 1 of 2 ({scan.layers[0][:19]}): 1 files, 0.0 MiB unpacked")
    assert "with 1 packages read" in first
    assert first.endswith(" s")
    assert second.startswith("layer 2 of 2 (")
    assert (total, compared) == ("1 packages, on no system", "compared 1 packages of PyPI")
    assert end.startswith("1 findings, after ")


async def test_what_is_no_layer_of_files_is_left_out(laboratory: Laboratory) -> None:
    """An artifact's contents, and layers that may be had elsewhere only; the log says so."""
    laboratory.know(record("CVE-1", "PyPI", "jinja2"))
    image = await laboratory.image(BASE)
    foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    absent = Layer(await Laboratory.push(laboratory, b"x"), foreign, 2)
    statement = Layer(await laboratory.push(b"{}"), "application/vnd.in-toto+json", 2)
    log: list[str] = []
    everything = image._replace(layers=(*image.layers, absent, statement))
    report = await laboratory.engine().scan(everything, say=log.append)

    assert (report.packages, len(report.findings)) == (1, 1)
    assert "not read, it may be had elsewhere only" in log[1]
    assert "not read, it is no layer of files but application/vnd.in-toto+json" in log[2]


@pytest.mark.parametrize(
    ("content", "media_type", "reason"),
    [
        (b"this is nothing" * 100, TAR, "is no tar archive"),
        (gzip.compress(b"this is nothing" * 100), TAR, "is no tar archive"),
        (BASE[:-20], TAR, "is damaged"),
        (layer(Entry("lib/apk/db/installed", bytes(range(256)) * 999))[:3000], TAR, "is damaged"),
        (BASE[:40] + b"\0\0\0\0" + BASE[44:], TAR, "is damaged"),
        (zstd.compress(tar(python("a", "1")))[:-9], TAR_ZSTD, "is damaged: it is cut short"),
        (tar(python("a", "1"))[:600], TAR, "is damaged"),
        (tar(python("a", "1"))[:1024] + b"x" * 4096, TAR, "is damaged"),
        (BASE, TAR + "+encrypted", "is encrypted"),
    ],
    ids=[
        "text",
        "packed text",
        "cut",
        "cut in a file",
        "flipped",
        "zstd",
        "tar",
        "tail",
        "encrypted",
    ],
)
async def test_a_damaged_layer_fails_the_scan(
    laboratory: Laboratory, content: bytes, media_type: str, reason: str
) -> None:
    """With what is wrong and where: a scan that saw half the image would be a false comfort."""
    with pytest.raises(ScanFailed, match=reason):
        await laboratory.scan(content, media_type=media_type)


async def test_a_layer_that_is_not_stored_fails_the_scan(laboratory: Laboratory) -> None:
    """Unless it is of a kind that may be absent."""
    laboratory.know(record("CVE-1", "PyPI", "jinja2"))
    image = await laboratory.image(BASE)
    wrong = image.layers[0]._replace(size=1)
    with pytest.raises(BlobMissing):
        await laboratory.storage.open(wrong.digest, wrong.size)

    with pytest.raises(ScanFailed, match="is not in the storage"):
        await laboratory.engine().scan(image._replace(layers=(wrong,)), say=lambda _: None)


async def test_an_image_of_nothing_has_nothing(laboratory: Laboratory) -> None:
    """No layers, an empty layer and one without entries are images as well."""
    laboratory.know(record("CVE-1", "PyPI", "jinja2"))
    image = Image(name(), (await laboratory.image(BASE)).digest, None, ())
    report = await laboratory.engine().scan(image, say=lambda _: None)

    assert (report.packages, report.findings) == (0, ())
    assert (await laboratory.scan(tar(), zlib.compress(b"", wbits=31))).report.packages == 0
