"""What is found in an image, for each way to install packages."""

import gzip
import io
import json
import struct
import zipfile
import zlib
from pathlib import Path

import pytest

from cypd.scanning.ports import ScanFailed
from tests.scanning.laboratory import DEBIAN, Entry, Laboratory, layer, link, python, record
from tests.scanning.rpmdb import database, header

# What scans gives way to all else on the machine.
pytestmark = pytest.mark.timeout(300)

ALPINE = b'NAME="Alpine Linux"\nID=alpine\nVERSION_ID=3.18.4\nPRETTY_NAME="Alpine Linux v3.18"\n'
FIXTURES = Path(__file__).parent / "fixtures"
ROCKY = b'ID="rocky"\nVERSION_ID="9.3"\nPRETTY_NAME="Rocky Linux 9.3 (Blue Onyx)"\n'


async def found(laboratory: Laboratory, *entries: Entry) -> set[str]:
    """Return the package URLs of an image of one layer."""
    return set((await laboratory.scan(layer(*entries))).components)


async def test_debian(laboratory: Laboratory) -> None:
    """Installed packages by their source's name and version; those that were removed are not."""
    status = b"""Package: libssl3
Status: install ok installed
Architecture: amd64
Source: openssl (3.0.11-1)
Version: 3.0.11-1+b2
Description: a library
 of many lines
 .
 Package: not-one

Package: gone
Status: deinstall ok config-files
Version: 1
Architecture: all

Package: half
Status: install ok unpacked
Version: 1:2.0~rc1-1
Architecture: all
"""
    laboratory.know(
        record("CVE-1", "Debian:12", "openssl", {"introduced": "0"}, {"fixed": "3.0.11-1"}),
        record("CVE-2", "Debian:12", "openssl", {"introduced": "0"}, {"fixed": "3.0.11-1+deb12u1"}),
        record("CVE-3", "Debian:12", "half", {"introduced": "0"}, {"fixed": "1:2.0-1"}),
        record("CVE-4", "Debian:11", "half"),
        record("CVE-5", "Debian:12", "gone"),
    )
    scan = await laboratory.scan(
        layer(
            Entry("usr/lib/os-release", DEBIAN),
            link("etc/os-release", "../usr/lib/os-release"),
            Entry("var/lib/dpkg/status", status),
        )
    )

    assert {"CVE-2", "CVE-3"} == scan.ids
    assert (scan.of("CVE-2").package, scan.of("CVE-2").installed_version) == (
        "libssl3", "3.0.11-1+b2",
    )  # fmt: skip
    assert scan.of("CVE-2").fixed_version == "3.0.11-1+deb12u1"
    assert {
        "pkg:deb/debian/half@1:2.0~rc1-1?arch=all&distro=debian-12",
        "pkg:deb/debian/libssl3@3.0.11-1%2Bb2?arch=amd64&distro=debian-12",
    } == set(scan.components)
    assert "2 packages, on Debian GNU/Linux 12 (bookworm)" in scan.log


async def test_distroless(laboratory: Laboratory) -> None:
    """A folder of files takes the place of the status, with checksums beside them."""
    one = b"Package: base-files\nVersion: 12.4+deb12u5\nArchitecture: amd64\n"
    purls = await found(
        laboratory,
        Entry("var/lib/dpkg/status.d/base", one),
        Entry("var/lib/dpkg/status.d/base.md5sums", b"00 usr/x\n"),
    )
    assert {"pkg:deb/base-files@12.4%2Bdeb12u5?arch=amd64"} == purls


