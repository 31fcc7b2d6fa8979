"""OSV's format, as far as it is read here (ossf.github.io/osv-schema)."""

from typing import Any

import msgspec


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """A version from which on something holds; one of the fields is set."""

    introduced: str | None = None
    fixed: str | None = None
    last_affected: str | None = None
    limit: str | None = None


class Range(msgspec.Struct, frozen=True, omit_defaults=True):
    """Versions between events."""

    type: str = ""
    events: tuple[Event, ...] = ()


class Rule(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which versions of a package are affected: those in a range, and those listed."""

    ranges: tuple[Range, ...] = ()
    versions: tuple[str, ...] = ()


class Score(msgspec.Struct, frozen=True):
    """How bad it is, in one of several systems."""

    type: str = ""
    score: str = ""


class PackageName(msgspec.Struct, frozen=True):
    """A package."""

    ecosystem: str = ""
    name: str = ""


class Affected(msgspec.Struct, frozen=True):
    """A package, and which versions of it."""

    package: PackageName | None = None
    ranges: tuple[Range, ...] | None = None
    versions: tuple[str, ...] | None = None
    severity: tuple[Score, ...] | None = None
    ecosystem_specific: dict[str, Any] | None = None
    database_specific: dict[str, Any] | None = None


class Reference(msgspec.Struct, frozen=True):
    """Where more stands."""

    type: str = ""
    url: str = ""


class Record(msgspec.Struct, frozen=True):
    """A vulnerability."""

    id: str
    modified: str = ""
    withdrawn: str | None = None
    aliases: tuple[str, ...] | None = None
    upstream: tuple[str, ...] | None = None
    summary: str | None = None
    details: str | None = None
    severity: tuple[Score, ...] | None = None
    affected: tuple[Affected, ...] | None = None
    references: tuple[Reference, ...] | None = None
    database_specific: dict[str, Any] | None = None


_decoder = msgspec.json.Decoder(Record)


def parse(content: bytes) -> Record:
    """Return the record that a JSON document is; raise ValueError for any other."""
    try:
        record = _decoder.decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not a vulnerability in OSV's format: {error}") from None
    if not record.id:
        raise ValueError("not a vulnerability in OSV's format: it has no id")
    return record


def base(ecosystem: str) -> str:
    """Return an ecosystem without its release: ``Debian`` of ``Debian:12``."""
    return ecosystem.partition(":")[0]
