"""The plan: which tags of a repository go."""

from hypothesis import given
from hypothesis import strategies as st

from cypd.oci.digest import Digest
from cypd.oci.names import Tag
from cypd.projects.tag_rules import RetentionRule, TagRules, matches
from cypd.registry.inventory_ports import TaggedManifest
from cypd.retention.plan import DAY, plan

NOW = 1000 * DAY
PATH = "group/app"
bounds = st.none() | st.integers(1, 4)
rules = st.builds(
    RetentionRule,
    st.sampled_from(["*", "*app", "group/?pp", "other"]),
    st.sampled_from(["*", "v*", "?", "v?", "x"]),
    bounds,
    bounds,
    bounds,
).filter(lambda rule: rule.keeps_something)
all_rules = st.builds(
    TagRules,
    st.lists(st.sampled_from(["v1", "*2", "?"]), max_size=2).map(tuple),
    st.lists(rules, max_size=3).map(tuple),
)
ages = st.integers(0, 6)


def tagged(name: str, age: float, pulled: float | None = None) -> TaggedManifest:
    """Return a tag that was pushed, and perhaps pulled, so many days ago."""
    return TaggedManifest(
        name=Tag(name),
        digest=Digest.of(name.encode()),
        media_type="",
        artifact_type=None,
        size=1,
        platforms=[],
        pushed_at=NOW - age * DAY,
        pushed_by="ada",
        pull_count=0,
        last_pulled_at=None if pulled is None else NOW - pulled * DAY,
    )


tags = st.lists(
    st.builds(tagged, st.sampled_from(["v1", "v2", "v3", "v10", "x", "y", "z2"]), ages, ages),
    unique_by=lambda tag: tag.name,
)


def gone(found: TagRules, listed: list[TaggedManifest], path: str = PATH) -> set[str]:
    """Return the names of those that go."""
    return {str(it.tag.name) for it in plan(found, path, listed, NOW)}


def keep(**fields: int | str) -> TagRules:
    """Return one rule of retention."""
    return TagRules(retention=(RetentionRule(**fields),))  # type: ignore[arg-type]


@given(all_rules, tags)
def test_an_immutable_tag_never_goes(found: TagRules, listed: list[TaggedManifest]) -> None:
    """Whatever the rules of retention say."""
    assert not any(found.protects(name) for name in gone(found, listed))


@given(all_rules, tags)
def test_the_first_rule_decides(found: TagRules, listed: list[TaggedManifest]) -> None:
    """Each tag fares as under the first rule that matches it alone; without one it stays."""
    expected: set[str] = set()
    left = [it for it in listed if not found.protects(it.name)]
    for rule in found.retention:
        if matches(rule.repositories, PATH):
            mine = [it for it in left if matches(rule.tags, it.name)]
            expected |= gone(TagRules(retention=(rule,)), mine)
            left = [it for it in left if it not in mine]

    assert expected == gone(found, listed)


@given(tags, st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
def test_any_bound_is_enough(
    listed: list[TaggedManifest], last: int, days: int, pulled: int
) -> None:
    """What goes by several bounds is what goes by each of them."""
    each = [keep(keep_last=last), keep(keep_days=days), keep(keep_pulled_days=pulled)]
    together = keep(keep_last=last, keep_days=days, keep_pulled_days=pulled)

    assert set.intersection(*(gone(it, listed) for it in each)) == gone(together, listed)


def test_the_last_pushed_are_kept() -> None:
    """``keep_last`` counts from the newest push on, names decide between equal times."""
    listed = [tagged("a", 3), tagged("b", 1), tagged("c", 2), tagged("d", 2)]

    assert {"a", "d"} == gone(keep(keep_last=2), listed)


def test_an_immutable_tag_takes_no_place() -> None:
    """It stays anyway, and ``keep_last`` counts the others."""
    listed = [tagged("v1", 1), tagged("b", 2), tagged("c", 3)]
    found = TagRules(("v*",), (RetentionRule(keep_last=1),))

    assert {"c"} == gone(found, listed)


def test_days_count_from_the_push() -> None:
    """To the very second, and pulls do not matter."""
    listed = [tagged("a", 3, pulled=0), tagged("b", 2), tagged("c", 0)]

    assert {"a"} == gone(keep(keep_days=2), listed)


def test_days_since_a_pull_begin_with_the_push() -> None:
    """A tag that nobody had the time to pull is as young as its push."""
    listed = [tagged("a", 9, pulled=3), tagged("b", 9, pulled=2), tagged("c", 9), tagged("d", 1)]

    assert {"a", "c"} == gone(keep(keep_pulled_days=2), listed)


def test_a_rule_is_for_some_repositories() -> None:
    """Its pattern is held against the name without the project, which may be empty."""
    listed = [tagged("a", 9)]
    for pattern, path in [("app", "app"), ("group/*", "group/a/b"), ("*", "")]:
        assert {"a"} == gone(keep(repositories=pattern, keep_days=1), listed, path)
    for pattern, path in [("app", "library/app"), ("?", "")]:
        assert set() == gone(keep(repositories=pattern, keep_days=1), listed, path)


def test_a_reason_names_the_rule_and_its_bounds() -> None:
    """So that who tries rules sees which of them takes a tag."""
    other = RetentionRule(tags="v*", keep_days=1)
    found = TagRules(retention=(other, RetentionRule(keep_last=1, keep_pulled_days=5)))
    (doomed,) = plan(found, PATH, [tagged("a", 9), tagged("b", 8)], NOW)

    assert "a" == doomed.tag.name
    assert "rule 2: not among the last 1 pushed, neither pulled nor pushed for 5 days" == (
        doomed.reason
    )
