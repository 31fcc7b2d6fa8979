"""Java's libraries: jars, and jars in jars, by Maven's properties or else by the manifest."""

import io
import posixpath
import re
import zipfile
import zlib
from collections.abc import Iterator

from cypd.scanning.detectors.detector import BINARY_BYTES, Detector
from cypd.scanning.detectors.language_files import JAVA
from cypd.scanning.packages import Damaged, Package
from cypd.scanning.unpacking import Budget

_PROPERTIES = re.compile(r"META-INF/maven/[^/]+/[^/]+/pom\.properties")
_MANIFEST = "META-INF/MANIFEST.MF"
_FILE_NAME = re.compile(r"(?P<artifact>.+?)-(?P<version>\d[^/]*)\.\w+")
_MAX_TEXT = 1 << 20
# A web archive in an enterprise archive has its libraries at the third.
_MAX_DEPTH = 4


def _wants(path: str, _: int) -> bool:
    return JAVA.fullmatch(path) is not None


def _read(path: str, file: io.BytesIO, budget: Budget, depth: int = 1) -> Iterator[Package]:
    try:
        with zipfile.ZipFile(file) as jar:
            yield from _jar(path, jar, budget, depth)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, ValueError,
            RuntimeError) as error:  # fmt: skip
        raise Damaged(f"{posixpath.basename(path)}: {error}") from None


def _jar(path: str, jar: zipfile.ZipFile, budget: Budget, depth: int) -> Iterator[Package]:
    manifest = b""
    has_properties = False
    for entry in jar.infolist():
        budget.take_file()
        if _PROPERTIES.fullmatch(entry.filename):
            has_properties = True
            yield from _maven(_content(jar, entry, budget, _MAX_TEXT))
        elif entry.filename == _MANIFEST:
            manifest = _content(jar, entry, budget, _MAX_TEXT)
        elif JAVA.fullmatch(entry.filename) and depth < _MAX_DEPTH:
            inner = io.BytesIO(_content(jar, entry, budget, BINARY_BYTES))
            yield from _read(entry.filename, inner, budget, depth + 1)
    if not has_properties:
        yield from _by_manifest(path, manifest)


def _content(jar: zipfile.ZipFile, entry: zipfile.ZipInfo, budget: Budget, largest: int) -> bytes:
    """Return an entry's content, whatever size the archive claims that it has."""
    parts = []
    size = 0
    with jar.open(entry) as stream:
        while part := stream.read(64 << 10):
            size += len(part)
            budget.take_bytes(len(part))
            budget.require_ratio(entry.compress_size, size, f"{entry.filename} of a jar")
            if size > largest:
                raise Damaged(f"{entry.filename} has more than {largest} bytes")
            parts.append(part)
    return b"".join(parts)


def _maven(content: bytes) -> Iterator[Package]:
    fields = dict(_lines(content, "="))
    group, artifact, version = (fields.get(it) for it in ("groupId", "artifactId", "version"))
    if group and artifact and version:
        yield Package("maven", f"{group}:{artifact}", version)


def _by_manifest(path: str, manifest: bytes) -> Iterator[Package]:
    """Return what the manifest and the file's name tell; a group is told by few."""
    # JAR File Specification, Name-Value pairs: a line that begins with a space goes on.
    fields = dict(_lines(re.sub(rb"\r?\n ", b"", manifest), ":"))
    named = _FILE_NAME.fullmatch(posixpath.basename(path))
    artifact = named["artifact"] if named else fields.get("Implementation-Title", "")
    version = fields.get("Implementation-Version") or fields.get("Bundle-Version", "")
    version = named["version"] if named else version
    group = fields.get("Implementation-Vendor-Id", "")
    if artifact and version and not re.search(r"[\s:/]", artifact + group):
        yield Package("maven", f"{group}:{artifact}" if group else artifact, version)


def _lines(content: bytes, separator: str) -> Iterator[tuple[str, str]]:
    for line in content.decode(errors="replace").splitlines():
        name, found, value = line.partition(separator)
        if found:
            yield name.strip(), value.strip()


DETECTOR = Detector("Java", _wants, _read, largest=BINARY_BYTES)
