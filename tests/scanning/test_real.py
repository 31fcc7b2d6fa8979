"""Real packages, as their own installers leave them, against real vulnerability data.

What is expected is computed here from OSV's files, by listing versions, and not with any code that
the scanner uses.
"""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cypd.scanning.vulndb.importing import Package
from tests.scanning.laboratory import Entry, Laboratory, folder_layer, layer, record

# Beside the repository, where there are any; the variable says where else.
DATA = Path(os.environ.get("CYPD_TEST_OSV", Path(__file__).parents[2].parent / "shared" / "data"))
PYPI, GO = DATA / "osv-PyPI-2024-10.zip", DATA / "osv-Go-2026-08.zip"
needs_pypi = pytest.mark.skipif(not PYPI.exists(), reason=f"needs {PYPI.name}, OSV's data")
needs_go = pytest.mark.skipif(
    not GO.exists() or not shutil.which("go"), reason=f"needs go, and {GO.name}, OSV's data"
)
pytestmark = pytest.mark.timeout(500)

Key = tuple[Any, ...]
Hit = tuple[str, str, str]
"""A package, its version, and the id under which a vulnerability is told."""


def records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield what an archive of OSV has, but what was withdrawn."""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.namelist():
            document = json.loads(archive.read(entry))
            if "withdrawn" not in document:
                yield document


def told_as(found: list[dict[str, Any]]) -> set[str]:
    """Return the ids of groups of aliases: the first CVE of each, or else the first id."""
    groups: list[set[str]] = []
    for document in found:
        names = {document["id"], *document.get("aliases", [])}
        for group in [group for group in groups if group & names]:
            groups.remove(group)
            names |= group
        groups.append(names)
    ids = {document["id"] for document in found}
    return {
        min([it for it in group if it.startswith("CVE-")] or sorted(group & ids))
        for group in groups
    }


def expected(
    path: Path, installed: dict[str, str], is_affected: Callable[[dict[str, Any], str], bool]
) -> set[Hit]:
    """Return all that the archive has against these packages."""
    against: dict[str, list[dict[str, Any]]] = {}
    for document in records(path):
        for affected in document["affected"]:
            name = re.sub(r"[-_.]+", "-", affected["package"]["name"]).lower()
            name = name if path == PYPI else affected["package"]["name"]
            if name in installed and is_affected(affected, installed[name]):
                listed = against.setdefault(name, [])
                if document not in listed:
                    listed.append(document)
    return {
        (name, installed[name], id_) for name, found in against.items() for id_ in told_as(found)
    }


# --- Python -------------------------------------------------------------------------------------


def pip_install(target: Path, *requirements: str) -> None:
    """Install packages as a Dockerfile does."""
    constraints = target.parent / "constraints.txt"
    # jinja2 2.4.1 asks for what setuptools dropped in its version 46.
    constraints.write_text("setuptools==45.3.0\nwheel<0.38\n")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
         "--target", str(target), *requirements],
        env={**os.environ, "PIP_CONSTRAINT": str(constraints)},
        check=True,
        capture_output=True,
        timeout=300,
    )  # fmt: skip


def installed_by_pip(target: Path) -> dict[str, str]:
    """Return what pip says is there."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "list", "--format", "json", "--path", str(target),
         "--disable-pip-version-check"],
        check=True,
        capture_output=True,
        timeout=120,
    )  # fmt: skip
    return {re.sub(r"[-_.]+", "-", it["name"]).lower(): it["version"]
            for it in json.loads(listed.stdout)}  # fmt: skip


@needs_pypi
async def test_python_packages_that_pip_installed(laboratory: Laboratory) -> None:
    """jinja2 2.4.1 and requests 2.19.1 with what they need: exactly what OSV lists for them."""
    site = laboratory.folder / "site"
    pip_install(site, "jinja2==2.4.1", "requests==2.19.1")
    laboratory.import_(Package("PyPI", PYPI))
    installed = installed_by_pip(site)
    scan = await laboratory.scan(folder_layer(site, "usr/local/lib/python3.12/site-packages"))
    found = {(it.package.lower(), it.installed_version, it.id) for it in scan.report.findings}

    assert {"jinja2", "requests", "urllib3", "idna"} <= set(installed)
    assert scan.report.packages == len(installed)
    assert found == expected(PYPI, installed, lambda it, version: version in it["versions"])
    assert {"jinja2", "requests", "urllib3"} < {package for package, _, _ in found}


@needs_pypi
async def test_fixed_python_packages(laboratory: Laboratory) -> None:
    """The versions that each finding says it is fixed in have no finding, all taken together."""
    laboratory.import_(Package("PyPI", PYPI))
    fixed = {"jinja2": "3.1.4", "requests": "2.32.0", "urllib3": "2.2.2", "idna": "3.7"}
    site = laboratory.folder / "site"
    pip_install(site, "--no-deps", *(f"{name}=={version}" for name, version in fixed.items()))
    scan = await laboratory.scan(folder_layer(site, "usr/lib/python3/site-packages"))

    assert fixed == installed_by_pip(site)
    assert scan.report.packages == len(fixed)
    assert set() == expected(PYPI, fixed, lambda it, version: version in it["versions"])
    assert scan.report.findings == ()


# --- Go -----------------------------------------------------------------------------------------


def go(folder: Path, *arguments: str) -> str:
    """Run the go command."""
    done = subprocess.run(
        ["go", *arguments],
        cwd=folder,
        env={**os.environ, "GOFLAGS": "-mod=mod -buildvcs=false", "CGO_ENABLED": "0"},
        check=True,
        capture_output=True,
        text=True,
        timeout=400,
    )  # fmt: skip
    return done.stdout