async def test_alpine(laboratory: Laboratory) -> None:
    """Packages by what they were built from, in Alpine's order of versions."""
    installed = b"""C:Q1xyz=
P:libcrypto3
V:3.1.4-r2
A:x86_64
S:1234
o:openssl
F:lib
R:libcrypto.so.3
a:0:0:755

P:musl
V:1.2.4-r2
A:x86_64

"""
    laboratory.know(
        record("CVE-1", "Alpine:v3.18", "openssl", {"introduced": "0"}, {"fixed": "3.1.4-r3"}),
        record("CVE-2", "Alpine:v3.18", "openssl", {"introduced": "0"}, {"fixed": "3.1.4_rc1-r9"}),
        record("CVE-3", "Alpine:v3.18", "musl", {"introduced": "0"}, {"fixed": "1.2.4-r10"}),
        record("CVE-4", "Alpine:v3.19", "musl"),
    )
    scan = await laboratory.scan(
        layer(Entry("etc/os-release", ALPINE), Entry("lib/apk/db/installed", installed))
    )

    assert {"CVE-1", "CVE-3"} == scan.ids
    assert {
        "pkg:apk/alpine/libcrypto3@3.1.4-r2?arch=x86_64&distro=alpine-3.18.4",
        "pkg:apk/alpine/musl@1.2.4-r2?arch=x86_64&distro=alpine-3.18.4",
    } == set(scan.components)


async def test_a_database_of_apk(laboratory: Laboratory) -> None:
    """One that apk itself wrote is read to the same packages, with what they were built from."""
    laboratory.know(
        record("CVE-1", "Alpine:v3.14", "openssl"), record("CVE-2", "Alpine:v3.14", "musl")
    )
    system = b'NAME="Alpine Linux"\nID=alpine\nVERSION_ID=3.14.0\n'
    scan = await laboratory.scan(
        layer(
            Entry("etc/os-release", system),
            Entry("lib/apk/db/installed", (FIXTURES / "installed").read_bytes()),
        )
    )

    assert {
        f"pkg:apk/alpine/{it}?arch=armv7&distro=alpine-3.14.0"
        for it in (
            "musl@1.2.2-r3",
            "libssl1.1@1.1.1k-r0",
            "ca-certificates-bundle@20191127-r5",
            "libc-utils@0.7.2-r3",
            "ssl_client@1.33.1-r3",
            "ifupdown-ng@0.11.3-r0",
        )
    } == set(scan.components)
    assert ("libssl1.1", "musl") == (scan.of("CVE-1").package, scan.of("CVE-2").package)


async def test_a_database_of_rpm(laboratory: Laboratory) -> None:
    """One that rpm itself wrote is read to what ``rpm -qa`` says of it; the README has its words.

    Advisories speak of what was built or of its source, each in a version of its own, and what
    packages brought along is theirs.
    """
    content = gzip.decompress((FIXTURES / "rpmdb.sqlite.gz").read_bytes())
    source = "1:3.0.7~rc1-24.el9"
    laboratory.know(
        record(
            "CVE-1", "Rocky Linux:9", "lantern", {"introduced": source}, {"last_affected": source}
        ),
        record("CVE-2", "Rocky Linux:9", "lantern", {"introduced": "0"}, {"fixed": source}),
        record("CVE-3", "Rocky Linux:9", "lantern-tool", {"introduced": "9"}, {"fixed": "9.2-1"}),
        record("CVE-4", "Rocky Linux:9", "lantern-tool", {"introduced": "0"}, {"fixed": "9.0-1"}),
    )
    scan = await laboratory.scan(
        layer(
            Entry("etc/os-release", ROCKY),
            Entry("var/lib/rpm/rpmdb.sqlite", content),
            python("lantern", "3.0.7rc1", "usr/lib/python3.9/site-packages"),
        )
    )

    assert {
        f"pkg:rpm/rocky/{it}?arch=noarch&distro=rocky-9.3"
        for it in (
            "lantern@1:3.0.7~rc1-24.el9",
            "lantern-empty@1:3.0.7~rc1-24.el9",
            "lantern-tool@9.1%5Egit5-2",
            "python3-lantern@1:3.0.7~rc1-24.el9",
        )
    } == set(scan.components)
    assert {
        ("CVE-1", "lantern"),
        ("CVE-1", "lantern-empty"),
        ("CVE-1", "lantern-tool"),
        ("CVE-1", "python3-lantern"),
        ("CVE-3", "lantern-tool"),
    } == {(it.id, it.package) for it in scan.report.findings}


