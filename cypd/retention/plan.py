"""Which tags of a repository go: a pure function of rules, tags and time."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cypd.projects.tag_rules import RetentionRule, TagRules, matches
from cypd.registry.inventory_ports import TaggedManifest

DAY = 86_400.0


class Doomed(NamedTuple):
    """A tag that goes."""

    tag: TaggedManifest
    reason: str
    """In English: the rule, counted from 1, and each bound that does not keep the tag."""


def plan(
    rules: TagRules, path: str, tags: Iterable[TaggedManifest], now: float
) -> Sequence[Doomed]:
    """Return those of a repository's tags that go, by rule, the newest push first.

    ``path`` is the repository's name without the project's, ``now`` in unix seconds. An immutable
    tag stays, and takes none of the places that ``keep_last`` has.
    """
    left = [tag for tag in tags if not rules.protects(tag.name)]
    doomed: list[Doomed] = []
    for number, rule in enumerate(rules.retention, 1):
        if not matches(rule.repositories, path):
            continue
        decided = [tag for tag in left if matches(rule.tags, tag.name)]
        decided.sort(key=lambda tag: (-tag.pushed_at, tag.name))
        gone = decided if rule.keep_last is None else decided[rule.keep_last :]
        reason = f"rule {number}: {_reason(rule)}"
        doomed += [Doomed(tag, reason) for tag in gone if not _is_recent(rule, tag, now)]
        names = {tag.name for tag in decided}
        left = [tag for tag in left if tag.name not in names]
    return doomed


def _is_recent(rule: RetentionRule, tag: TaggedManifest, now: float) -> bool:
    used_at = max(tag.pushed_at, tag.last_pulled_at or 0.0)
    return _is_within(rule.keep_days, tag.pushed_at, now) or _is_within(
        rule.keep_pulled_days, used_at, now
    )


def _is_within(days: int | None, at: float, now: float) -> bool:
    return days is not None and at >= now - days * DAY


def _reason(rule: RetentionRule) -> str:
    bounds = [
        (rule.keep_last, "not among the last {} pushed"),
        (rule.keep_days, "not pushed for {} days"),
        (rule.keep_pulled_days, "neither pulled nor pushed for {} days"),
    ]
    return ", ".join(text.format(bound) for bound, text in bounds if bound is not None)
