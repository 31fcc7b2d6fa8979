"""Makes the file of vulnerability data anew, of what it has and what is imported.

The new one grows beside the old one and takes its place when it is complete and durable: an import
happens as a whole or not at all.
"""

import fcntl
import os
import sqlite3
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple, Self

from cypd.scanning.packages import normalised
from cypd.scanning.ports import NotReady
from cypd.scanning.vulndb import FILE_NAME, osv
from cypd.scanning.vulndb.severity import rate
from cypd.scanning.vulndb.store import (
    INDEXES,
    SCHEMA,
    Source,
    Vulnerability,
    VulnerabilityData,
    pack,
)

Progress = Callable[[str, int, int], None]
"""Is told of what, how many records are done, of how many."""

_MAX_RECORD = 64 << 20
_TITLE = 200
_EVERY = 500


class ImportFailed(Exception):
    """What was to be imported can't be; the message says why. Nothing was changed."""


class Package(NamedTuple):
    """What one file has to say: an ecosystem's archive, or a single record."""

    name: str
    """The ecosystem; ``""`` for a single record."""
    path: Path
    etag: str = ""


class Importer:
    """Imports into the data of a folder. One at a time, over all processes: raises ImportFailed."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        self._folder = folder
        self._file = folder / FILE_NAME
        self._lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise ImportFailed("another process is importing vulnerability data") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    def run(self, packages: Iterable[Package], progress: Progress) -> list[Source]:
        """Import files, each replacing what its source had; return what there is of them now."""
        new = self._file.with_suffix(".new")
        new.unlink(missing_ok=True)
        try:
            with closing(sqlite3.connect(new, isolation_level=None)) as database:
                sources = self._build(database, list(packages), progress)
            self._replace(new)
        except sqlite3.Error as error:
            raise ImportFailed(f"the vulnerability data can't be written: {error}") from None
        finally:
            new.unlink(missing_ok=True)
        return sources

    def _build(
        self, database: sqlite3.Connection, packages: list[Package], progress: Progress
    ) -> list[Source]:
        # It is thrown away if anything goes wrong, and synced once when it is complete.
        database.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;" + SCHEMA)
        database.execute("BEGIN")
        if self._is_readable():
            self._keep(database, {package.name for package in packages if package.name})
        builder = _Builder(database)
        sources = []
        for package in packages:
            with _failing(package.path):
                sources.append(builder.add(package, progress))
        database.execute("COMMIT")
        database.executescript(INDEXES)
        return sources

    def _is_readable(self) -> bool:
        """Tell whether there is data to keep; what is damaged, or another version's, is not."""
        try:
            VulnerabilityData(self._folder).close()
        except NotReady:
            return False
        return True

    def _keep(self, database: sqlite3.Connection, replaced: set[str]) -> None:
        """Copy what the present file has of other sources."""
        database.execute("COMMIT")
        database.execute("ATTACH ? AS old", (f"{self._file}",))
        database.execute("BEGIN")
        for name in (it for (it,) in database.execute("SELECT name FROM old.sources").fetchall()):
            if name in replaced:
                continue
            database.execute(
                "INSERT INTO sources SELECT * FROM old.sources WHERE name = ?", (name,)
            )
            database.execute(
                "INSERT INTO vulnerabilities SELECT * FROM old.vulnerabilities WHERE source = ?",
                (name,),
            )
        database.execute(
            "INSERT INTO affected SELECT * FROM old.affected "
            "WHERE vulnerability IN (SELECT key FROM vulnerabilities)"
        )

    def _replace(self, new: Path) -> None:
        descriptor = os.open(new, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fchmod(descriptor, 0o640)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        new.rename(self._file)
        os.fsync(self._lock)  # the folder


class _Builder:
    """Writes records into a file that nobody reads yet."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def add(self, package: Package, progress: Progress) -> Source:
        count, newest = 0, ""
        title = package.name or package.path.name
        for done, total, record in _records(package.path):
            if self._put(package.name, record):
                count += 1
                newest = max(newest, record.modified)
            if done % _EVERY == 0 or done == total:
                progress(title, done, total)
        return self._note(Source(package.name, package.etag, time.time(), count, newest))

    def _put(self, source: str, record: osv.Record) -> bool:
        """Store a record, unless it was withdrawn or is about nothing here; tell whether."""
        if not source:
            self._remove(record.id)
        affected = [it for it in record.affected or () if _belongs(it, source)]
        if record.withdrawn or not affected:
            return False
        key = self._database.execute(
            "INSERT INTO vulnerabilities (source, id, content) VALUES (?, ?, ?)",
            (source, record.id, pack(_told(record))),
        ).lastrowid
        self._database.executemany(
            "INSERT INTO affected VALUES (?, ?, ?, ?, ?, ?)",
            [(*_names(it), key, *rate(record, it), pack(_rule(it))) for it in affected],
        )
        return True

    def _remove(self, id_: str) -> None:
        keys = self._database.execute(
            "DELETE FROM vulnerabilities WHERE source = '' AND id = ? RETURNING key", (id_,)
        ).fetchall()
        self._database.executemany("DELETE FROM affected WHERE vulnerability = ?", keys)

    def _note(self, source: Source) -> Source:
        if not source.name:  # single files add to each other
            [count] = self._database.execute(
                "SELECT count(*) FROM vulnerabilities WHERE source = ''"
            ).fetchone()
            source = source._replace(vulnerabilities=count)
        self._database.execute("INSERT OR REPLACE INTO sources VALUES (?, ?, ?, ?, ?)", source)
        return source


def ecosystem_of(path: Path) -> str:
    """Return the ecosystem that all records of an archive are about, ``""`` for a single record.

    That of the narrowest name: an archive of ``Debian:12`` may speak of others as well, but each
    of its records speaks of this one. Raises ImportFailed.
    """
    common: set[str] | None = None
    with _failing(path):
        if not zipfile.is_zipfile(path):
            return ""
        for _, _, record in _records(path):
            names = {it.package.ecosystem for it in record.affected or () if it.package}
            if names:
                named = names | {osv.base(name) for name in names}
                common = named if common is None else common & named
    if not common:
        raise ImportFailed(f"{path}: its records have no ecosystem in common")
    return max(common, key=lambda name: (len(name), name))


def _records(path: Path) -> Iterator[tuple[int, int, osv.Record]]:
    """Yield each record, with its number from 1 on and how many there are."""
    if not zipfile.is_zipfile(path):
        if path.stat().st_size > _MAX_RECORD:
            raise ValueError("too large to be a vulnerability")
        yield 1, 1, osv.parse(path.read_bytes())
        return
    with zipfile.ZipFile(path) as archive:
        entries = [entry for entry in archive.infolist() if entry.filename.endswith(".json")]
        for number, entry in enumerate(entries, 1):
            if entry.file_size > _MAX_RECORD:
                raise ValueError(f"{entry.filename} is too large to be a vulnerability")
            yield number, len(entries), osv.parse(archive.read(entry))


@contextmanager
def _failing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ImportFailed(f"{path}: {error.strerror or error}") from None
    except (ValueError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise ImportFailed(f"{path}: {error}") from None


def _belongs(affected: osv.Affected, source: str) -> bool:
    if affected.package is None or not affected.package.name:
        return False
    name = affected.package.ecosystem
    return not source or name == source or name.startswith(f"{source}:")


def _names(affected: osv.Affected) -> tuple[str, str]:
    package = affected.package
    assert package is not None  # noqa: S101 (those without do not belong)
    return package.ecosystem, normalised(package.name, osv.base(package.ecosystem))


def _rule(affected: osv.Affected) -> osv.Rule:
    ranges = tuple(it for it in affected.ranges or () if it.type != "GIT")
    return osv.Rule(ranges, affected.versions or ())


def _told(record: osv.Record) -> Vulnerability:
    title = record.summary or (record.details or "").strip().partition("\n")[0]
    advisories = (it.url for it in record.references or () if it.type == "ADVISORY")
    return Vulnerability(
        id=record.id,
        aliases=record.aliases or (),
        upstream=record.upstream or (),
        title=title if len(title) <= _TITLE else f"{title[: _TITLE - 1]}…",
        url=next(advisories, f"https://osv.dev/vulnerability/{record.id}"),
    )