@pytest.mark.parametrize(
    ("release", "meant", "others"),
    [
        (
            'ID="opensuse-leap"\nVERSION_ID="15.6"\nPRETTY_NAME="openSUSE Leap 15.6"',
            ("openSUSE:Leap 15.6",),
            ("openSUSE:Leap 15.5", "openSUSE:Tumbleweed"),
        ),
        (
            'ID="opensuse-tumbleweed"\nVERSION_ID="20261120"\nPRETTY_NAME="openSUSE Tumbleweed"',
            ("openSUSE:Tumbleweed",),
            ("openSUSE:Leap 15.6",),
        ),
        (
            'ID="sles"\nVERSION_ID="15.6"\nPRETTY_NAME="SUSE Linux Enterprise Server 15 SP6"',
            (
                "SUSE:Linux Enterprise Module for Basesystem 15 SP6",
                "SUSE:Linux Enterprise Server 15 SP6-LTSS",
            ),
            (
                "SUSE:Linux Enterprise Module for Basesystem 15 SP5",
                "SUSE:Linux Enterprise Server 16.0",
                "openSUSE:Leap 15.6",
            ),
        ),
        (
            'ID="sles"\nVERSION_ID="16.0"\nPRETTY_NAME="SUSE Linux Enterprise Server 16.0"',
            ("SUSE:Linux Enterprise Server 16.0",),
            ("SUSE:Linux Enterprise Server 15 SP6-LTSS",),
        ),
        (
            'ID="openEuler"\nVERSION_ID="22.03"\nPRETTY_NAME="openEuler 22.03 (LTS-SP3)"',
            ("openEuler:22.03-LTS-SP3",),
            ("openEuler:22.03-LTS", "openEuler:22.03-LTS-SP4"),
        ),
        (
            'ID="openEuler"\nVERSION_ID="24.03"\nPRETTY_NAME="openEuler 24.03 (LTS)"',
            ("openEuler:24.03-LTS",),
            ("openEuler:24.03-LTS-SP1",),
        ),
        ('ID=mageia\nVERSION_ID=9\nPRETTY_NAME="Mageia 9"', ("Mageia:9",), ("Mageia:8",)),
    ],
    ids=["leap", "tumbleweed", "sles-15", "sles-16", "openeuler-sp", "openeuler", "mageia"],
)
async def test_distributions_whose_advisories_speak_of_sources(
    laboratory: Laboratory, release: str, meant: tuple[str, ...], others: tuple[str, ...]
) -> None:
    """Those of the image's own release count, by the name and the version of the source package."""
    content = database(laboratory.folder, header("libz1", "1.2", "3.1", source="zlib"))
    fixed = ({"introduced": "0"}, {"fixed": "1.2-3.2"})
    named = {f"CVE-{number}": it for number, it in enumerate((*meant, *others))}
    laboratory.know(*(record(id_, it, "zlib", *fixed) for id_, it in named.items()))
    scan = await laboratory.scan(
        layer(
            Entry("etc/os-release", release.encode()),
            Entry("usr/lib/sysimage/rpm/rpmdb.sqlite", content),
        )
    )

    assert set(meant) == {named[id_] for id_ in scan.ids}


@pytest.mark.parametrize("wal", [False, True], ids=["rollback", "wal"])
@pytest.mark.parametrize("path", ["var/lib/rpm", "usr/lib/sysimage/rpm"])
async def test_rpm(laboratory: Laboratory, wal: bool, path: str) -> None:
    """Packages with epoch, version and release, whichever journal the database was left with."""
    content = database(
        laboratory.folder,
        header("openssl", "3.0.7", "24.el9", epoch=1),
        header("bash", "5.1.8", "6.el9_1"),
        header("gpg-pubkey", "350d275d", "6279464b"),
        wal=wal,
    )
    laboratory.know(
        record(
            "CVE-1", "Rocky Linux:9", "openssl", {"introduced": "0"}, {"fixed": "1:3.0.7-25.el9"}
        ),
        record(
            "CVE-2", "Rocky Linux:9", "openssl", {"introduced": "0"}, {"fixed": "1:3.0.7-6.el9"}
        ),
        record("CVE-3", "Rocky Linux:9", "bash", {"introduced": "0"}, {"fixed": "0:5.1.8-9.el9"}),
        record("CVE-4", "Rocky Linux:8", "bash"),
    )
    scan = await laboratory.scan(
        layer(Entry("etc/os-release", ROCKY), Entry(f"{path}/rpmdb.sqlite", content))
    )

    assert {"CVE-1", "CVE-3"} == scan.ids
    assert scan.of("CVE-1").installed_version == "1:3.0.7-24.el9"
    assert scan.report.packages == 2


