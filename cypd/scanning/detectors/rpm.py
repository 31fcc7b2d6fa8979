"""Packages of Red Hat, SUSE and their kin: rpm's database, since rpm 4.16 one of SQLite.

Older ones (Berkeley DB until 4.15, NDB of SUSE) are not read; the scan says so.
"""

import io
import re
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing

from cypd.scanning.detectors import language_files
from cypd.scanning.detectors.detector import BINARY_BYTES, Detector
from cypd.scanning.packages import Damaged, Owned, Package
from cypd.scanning.unpacking import Budget

_FOLDERS = ("var/lib/rpm", "usr/lib/sysimage/rpm")
_PATHS = frozenset(f"{folder}/rpmdb.sqlite" for folder in _FOLDERS)
OTHERS = frozenset(
    f"{folder}/{name}" for folder in _FOLDERS for name in ("Packages", "Packages.db")
)
"""Databases of a form that is not read."""

# rpmtag.h
_NAME, _VERSION, _RELEASE, _EPOCH, _ARCH, _SOURCE = 1000, 1001, 1002, 1003, 1022, 1044
_DIR_INDEXES, _BASE_NAMES, _DIR_NAMES = 1116, 1117, 1118
_INT32, _STRING, _STRING_ARRAY = 4, 6, 8
_WANTED = {_NAME, _VERSION, _RELEASE, _EPOCH, _ARCH, _SOURCE, _DIR_INDEXES, _BASE_NAMES, _DIR_NAMES}
_ENTRY = struct.Struct(">IIII")
_SOURCE_FILE = re.compile(r"(.+)-([^-]+-[^-]+)\.(?:no)?src\.rpm")
_Value = str | list[int] | list[str]
_Tags = dict[int, _Value]


def _wants(path: str, _: int) -> bool:
    return path in _PATHS


def _read(_: str, file: io.BytesIO, __: Budget) -> Iterator[Package | Owned]:
    content = file.getbuffer()
    if not content:
        raise Damaged("it is empty")
    if bytes(content[18:20]) == b"\x02\x02":
        # The write-ahead log is another file; this one has all that was checkpointed, and in
        # memory it can only be opened as one without (sqlite.org/fileformat2.html 1.3.3).
        content[18:20] = b"\x01\x01"
    try:
        with closing(sqlite3.connect(":memory:")) as database:
            database.deserialize(content)
            database.execute("PRAGMA trusted_schema = OFF")
            packages = []
            for (blob,) in database.execute("SELECT blob FROM Packages ORDER BY hnum"):
                tags = _header(blob)
                # Keys that are trusted are kept as packages.
                if (package := _package(tags)).name != "gpg-pubkey":
                    packages.append(package)
                    yield from _files(tags)
    except (sqlite3.Error, struct.error, TypeError, IndexError, ValueError) as error:
        raise Damaged(f"not a database of rpm: {error}") from None
    yield from _with_epochs(packages)


def _header(blob: bytes) -> _Tags:
    """Return the wanted tags of a header (rpm's manual, format_header, without the intro)."""
    count, size = struct.unpack_from(">II", blob)
    start = 8 + count * _ENTRY.size
    data = blob[start : start + size]
    tags: _Tags = {}
    for tag, kind, offset, length in _ENTRY.iter_unpack(blob[8:start]):
        if tag not in _WANTED:
            continue
        if kind == _INT32:
            tags[tag] = list(struct.unpack_from(f">{length}I", data, offset))
        elif kind in (_STRING, _STRING_ARRAY):
            texts = data[offset:].split(b"\0", length if kind == _STRING_ARRAY else 1)
            strings = [it.decode(errors="replace") for it in texts[:-1]]
            tags[tag] = strings if kind == _STRING_ARRAY else strings[0]
    return tags


def _package(tags: _Tags) -> Package:
    name, version, release = (_text(tags, tag) for tag in (_NAME, _VERSION, _RELEASE))
    if not name or not version:
        raise Damaged("a package has no name or no version")
    epoch = tags.get(_EPOCH)
    prefix = f"{epoch[0]}:" if isinstance(epoch, list) and epoch and epoch[0] else ""
    source = _SOURCE_FILE.fullmatch(_text(tags, _SOURCE))
    return Package(
        kind="rpm",
        name=name,
        version=f"{prefix}{version}-{release}",
        source=source[1] if source else "",
        source_version=source[2] if source else "",
        arch=_text(tags, _ARCH),
    )


def _with_epochs(packages: list[Package]) -> Iterator[Package]:
    """Return packages with the epoch of their source, which its file's name leaves out.

    It is that of a package with the source's own version: only those that were given another
    version may have another epoch.
    """
    epochs = {}
    for package in packages:
        epoch, _, version = package.version.rpartition(":")
        if version == package.source_version:
            epochs[package.source, version] = epoch
    for package in packages:
        epoch = epochs.get((package.source, package.source_version), "")
        version = f"{epoch}:{package.source_version}" if epoch else package.source_version
        yield package._replace(source_version=version)


def _files(tags: _Tags) -> Iterator[Owned]:
    """Return the files that matter; each is a name and the number of its folder."""
    indexes, names, folders = (
        list(tags.get(tag, ())) for tag in (_DIR_INDEXES, _BASE_NAMES, _DIR_NAMES)
    )
    for index, name in zip(indexes, names, strict=False):
        if isinstance(index, int):
            path = f"{folders[index]}{name}".lstrip("/")
            if language_files.is_one(path):
                yield Owned(path)


def _text(tags: _Tags, tag: int) -> str:
    value = tags.get(tag, "")
    return value if isinstance(value, str) else ""


DETECTOR = Detector("rpm", _wants, _read, largest=BINARY_BYTES, is_vital=True)