def build(folder: Path, version: str) -> Path:
    """Return a binary with that version of golang.org/x/net in it."""
    folder.mkdir()
    (folder / "main.go").write_text(
        'package main\n\nimport "golang.org/x/net/html"\n\n'
        'func main() { println(html.EscapeString("<")) }\n'
    )
    (folder / "go.mod").write_text("module example.com/app\n\ngo 1.20\n")
    go(folder, "get", f"golang.org/x/net@{version}")
    go(folder, "build", "-o", "app", ".")
    return folder / "app"


def modules(binary: Path) -> dict[str, str]:
    """Return what ``go version -m`` says is in a binary."""
    first, *lines = go(binary.parent, "version", "-m", str(binary)).splitlines()
    fields = [line.split("\t")[1:] for line in lines]
    found = {it[1]: it[2].removeprefix("v") for it in fields if it[0] == "dep"}
    return {**found, "stdlib": first.rpartition(" go")[2]}


def semantic(version: str) -> Key:
    """Return the order of semver.org for the versions that Go's data has."""
    release, _, stage = version.removeprefix("v").partition("+")[0].partition("-")
    parts = [(0, int(it), "") if it.isdigit() else (1, 0, it) for it in stage.split(".")]
    return tuple(int(it) for it in release.split(".")), not stage, parts


def in_go_range(affected: dict[str, Any], version: str) -> bool:
    """Tell whether a version is in a range, all whose events are in order in Go's data."""
    for each in affected["ranges"]:
        points = [next(iter(event.values())) for event in each["events"]]
        kinds = [next(iter(event)) for event in each["events"]]
        assert kinds == (["introduced", "fixed"] * len(kinds))[: len(kinds)]
        keys = [semantic("0.0.0-0" if point == "0" else point) for point in points]
        assert keys == sorted(keys)
        begun = [kind for kind, key in zip(kinds, keys, strict=True) if key <= semantic(version)]
        if begun and begun[-1] == "introduced":
            return True
    return False


@needs_go
async def test_a_binary_of_go(laboratory: Laboratory) -> None:
    """With an old golang.org/x/net: exactly what OSV lists for the modules that go names."""
    binary = build(laboratory.folder / "old", "v0.7.0")
    laboratory.import_(Package("Go", GO))
    inside = modules(binary)
    scan = await laboratory.scan(layer(Entry("app", binary.read_bytes(), mode=0o755)))
    found = {
        (it.package, it.installed_version.removeprefix("v"), it.id) for it in scan.report.findings
    }
    stamped = {it for it in scan.components if not it.startswith("pkg:golang/example.com")}

    assert inside["golang.org/x/net"] == "0.7.0"
    assert len(stamped) == len(inside)
    assert found == expected(GO, inside, in_go_range)
    assert ("golang.org/x/net", "0.7.0", "CVE-2023-3978") in found


@needs_go
async def test_a_fixed_binary_of_go(laboratory: Laboratory) -> None:
    """With the newest version that OSV knows a fix in, there is nothing against the module."""
    fixes = [
        event["fixed"]
        for document in records(GO)
        for affected in document["affected"]
        if affected["package"]["name"] == "golang.org/x/net"
        for event in itertools.chain.from_iterable(it["events"] for it in affected["ranges"])
        if "fixed" in event
    ]
    newest = max(fixes, key=semantic)
    binary = build(laboratory.folder / "new", f"v{newest}")
    laboratory.import_(Package("Go", GO))
    scan = await laboratory.scan(layer(Entry("app", binary.read_bytes(), mode=0o755)))
    found = {(it.package, it.id) for it in scan.report.findings}

    assert not any(package == "golang.org/x/net" for package, _ in found)
    assert found == {(hit[0], hit[2]) for hit in expected(GO, modules(binary), in_go_range)}


# --- Debian -------------------------------------------------------------------------------------


@pytest.mark.waits
@pytest.mark.timeout(900)
@pytest.mark.skipif(
    not shutil.which("debootstrap") or os.getuid() != 0, reason="needs debootstrap, as root"
)
async def test_a_root_of_debian(laboratory: Laboratory) -> None:
    """All that dpkg lists, and of what is known exactly what dpkg says is older than its fix."""
    root = laboratory.folder / "root"
    subprocess.run(
        ["debootstrap", "--variant=minbase", "bookworm", str(root)],
        check=True,
        capture_output=True,
        timeout=800,
    )
    form = "${Package}\t${Version}\t${source:Package}\t${source:Version}\n"
    listed = subprocess.run(
        ["dpkg-query", f"--admindir={root}/var/lib/dpkg", "--show", f"--showformat={form}"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    installed = [line.split("\t") for line in listed.stdout.splitlines()]
    sources = {source: version for _, _, source, version in installed}
    known, expected_hits = [], set()
    for number, (source, version) in enumerate(sorted(sources.items())):
        for kind, fixed in enumerate((version, f"{version}+deb12u1", f"{version}~0", "0:0~")):
            id_ = f"CVE-{number}-{kind}"
            known.append(record(id_, "Debian:12", source, {"introduced": "0"}, {"fixed": fixed}))
            older = subprocess.run(
                ["dpkg", "--compare-versions", version, "lt", fixed], check=False, timeout=20
            )
            if older.returncode == 0:
                expected_hits |= {(it[0], it[1], id_) for it in installed if it[2] == source}
    laboratory.know(*known)
    scan = await laboratory.scan(folder_layer(root, ""))
    found = {(it.package, it.installed_version, it.id) for it in scan.report.findings}

    assert len(installed) > 80
    assert scan.report.packages == len(installed)
    assert found == expected_hits
    assert len(found) == len(installed)
