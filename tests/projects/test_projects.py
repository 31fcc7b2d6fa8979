"""Projects: created, found, changed and ended by whom it may be."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cypd.access import ANONYMOUS, Grant, Principal, Scope
from cypd.oci.digest import Digest
from cypd.oci.names import Tag
from cypd.projects.names import check_name
from cypd.projects.ports import UNLIMITED, Changes, Member, Role, Usage
from cypd.projects.projects import MAX_DESCRIPTION, SORTS, Storage
from cypd.refusals import Code, Refusal
from tests.projects.conftest import ADMIN, GIB, OTHER, OWNER, House, refused
from tests.samples import ACT, image, name, parsed


def changes(**fields: object) -> Changes:
    """Return changes of some fields."""
    return Changes(updated_at=9.0, **fields)  # type: ignore[arg-type]


async def seen(house: House, principal: Principal, **query: object) -> list[str]:
    """Return the names on a page of projects."""
    page = await house.projects.page(principal, number=1, size=100, **query)  # type: ignore[arg-type]
    assert page.total == len(page.projects)
    return [it.project.name for it in page.projects]


async def test_a_new_project_is_its_creator_s(house: House) -> None:
    """Private, empty, of the default quota; the id is a UUIDv4."""
    made = await house.create()

    assert UUID(made.project.id).version == 4
    assert (made.project.owner_id, made.role, made.usage) == ("owner-id", Role.OWNER, (0, 0, 0, 0))
    assert (made.project.storage_quota, made.project.is_public) == (GIB, False)
    assert house.projects.get(OWNER, made.project.id) == made
    assert house.projects.get(ADMIN, made.project.id) == made._replace(role=None)
    await refused(Code.PROJECT_EXISTS, house.projects.create(OTHER, name="library"))


@pytest.mark.parametrize(
    "text",
    ["", "x", "x" * 64, "Library", "\uff41dmin", "\u0430dmin", "library.", "-a", "a/b", "a b",
     "a___b", "lib\u200drary", "\u0130stanbul", "lib\u202erary", "lib\n", "..", "biblioth\u00e8que",
     "a\0b"],
)  # fmt: skip
async def test_a_name_that_could_be_another_is_none(house: House, text: str) -> None:
    """One spelling a name: no case, no other alphabet, nothing invisible; the field is named."""
    await refused(Code.VALIDATION_FAILED, house.projects.create(OWNER, name=text), "name")
    made = await house.create()
    rename = house.projects.update(OWNER, made.project.id, changes(name=text))
    await refused(Code.VALIDATION_FAILED, rename, "name")


@given(st.text(max_size=70))
def test_any_text_is_a_name_or_is_told_why_not(text: str) -> None:
    """What passes is plain ASCII in lower case, of a length that fits."""
    if check_name(text) is None:
        assert text.isascii()
        assert text == text.lower()
        assert 2 <= len(text) <= 63
        assert "/" not in text


@pytest.mark.parametrize(
    ("principal", "quota", "outcome"),
    [
        (OWNER, 0, None),
        (OWNER, 2 * GIB, None),
        (OWNER, 2 * GIB + 1, Code.VALIDATION_FAILED),
        (OWNER, -2, Code.VALIDATION_FAILED),
        (OWNER, UNLIMITED, Code.PERMISSION_MISSING),
        (ADMIN, UNLIMITED, None),
        (ADMIN, 1 << 50, None),
        (ADMIN, 1 << 70, Code.VALIDATION_FAILED),
        (ADMIN, -2, Code.VALIDATION_FAILED),
        (ADMIN._replace(scope=Scope.DELETE), UNLIMITED, Code.PERMISSION_MISSING),
    ],
)
async def test_quotas_have_bounds(
    house: House, principal: Principal, quota: int, outcome: Code | None
) -> None:
    """An owner up to projects.max_quota, an administrator any, and none at all."""
    create = house.projects.create(principal, name="library", storage_quota=quota)
    made = await house.create("other")
    update = house.projects.update(principal, made.project.id, changes(storage_quota=quota))
    for call in (create, update):
        if outcome is None:
            assert (await call).project.storage_quota == quota
        else:
            is_field = outcome is Code.VALIDATION_FAILED
            await refused(outcome, call, "storage_quota" if is_field else "")


async def test_a_description_is_text(house: House) -> None:
    """As long as it fits, in any language; half a character is no text."""
    made = await house.projects.create(OWNER, name="library", description="项" * MAX_DESCRIPTION)
    assert made.project.description == "项" * MAX_DESCRIPTION
    for text in ("x" * (MAX_DESCRIPTION + 1), "\ud800"):
        call = house.projects.create(OWNER, name="other", description=text)
        await refused(Code.VALIDATION_FAILED, call, "description")


async def test_a_private_project_does_not_exist_for_others(house: House) -> None:
    """Every question about it is answered as for one that is not there; nobody has to sign in."""
    made = await house.create()
    there, nowhere = made.project.id, "0b26e60c-4c3c-4a0f-b6a1-6f5a6c1f9f11"
    for principal, code in ((OTHER, Code.PROJECT_NOT_FOUND), (ANONYMOUS, Code.NO_CREDENTIALS)):
        for each in (there, nowhere, "", "x", "../x"):
            for ask in (house.projects.get, house.projects.storage):
                with pytest.raises(Refusal) as refusal:
                    ask(principal, each)
                assert refusal.value.code is code
            await refused(code, house.projects.update(principal, each, changes(name="x")))
            await refused(code, house.projects.delete(principal, each))
            await refused(code, house.projects.delete(principal, each, force=True))


async def test_a_public_project_is_there_to_see_alone(house: House) -> None:
    """Others read it, and are told that they may not change it."""
    made = await house.create(is_public=True)
    assert house.projects.get(OTHER, made.project.id).role is None

    write = house.projects.update(OTHER, made.project.id, changes(name="xx"))
    await refused(Code.PERMISSION_MISSING, write)
    await refused(Code.PERMISSION_MISSING, house.projects.delete(OTHER, made.project.id))


async def test_a_maintainer_changes_all_but_the_quota(house: House) -> None:
    """Any subset of the fields; the quota is its owner's."""
    made = await house.create()
    await house.metadata.projects.add_member(
        made.project.id, Member("other-id", Role.MAINTAINER, 1.0), act=ACT
    )
    changed = await house.projects.update(
        OTHER, made.project.id, changes(description="new", is_public=True, storage_quota=GIB)
    )

    assert (changed.project.description, changed.project.is_public) == ("new", True)
    assert (changed.project.name, changed.project.updated_at) == ("library", 9.0)
    quota = house.projects.update(OTHER, made.project.id, changes(storage_quota=1))
    await refused(Code.PERMISSION_MISSING, quota)
    await refused(Code.PERMISSION_MISSING, house.projects.delete(OTHER, made.project.id))


