"""Members: owners decide, everybody may leave, one owner stays."""

from typing import Any

import pytest

from cypd.access import ANONYMOUS, Principal, Scope
from cypd.projects.ports import Role
from cypd.refusals import Code, Refusal
from tests.projects.conftest import ADMIN, OTHER, OWNER, House, refused
from tests.samples import ACT


def roles(house: House, principal: Principal, project_id: str) -> dict[str, Role]:
    """Return the members by name, as somebody sees them."""
    return {it.username: it.member.role for it in house.members.list(principal, project_id)}


async def test_an_owner_adds_members(house: House) -> None:
    """By name or by id, each once, with one of four roles; they see each other."""
    project = (await house.create()).project.id
    added = await house.members.add(OWNER, project, role="guest", username="other", act=ACT)
    await house.members.add(OWNER, project, role="maintainer", user_id="third-id", act=ACT)

    assert (added.username, added.member.user_id, added.member.role) == (
        "other", "other-id", Role.GUEST,
    )  # fmt: skip
    expected = {"other": Role.GUEST, "owner": Role.OWNER, "third": Role.MAINTAINER}
    assert roles(house, OTHER, project) == roles(house, ADMIN, project) == expected
    again = house.members.add(OWNER, project, role="owner", user_id="other-id", act=ACT)
    await refused(Code.NOT_IN_THIS_STATE, again)


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"role": "guest"}, Code.MISSING_PARAMETER, "username"),
        ({"role": "guest", "username": "other", "user_id": "other-id"}, Code.MISSING_PARAMETER,
         "username"),
        ({"role": "guest", "username": "nobody"}, Code.USER_NOT_FOUND, ""),
        ({"role": "guest", "user_id": "nobody-id"}, Code.USER_NOT_FOUND, ""),
        ({"role": "Owner", "username": "other"}, Code.VALIDATION_FAILED, "role"),
        ({"role": "4", "username": "other"}, Code.VALIDATION_FAILED, "role"),
        ({"role": "", "username": "other"}, Code.VALIDATION_FAILED, "role"),
    ],
)  # fmt: skip
async def test_who_is_added_has_to_be_told(
    house: House, fields: dict[str, Any], code: Code, field: str
) -> None:
    """Exactly one of name and id, of a user there is, and a role there is."""
    project = (await house.create()).project.id

    await refused(code, house.members.add(OWNER, project, **fields, act=ACT), field)
    assert roles(house, OWNER, project) == {"owner": Role.OWNER}


@pytest.mark.parametrize("role", ["guest", "developer", "maintainer", None])
async def test_only_owners_decide(house: House, role: str | None) -> None:
    """Everybody else may not add, promote or remove, themselves least of all."""
    project = (await house.create(is_public=True)).project.id
    if role:
        await house.members.add(OWNER, project, role=role, username="other", act=ACT)
    before = roles(house, OWNER, project)
    for call in (
        house.members.add(OTHER, project, role="owner", username="third", act=ACT),
        house.members.add(OTHER, project, role="owner", username="other", act=ACT),
        house.members.set_role(OTHER, project, "other-id", "owner", act=ACT),
        house.members.remove(OTHER, project, "owner-id", act=ACT),
    ):
        await refused(Code.PERMISSION_MISSING, call)

    assert roles(house, OWNER, project) == before


async def test_strangers_do_not_see_who_is_there(house: House) -> None:
    """Of a public project they may not, of a private one there is nothing."""
    public = (await house.create("public", is_public=True)).project.id
    private = (await house.create("private")).project.id
    for principal, project, code in (
        (OTHER, public, Code.PERMISSION_MISSING),
        (OTHER, private, Code.PROJECT_NOT_FOUND),
        (ANONYMOUS, public, Code.NO_CREDENTIALS),
    ):
        with pytest.raises(Refusal) as refusal:
            house.members.list(principal, project)
        assert refusal.value.code is code
    for call in (
        house.members.add(OTHER, private, role="owner", username="other", act=ACT),
        house.members.set_role(OTHER, private, "owner-id", "guest", act=ACT),
        house.members.remove(OTHER, private, "owner-id", act=ACT),
        house.members.remove(OTHER, private, "other-id", act=ACT),
    ):
        await refused(Code.PROJECT_NOT_FOUND, call)


async def test_members_change_and_leave(house: House) -> None:
    """A role changes at once what they may do; a member who left is a stranger at once."""
    project = (await house.create()).project.id
    await house.members.add(OWNER, project, role="developer", username="other", act=ACT)
    changed = await house.members.set_role(OWNER, project, "other-id", "owner", act=ACT)
    assert changed.member.role is Role.OWNER
    await house.members.remove(OTHER, project, "owner-id", act=ACT)
    assert roles(house, OTHER, project) == {"other": Role.OWNER}
    assert house.projects.get(OTHER, project).project.owner_id == "other-id"

    await refused(Code.NOT_IN_THIS_STATE, house.members.remove(OTHER, project, "other-id", act=ACT))
    await refused(
        Code.NOT_IN_THIS_STATE, house.members.set_role(OTHER, project, "other-id", "guest", act=ACT)
    )
    await house.members.add(OTHER, project, role="guest", username="owner", act=ACT)
    await house.members.remove(OWNER, project, "owner-id", act=ACT)
    await refused(Code.PROJECT_NOT_FOUND, house.members.remove(OWNER, project, "owner-id", act=ACT))
    await refused(Code.MEMBER_NOT_FOUND, house.members.remove(OTHER, project, "owner-id", act=ACT))


async def test_membership_needs_the_admin_scope(house: House) -> None:
    """A token of a lesser scope changes none, its own user's included."""
    project = (await house.create()).project.id
    owner = OWNER._replace(scope=Scope.DELETE)
    for call in (
        house.members.add(owner, project, role="guest", username="other", act=ACT),
        house.members.set_role(owner, project, "owner-id", "guest", act=ACT),
        house.members.remove(owner, project, "owner-id", act=ACT),
    ):
        await refused(Code.LACKS_ADMIN, call)


async def test_an_account_that_is_gone_has_no_name(house: House) -> None:
    """It is listed by its id, so that it can be removed."""
    project = (await house.create()).project.id
    await house.members.add(OWNER, project, role="guest", username="third", act=ACT)
    house.members._directory.ids = ("owner-id",)  # type: ignore[attr-defined]

    assert roles(house, OWNER, project) == {"": Role.GUEST, "owner": Role.OWNER}
    await house.members.remove(OWNER, project, "third-id", act=ACT)
