"""Images by hand, vulnerability data by hand, and the engine that scans the ones by the other."""

import gzip
import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgspec

from cypd.oci.digest import Digest
from cypd.scanning.embedded import EmbeddedEngine
from cypd.scanning.limits import Limits
from cypd.scanning.ports import Finding, Image, Layer, Report
from cypd.scanning.vulndb.importing import Importer, Package
from cypd.storage.filesystem import FilesystemStorage
from cypd.storage.spool import Spool
from tests.samples import name

TAR = "application/vnd.oci.image.layer.v1.tar"
TAR_GZIP = TAR + "+gzip"
TAR_ZSTD = TAR + "+zstd"
LIMITS = Limits(
    memory=1 << 30,
    cpu_seconds=120,
    timeout=300,
    max_bytes=8 << 30,
    max_files=200_000,
    max_ratio=100,
)
DEBIAN = b'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_ID="12"\n'


class Scan(NamedTuple):
    """What came of a scan."""

    report: Report
    log: list[str]
    layers: list[Digest]

    @property
    def ids(self) -> set[str]:
        """The findings' ids."""
        return {finding.id for finding in self.report.findings}

    @property
    def components(self) -> dict[str, dict[str, Any]]:
        """What the SBOM lists, by package URL."""
        listed = json.loads(self.report.sbom).get("components", [])
        return {it["purl"]: it for it in listed if "purl" in it}

    def of(self, id_: str) -> Finding:
        """Return the one finding of that id."""
        [finding] = [it for it in self.report.findings if it.id == id_]
        return finding


class Laboratory:
    """A blob storage, a database and an engine in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.storage = FilesystemStorage(folder / "storage")
        self.data = folder / "vulndb"
        self.limits = LIMITS
        self.log: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.storage.close()

    def engine(self, **limits: Any) -> EmbeddedEngine:
        """Return the engine; what is named is bounded otherwise."""
        bounds = msgspec.structs.replace(self.limits, **limits)
        return EmbeddedEngine(Spool(self.storage, self.folder).open, self.data, bounds)

    def know(self, *records: dict[str, Any]) -> None:
        """Import records, as single files."""
        packages = []
        for number, document in enumerate(records):
            path = self.folder / f"record-{number}.json"
            path.write_text(json.dumps(document))
            packages.append(Package("", path))
        self.import_(*packages)

    def import_(self, *packages: Package) -> None:
        """Import files."""
        with Importer(self.data) as importer:
            importer.run(packages, lambda *_: None)

    async def push(self, content: bytes) -> Digest:
        """Put a blob into the storage."""
        digest = Digest.of(content)
        async with self.storage.stage("an-upload", "sha256") as blob:
            for start in range(0, len(content), 1 << 20):
                await blob.write(content[start : start + (1 << 20)])
            async with self.storage.place(blob, digest):
                pass
        return digest

    async def image(self, *layers: bytes, media_type: str = TAR_GZIP) -> Image:
        """Store an image with these layers, as they are."""
        pushed = [Layer(await self.push(it), media_type, len(it)) for it in layers]
        return Image(name(), Digest.of(b"a manifest"), None, tuple(pushed))

    async def scan(self, *layers: bytes, media_type: str = TAR_GZIP, **limits: Any) -> Scan:
        """Scan an image with these layers, as they are."""
        if not self.data.exists():
            self.know(UNRELATED)
        image = await self.image(*layers, media_type=media_type)
        self.log.clear()
        report = await self.engine(**limits).scan(image, say=self.log.append)
        return Scan(report, list(self.log), [layer.digest for layer in image.layers])


# --- layers -------------------------------------------------------------------------------------


class Entry(NamedTuple):
    """An entry of a tar archive."""

    path: str
    content: bytes = b""
    type: bytes = tarfile.REGTYPE
    target: str = ""
    mode: int = 0o644


def folder(path: str) -> Entry:
    """Return a folder."""
    return Entry(path, type=tarfile.DIRTYPE, mode=0o755)


def link(path: str, target: str, *, hard: bool = False) -> Entry:
    """Return a link."""
    return Entry(path, type=tarfile.LNKTYPE if hard else tarfile.SYMTYPE, target=target)


def tar(*entries: Entry) -> bytes:
    """Return an archive of the entries, in their order."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for entry in entries:
            info = tarfile.TarInfo(entry.path)
            info.type, info.linkname, info.mode = entry.type, entry.target, entry.mode
            info.size = len(entry.content)
            archive.addfile(info, io.BytesIO(entry.content))
    return file.getvalue()


def layer(*entries: Entry) -> bytes:
    """Return a layer as most are: a packed archive."""
    return gzip.compress(tar(*entries), 1, mtime=0)


def folder_layer(path: Path, below: str) -> bytes:
    """Return a layer of all files of a folder, with a path in the image before theirs."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as archive:
        archive.add(path, below or ".")
    return file.getvalue()


# --- packages -----------------------------------------------------------------------------------


def python(
    package: str, version: str, below: str = "usr/local/lib/python3.12/site-packages"
) -> Entry:
    """Return what pip leaves of a package that it installs."""
    text = f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n\nA description: long\n"
    return Entry(f"{below}/{package}-{version}.dist-info/METADATA", text.encode())


def dpkg(*packages: tuple[str, str]) -> Entry:
    """Return dpkg's status with these packages installed."""
    text = "\n".join(
        f"Package: {package}\nStatus: install ok installed\nArchitecture: amd64\n"
        f"Version: {version}\nDescription: one\n of many lines\n"
        for package, version in packages
    )
    return Entry("var/lib/dpkg/status", text.encode())


# --- vulnerability data -------------------------------------------------------------------------


def record(
    id_: str,
    ecosystem: str,
    package: str,
    *events: dict[str, str],
    versions: Sequence[str] = (),
    **more: Any,
) -> dict[str, Any]:
    """Return a record of OSV: from the first version on, unless events or versions are given."""
    happened: Iterable[dict[str, str]] = events or ([] if versions else [{"introduced": "0"}])
    affected: dict[str, Any] = {
        "package": {"ecosystem": ecosystem, "name": package},
        "versions": list(versions),
    }
    if happened:
        affected["ranges"] = [{"type": "ECOSYSTEM", "events": list(happened)}]
    return {"id": id_, "modified": "2026-01-01T00:00:00Z", "affected": [affected], **more}


UNRELATED = record("TEST-0", "PyPI", "nobody-has-this")