async def test_red_hat_has_a_stream_for_each_repository(laboratory: Laboratory) -> None:
    """All of a release are looked at, and no other release's."""
    rhel = b'ID="rhel"\nVERSION_ID="9.4"\nPRETTY_NAME="Red Hat Enterprise Linux 9.4 (Plow)"\n'
    laboratory.know(
        record("RHSA-1", "Red Hat:enterprise_linux:9::baseos", "bash"),
        record("RHSA-2", "Red Hat:enterprise_linux:9::appstream", "bash"),
        record("RHSA-3", "Red Hat:enterprise_linux:90::baseos", "bash"),
    )
    content = database(laboratory.folder, header("bash", "5.1.8", "6.el9_1"))
    scan = await laboratory.scan(
        layer(Entry("etc/os-release", rhel), Entry("var/lib/rpm/rpmdb.sqlite", content))
    )
    assert {"RHSA-1", "RHSA-2"} == scan.ids


async def test_older_databases_of_rpm_are_named(laboratory: Laboratory) -> None:
    """They are not read, and the log says so: no finding is no comfort there."""
    scan = await laboratory.scan(layer(Entry("var/lib/rpm/Packages", b"\0" * 100)))
    assert any("var/lib/rpm/Packages not read" in line for line in scan.log)


async def test_what_the_system_installed_is_the_systems(laboratory: Laboratory) -> None:
    """A distribution patches without a new version: only its own package tells the truth."""
    module = b'{"name": "left-pad", "version": "1.3.0"}'
    apk = b"P:py3-a\nV:1-r0\nF:usr/lib/a/b-1.dist-info\nR:METADATA\n"
    rpm = database(
        laboratory.folder,
        header("c", "1", "1", files=["/bin/c", "/usr/lib/a/c-1.dist-info/METADATA"]),
    )
    purls = await found(
        laboratory,
        python("a", "1", "usr/lib/a"),
        python("b", "1", "usr/lib/a"),
        python("c", "1", "usr/lib/a"),
        python("d", "1", "usr/lib/a"),
        Entry("usr/share/node_modules/left-pad/package.json", module),
        Entry("var/lib/dpkg/info/a.list", b"/.\n/usr/lib/a/a-1.dist-info/METADATA\n/usr/share/"
              b"node_modules/left-pad/package.json\n"),
        Entry("lib/apk/db/installed", apk),
        Entry("var/lib/rpm/rpmdb.sqlite", rpm),
    )  # fmt: skip
    assert {"pkg:apk/py3-a@1-r0", "pkg:pypi/d@1", "pkg:rpm/c@1-1?arch=x86_64"} == purls


@pytest.mark.parametrize("id_", ["debian", "nobody"])
async def test_the_log_says_what_there_is_no_data_for(laboratory: Laboratory, id_: str) -> None:
    """So that no finding is not taken for no vulnerability."""
    system = f'ID={id_}\nVERSION_ID=12\nPRETTY_NAME="Somebody\'s"\n'.encode()
    status = b"Package: a\nStatus: install ok installed\nVersion: 1\n"
    scan = await laboratory.scan(
        layer(Entry("etc/os-release", system), Entry("var/lib/dpkg/status", status))
    )
    name = "Debian:12" if id_ == "debian" else "Somebody's (a distribution not known here)"
    assert f"no vulnerability data for {name}: 1 not compared" in scan.log


async def test_python(laboratory: Laboratory) -> None:
    """dist-info, both forms of egg-info, names in the one form they are looked up under."""
    text = b"Metadata-Version: 1.0\nName: Zope_Interface\nVersion: 1.0\n"
    laboratory.know(
        record("CVE-1", "PyPI", "zope.interface", {"introduced": "0"}, {"fixed": "1.0.1"})
    )
    scan = await laboratory.scan(
        layer(
            python("flask", "2.0"),
            Entry("a/b.egg-info/PKG-INFO", text),
            Entry("a/c-1.egg-info", text.replace(b"1.0\n", b"1.1\n")),
            Entry("a/flask/METADATA", text),
            Entry("a/d.dist-info/METADATA", b"nothing"),
        )
    )
    assert {
        "pkg:pypi/flask@2.0", "pkg:pypi/zope-interface@1.0", "pkg:pypi/zope-interface@1.1",
    } == set(scan.components)  # fmt: skip
    assert {"CVE-1"} == scan.ids
    assert any("1 files not understood" in line for line in scan.log)


