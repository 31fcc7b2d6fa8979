"""Patterns, and the rules that are made of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cypd.projects.tag_rules import RetentionRule, TagRules, matches, require_valid
from cypd.refusals import Code, Refusal

patterns = st.text("ab/*?", max_size=7)
texts = st.text("ab/", max_size=7)


def stands_for(pattern: str, text: str) -> bool:
    """Return what ``matches`` does, by trying everything."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(stands_for(pattern[1:], text[it:]) for it in range(len(text) + 1))
    return bool(text) and pattern[0] in ("?", text[0]) and stands_for(pattern[1:], text[1:])


class Counted(str):
    """A text that counts how often it is looked at."""

    looks = 0

    def __getitem__(self, place: object) -> str:
        """Count, and look."""
        self.looks += 1
        return super().__getitem__(place)  # type: ignore[index]


@given(patterns, texts)
def test_a_pattern_matches_what_trying_everything_finds(pattern: str, text: str) -> None:
    """``*`` is any run of characters, ``?`` one, and everything else itself."""
    assert stands_for(pattern, text) == matches(pattern, text)


@pytest.mark.parametrize("sign", [".", "[a]", "\\", "{a,b}", "+", "^", "**"])
def test_nothing_else_is_special(sign: str) -> None:
    """A sign of regular expressions or of a shell stands for itself; two stars are one."""
    assert matches(sign, sign)
    assert matches(sign, "a") is (sign == "**")


@pytest.mark.parametrize("pattern", ["*a" * 60 + "b", "*" * 60 + "b", "a*" * 60 + "b"])
def test_many_stars_take_few_steps(pattern: str) -> None:
    """Sixty stars against 128 characters: a few looks at each, not one at each way to match."""
    looked_for, looked_at = Counted(pattern), Counted("a" * 128)

    assert not matches(looked_for, looked_at)
    assert looked_for.looks + looked_at.looks <= 8 * (len(pattern) + 128)


@given(st.lists(patterns, max_size=3), texts)
def test_any_pattern_protects(immutable: list[str], tag: str) -> None:
    """A tag is immutable if one of the patterns matches it, and without patterns none is."""
    expected = any(stands_for(pattern, tag) for pattern in immutable)

    assert expected is TagRules(immutable=tuple(immutable)).protects(tag)


def test_a_rule_keeps_something() -> None:
    """A rule of retention without any bound is refused by its place; one bound is enough."""
    good = [RetentionRule(keep_last=1), RetentionRule(keep_days=1)]
    good.append(RetentionRule(keep_pulled_days=1))
    require_valid(TagRules(retention=tuple(good)))
    with pytest.raises(Refusal) as refusal:
        require_valid(TagRules(retention=(*good, RetentionRule(tags="v*"))))

    assert Code.VALIDATION_FAILED is refusal.value.code
    assert ["retention[3]"] == [error.field for error in refusal.value.errors]
