"""Whether a version is affected (OSV schema, section Evaluation)."""

from functools import cmp_to_key
from typing import NamedTuple

from cypd.scanning.vulndb.osv import Event, Range, Rule
from cypd.scanning.vulndb.versions import Version, parse


class Affection(NamedTuple):
    """That a version is affected."""

    fixed_version: str
    """The next one that is not, ``""`` where there is none."""


class _Turn(NamedTuple):
    """An event at its place in the order of versions."""

    version: Version | None
    """``None``: before all others."""
    event: Event

    def begins(self, version: Version) -> bool:
        return self.version is None or not version < self.version


def affection(rule: Rule, version: str, ecosystem: str) -> Affection | None:
    """Return that the rule affects a version of the ecosystem, ``None`` if it does not.

    One is affected that lies in a range or is listed. A version that can't be compared is only
    looked for among those that are listed.
    """
    parsed = parse(version, ecosystem)
    if parsed is not None:
        for each in rule.ranges:
            if each.type != "GIT" and (found := _in_range(each, parsed, ecosystem)):
                return found
    if version in rule.versions:
        return Affection(_first_fix(rule, parsed, ecosystem))
    return None


def _in_range(each: Range, version: Version, ecosystem: str) -> Affection | None:
    turns = _turns(each, ecosystem)
    if not _within_limits(each, version, ecosystem):
        return None
    affected = False
    for turn in turns:
        if turn.event.last_affected is not None:
            affected = affected and not (turn.version is not None and turn.version < version)
        elif turn.begins(version):
            affected = turn.event.introduced is not None
    return Affection(_next_fix(turns, version)) if affected else None


def _turns(each: Range, ecosystem: str) -> list[_Turn]:
    """Return the events in order; what can't be compared is left out."""
    turns = []
    for event in each.events:
        text = event.introduced or event.fixed or event.last_affected
        if text == "0" and event.introduced:  # the schema's word for before the first
            turns.append(_Turn(None, event))
        elif text and (version := parse(text, ecosystem)) is not None:
            turns.append(_Turn(version, event))
    # Of those at one version what ends comes last: nothing is affected that is fixed there.
    turns.sort(key=lambda turn: turn.event.introduced is None)
    return sorted(turns, key=cmp_to_key(_compare))


def _compare(one: _Turn, other: _Turn) -> int:
    if one.version is None or other.version is None:
        return (one.version is not None) - (other.version is not None)
    return (other.version < one.version) - (one.version < other.version)


def _within_limits(each: Range, version: Version, ecosystem: str) -> bool:
    limits = [event.limit for event in each.events if event.limit]
    if not limits or "*" in limits:
        return True
    parsed = (parse(limit, ecosystem) for limit in limits)
    return any(limit is not None and version < limit for limit in parsed)


def _next_fix(turns: list[_Turn], version: Version) -> str:
    later = (it.event.fixed for it in turns if it.event.fixed and not it.begins(version))
    return next(later, "")


def _first_fix(rule: Rule, version: Version | None, ecosystem: str) -> str:
    if version is None:
        return ""
    for each in rule.ranges:
        if each.type != "GIT" and (fix := _next_fix(_turns(each, ecosystem), version)):
            return fix
    return ""
