"""Personal access tokens: made by their owners, shown once, and gone at once."""

import re
from typing import Any

import msgspec
import pytest

from cypd.accounts.personal_tokens import SCOPES, NewToken
from cypd.accounts.ports import User
from cypd.refusals import Code
from tests.accounts.house import Clock, House, refused

DAY = 86400


async def make(house: House, user: User, **changed: Any) -> NewToken:
    """Make a token, of no special kind but for what is changed."""
    wanted: dict[str, Any] = {
        "name": "ci",
        "scopes": ["read"],
        "project_ids": None,
        "expire_in": 0,
        **changed,
    }
    return await house.personal_tokens.create(user.id, **wanted)


async def test_a_token_is_shown_once(house: House) -> None:
    """Its text has a form that scanners find, and stands in no record: only its hash does."""
    user = await house.person()
    made = await make(house, user)

    assert re.fullmatch(r"pat_v1_[0-9a-f]{64}", made.text)
    assert [made.token] == list(house.personal_tokens.list(user.id))
    for record in (made.token, house.store.personal_token(made.token.hash)):
        stored = msgspec.msgpack.encode(record)
        assert made.text.encode() not in stored
        assert made.text.removeprefix("pat_v1_").encode() not in stored
        assert bytes.fromhex(made.text.removeprefix("pat_v1_")) not in stored
    assert made.text != (await make(house, user)).text


@pytest.mark.parametrize(
    ("scopes", "stored"),
    [
        (["read"], ("read",)), (["delete", "read"], ("read", "delete")),
        (["read", "read"], ("read",)), (SCOPES, SCOPES),
    ],
)  # fmt: skip
async def test_scopes_are_kept_as_a_set(
    house: House, scopes: list[str], stored: tuple[str, ...]
) -> None:
    """In the order of their reach, each once."""
    assert stored == (await make(house, await house.person(), scopes=scopes)).token.scopes


@pytest.mark.parametrize("scope", ["", "READ", "read ", "owner", "*", "réad"])
async def test_an_unknown_scope_is_named(house: House, scope: str) -> None:
    """It is refused with the field's name, and no token is made."""
    user = await house.person()
    refusal = await refused(Code.UNKNOWN_SCOPE, make(house, user, scopes=["read", scope]))

    assert ["scopes"] == [error.field for error in refusal.errors]
    assert not house.personal_tokens.list(user.id)


async def test_a_token_without_scopes_is_none(house: House) -> None:
    """It would be good for nothing."""
    refusal = await refused(Code.VALIDATION_FAILED, make(house, await house.person(), scopes=[]))
    assert ["scopes"] == [error.field for error in refusal.errors]


@pytest.mark.parametrize(
    ("expire_in", "seconds"),
    [(0, 30 * DAY), (-1, None), (60, 60), (DAY, DAY), (3650 * DAY, 3650 * DAY)],
)
async def test_a_token_ends_when_it_shall(
    house: House, clock: Clock, expire_in: int, seconds: int | None
) -> None:
    """After so many seconds; 0 is thirty days, and -1 never."""
    made = await make(house, await house.person(), expire_in=expire_in)

    assert (None if seconds is None else clock.now + seconds) == made.token.expires_at
    assert clock.now == made.token.created_at


@pytest.mark.parametrize("expire_in", [-2, 1, 59, 3650 * DAY + 1, 10**400, -(10**400)])
async def test_other_ends_are_refused(house: House, expire_in: int) -> None:
    """Neither shorter than a minute nor longer than ten years, however large the number is."""
    refusal = await refused(
        Code.VALIDATION_FAILED, make(house, await house.person(), expire_in=expire_in)
    )
    assert ["expire_in"] == [error.field for error in refusal.errors]


@pytest.mark.parametrize(("given", "kept"), [(None, None), ([], ()), (["b", "a"], ("b", "a"))])
async def test_projects_are_kept(
    house: House, given: list[str] | None, kept: tuple[str, ...] | None
) -> None:
    """None at all is a token for all projects, and an empty list one for no project."""
    assert kept == (await make(house, await house.person(), project_ids=given)).token.project_ids


async def test_a_user_has_a_hundred_at_most(house: House) -> None:
    """One more is refused until one is removed."""
    user = await house.person()
    made = [await make(house, user) for _ in range(100)]
    await refused(Code.NOT_IN_THIS_STATE, make(house, user))
    await house.personal_tokens.delete(user.id, made[0].token.id)

    assert await make(house, user)


async def test_only_its_owner_removes_a_token(house: House) -> None:
    """To anybody else it is not there; removed, it is worth nothing at once."""
    ada, bob = await house.person("ada"), await house.person("bob")
    made = await make(house, ada)
    for owner, token_id in ((bob.id, made.token.id), (ada.id, "x"), ("", made.token.id)):
        await refused(Code.TOKEN_NOT_FOUND, house.personal_tokens.delete(owner, token_id))
    bearer = f"Bearer {made.text}"
    assert "ada" == (await house.authenticator.authenticate(bearer)).name
    await house.personal_tokens.delete(ada.id, made.token.id)

    await refused(Code.PAT_INVALID, house.authenticator.authenticate(bearer))
    assert not house.personal_tokens.list(ada.id)
