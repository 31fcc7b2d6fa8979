"""The vulnerability data as one file of SQLite, which is replaced as a whole.

Readers keep the file they opened; whoever opens it next has the new one. Rules are kept packed,
for lists of versions are most of what OSV has to say.
"""

import fnmatch
import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from cypd.scanning.ports import NotReady
from cypd.scanning.vulndb import require_file
from cypd.scanning.vulndb.osv import Rule

FORMAT = 1
SCHEMA = f"""
PRAGMA user_version = {FORMAT};
CREATE TABLE sources (
    name TEXT PRIMARY KEY, etag TEXT NOT NULL, imported_at REAL NOT NULL,
    vulnerabilities INTEGER NOT NULL, newest TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE vulnerabilities (
    key INTEGER PRIMARY KEY, source TEXT NOT NULL, id TEXT NOT NULL, content BLOB NOT NULL
);
CREATE TABLE affected (
    ecosystem TEXT NOT NULL, package TEXT NOT NULL, vulnerability INTEGER NOT NULL,
    severity TEXT NOT NULL, cvss REAL, rule BLOB NOT NULL
);
"""
# Made when all rows are there: that is faster, and packs the pages.
INDEXES = """
CREATE TABLE ecosystems AS SELECT DISTINCT ecosystem AS name FROM affected;
CREATE INDEX affected_by_package ON affected (ecosystem, package);
CREATE INDEX vulnerabilities_by_id ON vulnerabilities (source, id);
"""


class Vulnerability(msgspec.Struct, frozen=True, array_like=True):
    """What is told of a vulnerability."""

    id: str
    aliases: tuple[str, ...]
    upstream: tuple[str, ...]
    """What a distribution's record was made of."""
    title: str
    url: str


class Advice(NamedTuple):
    """A vulnerability, as far as it is about one package."""

    vulnerability: Vulnerability
    severity: str
    cvss: float | None
    ecosystem: str
    rule: Rule


class Source(NamedTuple):
    """What was imported at once, and replaces what came before under the same name."""

    name: str
    """An ecosystem; ``""`` for single files."""
    etag: str
    """What its server calls this state, ``""`` where it was imported from a file."""
    imported_at: float
    vulnerabilities: int
    newest: str
    """When its latest record was changed (RFC 3339)."""


_vulnerability = msgspec.msgpack.Decoder(Vulnerability)
_rule = msgspec.msgpack.Decoder(Rule)


def pack(value: Vulnerability | Rule) -> bytes:
    """Return a value as it is stored."""
    return zlib.compress(msgspec.msgpack.encode(value))


class VulnerabilityData:
    """The data of one file, to read. Raises NotReady if there is none that can be read."""

    def __init__(self, folder: Path) -> None:
        file = require_file(folder)
        try:
            # Immutable: it is never changed where it stands, so nothing has to be locked.
            address = f"{file.absolute().as_uri()}?mode=ro&immutable=1"
            self._database = sqlite3.connect(address, uri=True)
            [form] = self._database.execute("PRAGMA user_version").fetchone()
            names = self._database.execute("SELECT name FROM ecosystems ORDER BY name").fetchall()
        except sqlite3.Error as error:
            raise NotReady(f"the vulnerability data can't be read ({error}): {_ANEW}") from None
        if form != FORMAT:
            self._database.close()
            raise NotReady(f"the vulnerability data is of another version of cypd: {_ANEW}")
        self._ecosystems = {name: None for (name,) in names}

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def sources(self) -> list[Source]:
        """Return what was imported, by name."""
        rows = self._database.execute(
            "SELECT name, etag, imported_at, vulnerabilities, newest FROM sources ORDER BY name"
        )
        return [Source(*row) for row in rows]

    def updated_at(self) -> float | None:
        """Return when something was imported last, in unix seconds."""
        return max((source.imported_at for source in self.sources()), default=None)

    def knows(self, ecosystem: str) -> bool:
        """Tell whether there is anything of an ecosystem; ``*`` in it stands for anything."""
        return bool(self._meant(ecosystem))

    def about(self, ecosystem: str, package: str) -> Iterator[Advice]:
        """Yield what is known of a package; its ecosystem may have a ``*`` as well."""
        for name in self._meant(ecosystem):
            rows = self._database.execute(
                "SELECT content, severity, cvss, rule FROM affected "
                "JOIN vulnerabilities ON key = vulnerability WHERE ecosystem = ? AND package = ?",
                (name, package),
            )
            for content, severity, cvss, rule in rows:
                yield Advice(
                    _vulnerability.decode(zlib.decompress(content)),
                    severity,
                    cvss,
                    name,
                    _rule.decode(zlib.decompress(rule)),
                )

    def _meant(self, ecosystem: str) -> list[str]:
        if "*" in ecosystem:
            return fnmatch.filter(self._ecosystems, ecosystem)
        return [ecosystem] if ecosystem in self._ecosystems else []


_ANEW = "run `cypd vulndb update` or `cypd vulndb import` anew"
