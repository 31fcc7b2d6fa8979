"""Debian's packages: the status file, distroless' folder of them, and lists of files."""

import io
import re
from collections.abc import Iterator
from email.parser import HeaderParser

from cypd.scanning.detectors import language_files
from cypd.scanning.detectors.detector import Detector
from cypd.scanning.packages import Damaged, Owned, Package
from cypd.scanning.unpacking import Budget

_STATUS = "var/lib/dpkg/status"
_LISTS = re.compile(r"var/lib/dpkg/info/[^/]+\.list")
_FOLDER = re.compile(r"var/lib/dpkg/status\.d/[^/]+(?<!\.md5sums)")
_SOURCE = re.compile(r"(\S+)(?:\s+\(([^)]+)\))?")
_BREAK = re.compile(r"\n[ \t]*\n")
# dpkg(1), Package states: those of which files are there, whether or not it is set up.
_THERE = frozenset({"installed", "unpacked", "half-configured", "triggers-awaited",
                    "triggers-pending"})  # fmt: skip


def _wants(path: str, _: int) -> bool:
    return path == _STATUS or _FOLDER.fullmatch(path) is not None


def _read(path: str, file: io.BytesIO, _: Budget) -> Iterator[Package]:
    """Return the packages that are installed (deb-control(5), a paragraph each)."""
    try:
        text = file.read().decode()
    except UnicodeDecodeError as error:
        raise Damaged(str(error)) from None
    # RFC 822's headers are what control files were made after; the parser bears the same folding.
    parser = HeaderParser()
    for paragraph in _BREAK.split(text):
        if paragraph.strip():
            fields = parser.parsestr(paragraph.strip("\n"))
            # Distroless' files have no Status: each is of a package that is there.
            status = str(fields.get("Status", "" if path == _STATUS else "install ok installed"))
            if status.rpartition(" ")[2] in _THERE:
                yield _package(fields.get("Package"), fields.get("Version"), dict(fields))


def _package(name: str | None, version: str | None, fields: dict[str, str]) -> Package:
    if not name or not version:
        raise Damaged("a paragraph has no Package or no Version")
    source = _SOURCE.match(fields.get("Source", ""))
    return Package(
        kind="deb",
        name=name,
        version=version,
        source=source[1] if source else name,
        source_version=(source[2] if source else None) or version,
        arch=fields.get("Architecture", ""),
    )


def _wants_list(path: str, _: int) -> bool:
    return _LISTS.fullmatch(path) is not None


def _read_list(_: str, file: io.BytesIO, __: Budget) -> Iterator[Owned]:
    for line in file.read().decode(errors="replace").splitlines():
        path = line.lstrip("/")
        if language_files.is_one(path):
            yield Owned(path)


DETECTOR = Detector("dpkg", _wants, _read, is_vital=True)
LISTS = Detector("dpkg's lists", _wants_list, _read_list)
