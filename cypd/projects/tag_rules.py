"""What a project says of its tags: which of them stay as they are, and which are kept for how long.

A pattern is literal but for ``*``, any run of characters, slashes too, and ``?``, any one.
"""

import msgspec

from cypd.refusals import invalid

MAX_RULES = 20
"""Patterns of immutable tags, and rules of retention: of each."""
MAX_PATTERN = 128
"""In characters: a tag has no more."""


class RetentionRule(msgspec.Struct, frozen=True, array_like=True):
    """Of the tags that it matches: to keep one, any of the bounds is enough."""

    repositories: str = "*"
    """A pattern, for a repository's name without the project's."""
    tags: str = "*"
    """A pattern."""
    keep_last: int | None = None
    """How many of a repository's tags, those that were pushed last."""
    keep_days: int | None = None
    """Since the push."""
    keep_pulled_days: int | None = None
    """Since the last pull; of what was pushed later, or never pulled, since the push."""

    @property
    def keeps_something(self) -> bool:
        """Whether there is a bound; a rule without one would take all that it matches."""
        return (self.keep_last, self.keep_days, self.keep_pulled_days) != (None, None, None)


class TagRules(msgspec.Struct, frozen=True, array_like=True):
    """The rules of a project; without any, tags are moved at will and kept for ever."""

    immutable: tuple[str, ...] = ()
    """Patterns of tags that are neither pointed elsewhere nor deleted once they are there."""
    retention: tuple[RetentionRule, ...] = ()
    """The first that matches a tag decides about it; what none matches is kept."""

    def protects(self, tag: str) -> bool:
        """Tell whether a tag is immutable."""
        return any(matches(pattern, tag) for pattern in self.immutable)


def require_valid(rules: TagRules) -> None:
    """Raise VALIDATION_FAILED for a rule of retention that would keep nothing."""
    for place, rule in enumerate(rules.retention):
        if not rule.keeps_something:
            message = "needs one of keep_last, keep_days, keep_pulled_days"
            raise invalid(f"retention[{place}]", message)


def matches(pattern: str, text: str) -> bool:
    """Tell whether a pattern stands for the whole of a text.

    To go back to the last star is enough: an earlier one that took more would leave the rest of the
    pattern no place that this one can't give it. So it takes ``pattern * text`` steps at most.
    """
    at = place = 0
    star, taken = -1, 0  # where the last star stands, and how far it reaches in the text
    while at < len(text):
        sign = pattern[place] if place < len(pattern) else ""
        if sign == "*":
            star, taken = place, at
            place += 1
        elif sign and sign in ("?", text[at]):
            at, place = at + 1, place + 1
        elif star >= 0:
            taken += 1
            at, place = taken, star + 1
        else:
            return False
    return not pattern[place:].strip("*")