async def test_node(laboratory: Laboratory) -> None:
    """Modules that are installed, and what lock files outside list, developers' tools excepted."""

    def module(name: str, version: object) -> bytes:
        return json.dumps({"name": name, "version": version, "x": [{"y": 1}]}).encode()

    new = {"lockfileVersion": 3, "packages": {
        "": {"name": "app", "version": "1.0.0"},
        "node_modules/a": {"version": "1.0.0"},
        "node_modules/a/node_modules/@s/b": {"version": "2.0.0", "dependencies": {"c": "^1"}},
        "node_modules/d": {"version": "3.0.0", "dev": True},
        "packages/e": {"name": "e", "version": "4.0.0"},
        "node_modules/e": {"resolved": "packages/e", "link": True},
    }}  # fmt: skip
    old = {"lockfileVersion": 1, "dependencies": {
        "f": {"version": "1.0.0", "dependencies": {"g": {"version": "2.0.0"}}},
        "h": {"version": "1.0.0", "dev": True},
    }}  # fmt: skip
    purls = await found(
        laboratory,
        Entry("app/node_modules/left-pad/package.json", module("left-pad", "1.3.0")),
        Entry("app/node_modules/@types/node/package.json", module("@types/node", "20.0.0")),
        Entry("app/node_modules/x/test/package.json", module("fixture", "1.0.0")),
        Entry("app/node_modules/y/package.json", module("y", 7)),
        Entry("app/node_modules/y/node_modules/z/package.json", module("z", "1.0.0")),
        Entry("app/node_modules/z/package-lock.json", json.dumps(new).encode()),
        Entry("app/package.json", module("app", "1.0.0")),
        Entry("app/package-lock.json", json.dumps(new).encode()),
        Entry("old/package-lock.json", json.dumps(old).encode()),
    )
    assert {
        "pkg:npm/left-pad@1.3.0", "pkg:npm/%40types/node@20.0.0", "pkg:npm/z@1.0.0",
        "pkg:npm/a@1.0.0", "pkg:npm/%40s/b@2.0.0", "pkg:npm/e@4.0.0",
        "pkg:npm/f@1.0.0", "pkg:npm/g@2.0.0",
    } == purls  # fmt: skip


async def test_ruby(laboratory: Laboratory) -> None:
    """Gems, by the specifications that RubyGems writes."""
    text = b"""# -*- encoding: utf-8 -*-
# stub: rack 2.2.3 ruby lib

Gem::Specification.new do |s|
  s.name = "rack".freeze
  s.version = "2.2.3"

  s.required_rubygems_version = Gem::Requirement.new(">= 0".freeze)
end
"""
    laboratory.know(record("CVE-1", "RubyGems", "rack", {"introduced": "0"}, {"fixed": "2.2.3.1"}))
    scan = await laboratory.scan(
        layer(
            Entry("usr/local/bundle/specifications/rack-2.2.3.gemspec", text),
            Entry("usr/local/bundle/gems/rack-2.2.3/rack.gemspec", text),
        )
    )
    assert {"pkg:gem/rack@2.2.3"} == set(scan.components)
    assert {"CVE-1"} == scan.ids


