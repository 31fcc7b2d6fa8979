"""Alpine's packages: apk's database of what is installed."""

import io
from collections.abc import Iterator

from cypd.scanning.detectors import language_files
from cypd.scanning.detectors.detector import Detector
from cypd.scanning.packages import Damaged, Owned, Package
from cypd.scanning.unpacking import Budget

_PATHS = frozenset({"lib/apk/db/installed", "usr/lib/apk/db/installed"})


def _wants(path: str, _: int) -> bool:
    return path in _PATHS


def _read(_: str, file: io.BytesIO, __: Budget) -> Iterator[Package | Owned]:
    """Return the packages and their files (apk-package(5): a letter, a colon, a value a line)."""
    try:
        text = file.read().decode()
    except UnicodeDecodeError as error:
        raise Damaged(str(error)) from None
    for paragraph in text.split("\n\n"):
        fields: dict[str, str] = {}
        folder = ""
        for line in paragraph.splitlines():
            letter, _, value = line.partition(":")
            if letter == "F":
                folder = value
            elif letter == "R" and language_files.is_one(path := f"{folder}/{value}".lstrip("/")):
                yield Owned(path)
            else:
                fields.setdefault(letter, value)
        if fields:
            yield _package(fields)


def _package(fields: dict[str, str]) -> Package:
    if not fields.get("P") or not fields.get("V"):
        raise Damaged("a package has no name or no version")
    return Package(
        kind="apk",
        name=fields["P"],
        version=fields["V"],
        source=fields.get("o") or fields["P"],
        source_version=fields["V"],
        arch=fields.get("A", ""),
    )


DETECTOR = Detector("apk", _wants, _read, is_vital=True)