async def test_a_credential_says_what_it_lacks(house: House) -> None:
    """Its scope, before its user's role; a token for projects creates none."""
    made = await house.create()
    reader, writer = OWNER._replace(scope=Scope.READ), OWNER._replace(scope=Scope.WRITE)
    await refused(Code.LACKS_WRITE, house.projects.create(reader, name="other"))
    await refused(
        Code.LACKS_WRITE, house.projects.update(reader, made.project.id, changes(is_public=True))
    )
    await refused(Code.LACKS_ADMIN, house.projects.delete(writer, made.project.id))
    bound = OWNER._replace(projects=frozenset([made.project.id]))
    await refused(Code.PERMISSION_MISSING, house.projects.create(bound, name="other"))
    granted = OWNER._replace(grants=(Grant("*", frozenset("*")),))
    await refused(Code.PERMISSION_MISSING, house.projects.create(granted, name="other"))

    assert house.projects.get(bound, made.project.id) == made
    assert await seen(house, bound) == ["library"]


async def test_a_list_holds_what_one_may_see(house: House) -> None:
    """One's own and the public ones; an administrator sees all, nobody is asked who they are."""
    for each, is_public in (("private", False), ("public", True)):
        await house.create(each, is_public=is_public)
    await house.projects.create(OTHER, name="theirs")

    assert await seen(house, OWNER) == ["private", "public"]
    assert await seen(house, OTHER) == ["public", "theirs"]
    assert await seen(house, ADMIN) == ["private", "public", "theirs"]
    await refused(Code.NO_CREDENTIALS, house.projects.page(ANONYMOUS, number=1, size=9))