def jar(**files: bytes) -> bytes:
    """Return an archive of Java; ``__`` stands for a slash, ``_`` for a dot."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in files.items():
            archive.writestr(path.replace("__", "/").replace("_", "."), content)
    return file.getvalue()


async def test_java(laboratory: Laboratory) -> None:
    """By Maven's properties, in jars in jars as well; else by the manifest and the file's name."""
    log4j = jar(
        **{
            "META-INF__maven__org_apache__log4j__pom_properties": b"#x\r\ngroupId=org.apache\r\n"
            b"artifactId=log4j\r\nversion=2.14.1\r\n",
            "META-INF__MANIFEST_MF": b"Implementation-Version: 9\r\n",
        }
    )
    named = jar(**{"META-INF__MANIFEST_MF": b"Implementation-Vendor-Id: org\r\n .x\r\n"})
    war = jar(**{"WEB-INF__lib__log4j_jar": log4j, "WEB-INF__lib__bad_jar": b"PK"})
    laboratory.know(
        record(
            "CVE-1", "Maven", "org.apache:log4j", {"introduced": "2.0-beta9"}, {"fixed": "2.15.0"}
        )
    )
    scan = await laboratory.scan(
        layer(
            Entry("opt/app.war", jar(**{"WEB-INF__lib__log4j_jar": log4j})),
            Entry("opt/lib-1.2.jar", named),
            Entry("opt/unknown.jar", jar(x=b"")),
            Entry("opt/broken.war", war),
        )
    )
    assert {"pkg:maven/org.apache/log4j@2.14.1", "pkg:maven/org.x/lib@1.2"} == set(scan.components)
    assert {"CVE-1"} == scan.ids
    assert any("1 files not understood" in line for line in scan.log)


async def test_rust(laboratory: Laboratory) -> None:
    """Crates, as cargo-auditable notes them in a binary; what only builds it is not in it."""
    crates = {"packages": [
        {"name": "app", "version": "0.1.0", "source": "local", "root": True, "dependencies": [1]},
        {"name": "time", "version": "0.1.43", "source": "crates.io"},
        {"name": "cc", "version": "1.0.0", "source": "crates.io", "kind": "build"},
    ]}  # fmt: skip
    laboratory.know(
        record("RUSTSEC-1", "crates.io", "time", {"introduced": "0"}, {"fixed": "0.2.23"})
    )
    binary = elf(".dep-v0", zlib.compress(json.dumps(crates).encode()))
    scan = await laboratory.scan(layer(Entry("usr/bin/app", binary, mode=0o755)))

    assert {"pkg:cargo/app@0.1.0", "pkg:cargo/time@0.1.43"} == set(scan.components)
    assert {"RUSTSEC-1"} == scan.ids


def elf(section: str, content: bytes) -> bytes:
    """Return an ELF file of nothing but a section of that name (elf(5))."""
    names = b"\0.shstrtab\0" + section.encode() + b"\0"
    listed = [
        (0, 0, 0, 0),
        (1, 3, 64, len(names)),
        (11, 1, 64 + len(names), len(content)),
    ]
    table = b"".join(
        struct.pack("<IIQQQQIIQQ", name, kind, 0, 0, start, size, 0, 0, 1, 0)
        for name, kind, start, size in listed
    )
    place = 64 + len(names) + len(content)
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 0, place, 0, 64, 56, 0, 64, 3, 1)
    return head + names + content + table


async def test_go_before_1_18(laboratory: Laboratory) -> None:
    """Older compilers point to the strings instead of placing them; and to a replaced module."""
    binary = old_go_binary(
        "go1.16.3",
        "path\tx\nmod\tx\t(devel)\t\ndep\tgolang.org/x/net\tv0.1.0\th1:x=\n"
        "dep\tgithub.com/a/b\tv1.0.0\n=>\tgithub.com/c/b\tv2.0.0\th1:y=\n"
        "dep\tgithub.com/d/e\tv1.0.0\n=>\t./local\t\n",
    )
    assert {
        "pkg:golang/stdlib@1.16.3",
        "pkg:golang/golang.org/x/net@v0.1.0",
        "pkg:golang/github.com/c/b@v2.0.0",
    } == await found(laboratory, Entry("app", binary, mode=0o755))


def old_go_binary(version: str, modules: str) -> bytes:
    """Return an ELF file of one segment with what Go's linker before 1.18 writes."""
    base = 0x400000
    text = b"0123456789abcdef" + modules.encode() + b"fedcba9876543210"
    blob, strings = 0x100, 0x200
    texts = strings + 32
    data = bytearray(texts + len(version) + len(text))
    program = (
        (1).to_bytes(4, "little")
        + (6).to_bytes(4, "little")
        + b"".join(it.to_bytes(8, "little") for it in (0, base, base, len(data), len(data), 4096))
    )
    data[:64] = (
        b"\x7fELF\x02\x01\x01"
        + bytes(9)
        + b"\x02\0\x3e\0\x01\0\0\0"
        + b"".join(it.to_bytes(8, "little") for it in (base, 64, 0))
        + bytes(4)
        + b"".join(it.to_bytes(2, "little") for it in (64, 56, 1, 64, 0, 0))
    )
    data[64 : 64 + 56] = program
    data[blob : blob + 16] = b"\xff Go buildinf:\x08\x00"
    data[blob + 16 : blob + 32] = (base + strings).to_bytes(8, "little") + (
        base + strings + 16
    ).to_bytes(8, "little")
    for place, start, size in (
        (strings, texts, len(version)),
        (strings + 16, texts + len(version), len(text)),
    ):
        data[place : place + 16] = (base + start).to_bytes(8, "little") + size.to_bytes(8, "little")
    data[texts:] = version.encode() + text
    return bytes(data)


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("var/lib/dpkg/status", b"Package: a\nStatus: install ok installed\n"),
        ("var/lib/dpkg/status", b"\xff\xfe"),
        ("lib/apk/db/installed", b"V:1\n\n"),
        ("var/lib/rpm/rpmdb.sqlite", b"SQLite format 3\0" + b"x" * 5000),
        ("var/lib/rpm/rpmdb.sqlite", b""),
        ("var/lib/rpm/rpmdb.sqlite", b"nothing"),
    ],
)
async def test_a_damaged_database_of_the_system_fails_the_scan(
    laboratory: Laboratory, path: str, content: bytes
) -> None:
    """Without it nothing that is said of the image would be true; it says which file, and why."""
    with pytest.raises(ScanFailed, match=f"{path} is damaged: "):
        await laboratory.scan(layer(Entry(path, content)))


