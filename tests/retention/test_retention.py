"""A round of retention, and the dry run that tells of it, over the model."""

import logging
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cypd.access import Act, Principal
from cypd.metadata.memory import MemoryMetadata
from cypd.oci.names import Tag
from cypd.projects.access import ProjectAccess
from cypd.projects.ports import Changes
from cypd.projects.tag_rules import RetentionRule, TagRules
from cypd.refusals import Code, Refusal
from cypd.registry.inventory_ports import Window
from cypd.retention.plan import DAY
from cypd.retention.retention import MAX_LISTED, Retention, Trial
from tests.retention.test_plan import all_rules
from tests.samples import image, name, parsed, project

OWNER, OTHER = Principal("admin", "owner"), Principal("other", "other")
LIBRARY = project("library")
REPOSITORIES = [name("library"), name("library/group/app"), name("library/other")]
pushes = st.lists(
    st.tuples(
        st.sampled_from(REPOSITORIES),
        st.sampled_from(["v1", "v2", "v10", "x", "y"]),
        st.sampled_from([b"one", b"two", b"three"]),
        st.sampled_from([0.5, 1.5, 2.5, 3.5, 4.5]),
    ),
    max_size=12,
)


class House:
    """A project in the model, and its retention."""

    def __init__(self, *, delete_enabled: bool = True) -> None:
        self.metadata = MemoryMetadata()
        store = self.metadata.projects
        access = ProjectAccess(store, anonymous="none", auto_create=True, default_quota=0)
        self.retention = Retention(
            store,
            access,
            self.metadata.registry,
            self.metadata.inventory,
            delete_enabled=delete_enabled,
        )

    async def begin(self, rules: TagRules) -> None:
        """Create the project with its rules."""
        await self.metadata.projects.create_project(LIBRARY)
        await self.set_rules(rules)

    async def set_rules(self, rules: TagRules) -> None:
        """Give the project other rules."""
        changes = Changes(updated_at=2.0, tag_rules=rules)
        await self.metadata.projects.change_project(LIBRARY.id, changes)

    async def push(self, repository: str, tag: str, layer: bytes = b"", age: float = 9.0) -> None:
        """Push an image that many days ago."""
        await self.metadata.registry.put_manifest(
            name(repository), parsed(image(layer)), [Tag(tag)], inline=True, allow_sparse=True,
            act=Act(time.time() - age * DAY),
        )  # fmt: skip

    def tags(self) -> set[tuple[str, str]]:
        """Return all tags with their repositories."""
        listed = self.metadata.inventory.list_tags
        found = [(it, listed(it, Window(0, 9999)).items) for it in REPOSITORIES]
        return {(str(it), str(tag.name)) for it, tags in found for tag in tags}

    async def dry_run(self, rules: TagRules) -> Trial:
        """Try rules as the owner."""
        return await self.retention.dry_run(OWNER, LIBRARY.id, rules)


@given(all_rules, pushes)
@settings(max_examples=50, deadline=None)
async def test_a_round_takes_what_the_dry_run_tells(
    rules: TagRules, pushed: list[tuple[str, str, bytes, float]]
) -> None:
    """No tag more and none less, and a second round finds nothing to do."""
    house = House()
    await house.begin(TagRules())
    for repository, tag, layer, age in pushed:
        await house.push(repository, tag, layer, age)
    await house.set_rules(rules)
    before = house.tags()
    trial = await house.dry_run(rules)
    assert before == house.tags()
    await house.retention.run()

    doomed = {(str(repository), str(it.tag.name)) for repository, it in trial.doomed}
    assert before - doomed == house.tags()
    assert (len(doomed), len(before) - len(doomed)) == (trial.total, trial.kept)
    assert 0 == (await house.dry_run(rules)).total


async def test_a_round_takes_nothing_where_deleting_is_switched_off() -> None:
    """Rules are no way around what the operator forbids."""
    house = House(delete_enabled=False)
    await house.begin(TagRules(retention=(RetentionRule(keep_days=1),)))
    await house.push("library/other", "a")
    await house.retention.run()

    assert {("library/other", "a")} == house.tags()


async def test_a_dry_run_tries_the_rules_that_it_is_given() -> None:
    """Those of the project are as they were, and decide what a round does."""
    house = House()
    await house.begin(TagRules())
    await house.push("library/other", "a")
    assert 1 == (await house.dry_run(TagRules(retention=(RetentionRule(keep_days=1),)))).total
    await house.retention.run()

    assert {("library/other", "a")} == house.tags()


async def test_a_dry_run_lists_a_part_and_counts_all() -> None:
    """The first thousand of many tags, and a round takes all of them."""
    house = House()
    rules = TagRules(retention=(RetentionRule(keep_last=1),))
    await house.begin(rules)
    for number in range(MAX_LISTED + 6):
        await house.push("library/other", f"t{number}", age=number)
    trial = await house.dry_run(rules)
    await house.retention.run()

    assert (MAX_LISTED, MAX_LISTED + 5, 1) == (len(trial.doomed), trial.total, trial.kept)
    assert {("library/other", "t0")} == house.tags()


async def test_a_round_says_what_it_took(caplog: pytest.LogCaptureFixture) -> None:
    """One line for a project that lost tags, none where there was nothing to take."""
    house = House()
    await house.begin(TagRules(retention=(RetentionRule(tags="x", keep_days=1),)))
    for repository in REPOSITORIES:
        for tag in ("x", "y"):
            await house.push(repository, tag)
    with caplog.at_level(logging.INFO, "cypd.retention.retention"):
        await house.retention.run()
        await house.retention.run()

    assert ["retention: removed 3 tags of 3 repositories of project library"] == [
        record.getMessage() for record in caplog.records
    ]


@pytest.mark.parametrize(
    ("who", "rules", "code"),
    [
        (OTHER, TagRules(), Code.PROJECT_NOT_FOUND),
        (OWNER, TagRules(retention=(RetentionRule(),)), Code.VALIDATION_FAILED),
    ],
)
async def test_a_dry_run_is_refused_as_the_change_would_be(
    who: Principal, rules: TagRules, code: Code
) -> None:
    """To who may not see the project, and for rules that keep nothing."""
    house = House()
    await house.begin(TagRules())
    with pytest.raises(Refusal) as refusal:
        await house.retention.dry_run(who, LIBRARY.id, rules)

    assert code is refusal.value.code