async def test_a_list_is_searched_sorted_and_paged(house: House) -> None:
    """By name or description in any case, by the keys of a table, with the total beside it."""
    for each in ("beta", "alpha", "gamma"):
        await house.projects.create(OWNER, name=each, description=f"The {each.upper()} of it")
    await house.projects.create(OWNER, name="other")

    assert await seen(house, OWNER) == ["alpha", "beta", "gamma", "other"]
    assert await seen(house, OWNER, sort="-name") == ["other", "gamma", "beta", "alpha"]
    assert (await seen(house, OWNER, sort="created_at"))[0] == "beta"
    assert await seen(house, OWNER, keyword="THE AL") == ["alpha"]
    for sort in SORTS:
        assert len(await seen(house, OWNER, sort=sort)) == 4
    for sort in ("", "owner_id", "password_hash", "name desc", "--name"):
        call = house.projects.page(OWNER, number=1, size=9, sort=sort)
        await refused(Code.VALIDATION_FAILED, call, "sort")
    page = await house.projects.page(OWNER, number=2, size=3)
    assert ([it.project.name for it in page.projects], page.total) == (["other"], 4)
    assert not (await house.projects.page(OWNER, number=10**12, size=100)).projects


async def test_a_project_ends_when_it_is_empty_or_forced(house: House) -> None:
    """409 while it holds images; with force all of it goes, however much, and the name is free."""
    made = await house.create()
    registry = house.metadata.registry
    for number in range(300):
        manifest = parsed(image(note=str(number)))
        await registry.put_manifest(
            name(), manifest, [Tag("latest")], inline=True, allow_sparse=True, act=ACT
        )
    await refused(Code.NOT_IN_THIS_STATE, house.projects.delete(OWNER, made.project.id))
    await refused(
        Code.NOT_IN_THIS_STATE, house.projects.update(OWNER, made.project.id, changes(name="xx"))
    )
    await house.projects.delete(OWNER, made.project.id, force=True)

    assert not registry.repository_exists(name())
    assert await seen(house, ADMIN) == []
    assert (await house.create()).usage == Usage(0, 0, 0, 0)


async def test_storage_adds_up(house: House) -> None:
    """Used, reserved and left of the quota, the percentage, and the bytes that only it holds."""
    made = await house.create()
    registry = house.metadata.registry
    await registry.link_blob(name(), Digest.of(b"x"), GIB // 4, upload_id=None)
    expected = Storage(GIB, GIB // 4, 0, GIB * 3 // 4, 25.0, GIB // 4)
    assert house.projects.storage(OWNER, made.project.id) == expected

    await house.projects.update(OWNER, made.project.id, changes(storage_quota=0))
    expected = Storage(0, GIB // 4, 0, 0, 0.0, GIB // 4)
    assert house.projects.storage(OWNER, made.project.id) == expected
    await house.projects.update(ADMIN, made.project.id, changes(storage_quota=UNLIMITED))
    expected = Storage(UNLIMITED, GIB // 4, 0, UNLIMITED, 0.0, GIB // 4)
    assert house.projects.storage(OWNER, made.project.id) == expected