async def test_headers_of_rpm_that_lie(laboratory: Laboratory) -> None:
    """Counts and offsets of any size are refused with a reason, not followed."""
    good = header("a", "1", "1", files=["/x/METADATA"])
    refused = 0
    for number in range(0, 96, 12):
        bad = good[:number] + b"\x7f\xff\xff\xff" + good[number + 4 :]
        content = database(laboratory.folder, bad)
        try:
            await laboratory.scan(layer(Entry("var/lib/rpm/rpmdb.sqlite", content)))
        except ScanFailed as error:
            assert "rpmdb.sqlite is damaged" in str(error)
            refused += 1
    assert refused >= 3


@pytest.mark.parametrize("system", [b"ID=ubuntu\nVERSION_ID=x.04\n", b"ID=\xff\nVERSION_ID=..::\n"])
async def test_names_that_can_not_be(laboratory: Laboratory, system: bytes) -> None:
    """A package of no name, no version, or of megabytes is left out and counted; others stay."""
    names = ["x/", "/x", "@/x", " ", "a\nb", "\x00", "x" * 600, ":", "@s/x"]
    modules = {
        f"node_modules/{number}": {"name": name, "version": "1"}
        for number, name in enumerate(names)
    }
    modules |= {
        f"node_modules/{it}": {"name": "v", "version": it} for it in (" ", "9" * 9999, "1 ")
    }
    scan = await laboratory.scan(
        layer(
            Entry("etc/os-release", system),
            Entry("package-lock.json", json.dumps({"packages": modules}).encode()),
            python("x/", "1"),
            python("y", "\x07"),
            python("z", "1"),
        )
    )
    assert {"pkg:pypi/z@1", "pkg:npm/%40s/x@1", "pkg:npm/%40/x@1"} == set(scan.components)
    assert any("3 files not understood" in line for line in scan.log)


@pytest.mark.parametrize(
    "content",
    [b"\x7fELF", b"\x7fELF\x02\x01\x01" + b"\xff" * 300, b"\x7fELF\x01\x02\x01" + b"\0" * 300],
)
async def test_executables_that_are_none(laboratory: Laboratory, content: bytes) -> None:
    """A file that only begins like one is left out."""
    assert set() == await found(laboratory, Entry("app", content, mode=0o755))
