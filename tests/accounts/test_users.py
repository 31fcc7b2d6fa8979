"""Accounts: made, changed by their owners, and looked after by administrators."""

import asyncio

import pytest

from cypd.access import Principal
from cypd.accounts import users as module
from cypd.accounts.users import Users
from cypd.refusals import Code, Refusal
from tests.accounts.house import HOME, PASSWORD, Clock, House, refused


async def test_a_new_user_is_stored(house: House, clock: Clock) -> None:
    """With canonical names, active, no administrator, and the password as a hash alone."""
    user = await house.users.create("Ada", "Ada@Example.org", PASSWORD, nickname="Ada L.")

    assert user == house.users.get(user.id) == house.users.find("ＡＤＡ")
    assert ("ada", "ada@example.org", "Ada L.") == (user.name, user.email, user.nickname)
    assert (False, True) == (user.is_admin, user.is_active)
    assert (clock.now, clock.now) == (user.created_at, user.updated_at)
    assert PASSWORD not in user.password_hash


@pytest.mark.parametrize(
    ("name", "email", "password", "field"),
    [
        ("a", "", PASSWORD, "username"), ("аda", "", PASSWORD, "username"),
        ("bob", "bob", PASSWORD, "email"), ("bob", "", "short", "password"),
        ("bobby-tables", "", "Bobby-Tables", "password"),
    ],
)  # fmt: skip
async def test_a_bad_field_is_named(
    house: House, name: str, email: str, password: str, field: str
) -> None:
    """Each of them, and nobody is made."""
    refusal = await refused(Code.VALIDATION_FAILED, house.users.create(name, email, password))

    assert [field] == [error.field for error in refusal.errors]
    assert not await house.users.list(keyword="", sort="username")


@pytest.mark.parametrize(
    ("name", "email"),
    [
        ("ada", ""), ("ADA", ""), ("ａｄａ", ""), ("bob", "ada@example.org"),
        ("bob", "ADA@EXAMPLE.ORG"),
    ],
)  # fmt: skip
async def test_another_spelling_is_no_other_user(house: House, name: str, email: str) -> None:
    """Names and addresses are compared in canonical form."""
    await house.person("ada", "ada@example.org")

    await refused(Code.USER_EXISTS, house.users.create(name, email, PASSWORD))


async def test_of_many_at_once_one_is_made(house: House) -> None:
    """Spelled differently and asked for at the same time, a name is still one."""
    spellings = ("ada", "Ada", "ADA", "ａda")
    answers = await asyncio.gather(
        *(house.users.create(name, "", PASSWORD) for name in spellings), return_exceptions=True
    )

    assert 3 == sum(getattr(it, "code", None) is Code.USER_EXISTS for it in answers)


async def test_registration_can_be_closed(house: House) -> None:
    """Open, anybody becomes a user and no more than that; closed, it is denied."""
    user = await house.users.register("ada", "", PASSWORD, "Ada")
    assert (False, "Ada") == (user.is_admin, user.nickname)
    closed = Users(house.store, house.passwords, house.hasher, is_open=False)

    await refused(Code.ACCESS_DENIED, closed.register("bob", "", PASSWORD, ""))


async def test_nobody_is_not_found(house: House) -> None:
    """An unknown id or name, whatever it looks like."""
    for text in ("", "x", "../x", "\0", "x" * 10_000):
        for call in (house.users.get, house.users.find):
            with pytest.raises(Refusal) as refusal:
                call(text)
            assert Code.USER_NOT_FOUND is refusal.value.code
        await refused(Code.USER_NOT_FOUND, house.users.administer(text, is_admin=True))
        await refused(Code.USER_NOT_FOUND, house.users.delete(text))


@pytest.mark.parametrize(
    ("keyword", "sort", "names"),
    [
        ("", "username", ["ada", "bob", "cyd"]), ("", "-username", ["cyd", "bob", "ada"]),
        ("", "created_at", ["cyd", "ada", "bob"]), ("", "-created_at", ["bob", "ada", "cyd"]),
        ("", "email", ["cyd", "bob", "ada"]), ("BO", "username", ["bob"]),
        ("org", "username", ["ada"]), ("lovelace", "username", ["ada"]), ("%", "username", []),
        ("ｃｙｄ", "username", ["cyd"]), (".*", "username", []),
    ],
)  # fmt: skip
async def test_users_are_listed(
    house: House,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    keyword: str,
    sort: str,
    names: list[str],
) -> None:
    """By what their name, nickname or address holds, in either order of either field."""
    monkeypatch.setattr(module, "_STEP", 2)  # so that there are several steps
    for name, email, nickname in (
        ("cyd", "", ""),
        ("ada", "z@example.org", "Ada LOVELACE"),
        ("bob", "b@example.net", ""),
    ):
        await house.person(name, email, nickname=nickname)
        clock.now += 1

    assert names == [it.name for it in await house.users.list(keyword=keyword, sort=sort)]


async def test_a_profile_changes_in_part(house: House, clock: Clock) -> None:
    """What is not given stays, what is empty goes, and an address moves in canonical form."""
    user = await house.person("ada", "ada@example.org", nickname="Ada")
    clock.now += 1
    changed = await house.users.update_profile(user.id, nickname=None, email="NEW@example.org")
    assert ("Ada", "new@example.org") == (changed.nickname, changed.email)
    assert clock.now == changed.updated_at
    changed = await house.users.update_profile(user.id, nickname="", email=None)
    assert ("", "new@example.org") == (changed.nickname, changed.email)
    changed = await house.users.update_profile(user.id, nickname=None, email="")
    assert not changed.email
    assert user.password_hash == changed.password_hash

    await house.person("bob", "ada@example.org")
    for email, code in (("x", Code.VALIDATION_FAILED), ("ADA@example.org", Code.USER_EXISTS)):
        await refused(code, house.users.update_profile(user.id, nickname="no", email=email))
    assert changed == house.users.get(user.id)


async def test_a_new_password_ends_all_other_sessions(house: House) -> None:
    """The one it was changed in stays, whoever else is signed in is not any longer."""
    user = await house.person("ada")
    here, there = await house.login(user), await house.login(user)
    bob = await house.login(await house.person("bob"))
    principal = await house.principal(here)
    await house.users.change_password(principal, PASSWORD, "a new password", HOME)

    assert await house.principal(here)
    assert await house.principal(bob)
    await refused(Code.TOKEN_INVALID, house.principal(there))
    await refused(Code.REFRESH_TOKEN_INVALID, house.sessions.refresh(there.refresh.text))
    await refused(Code.WRONG_PASSWORD, house.passwords.owner("ada", PASSWORD, HOME))
    await house.passwords.owner("ada", "a new password", HOME)


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("wrong", "a new password", Code.WRONG_PASSWORD),
        ("", "a new password", Code.WRONG_PASSWORD),
        (PASSWORD, "short", Code.VALIDATION_FAILED),
        (PASSWORD, "LOVELACE", Code.VALIDATION_FAILED),
    ],
)  # fmt: skip
async def test_a_password_is_changed_by_who_knows_it(
    house: House, old: str, new: str, code: Code
) -> None:
    """And for a good one alone; else all stays, sessions too."""
    user = await house.person("lovelace")
    login = await house.login(user)
    principal = await house.principal(login)
    await refused(code, house.users.change_password(principal, old, new, HOME))

    assert user == house.users.get(user.id)
    assert await house.principal(login)


async def test_old_passwords_are_not_guessed_at_in_a_session(house: House) -> None:
    """Wrong ones count here as they do at the login."""
    user = await house.person("ada")
    principal = Principal(user.id, "ada")
    change = house.users.change_password
    for _ in range(3):
        await refused(Code.WRONG_PASSWORD, change(principal, "wrong", "a new password", HOME))

    await refused(Code.TOO_MANY_FAILURES, change(principal, PASSWORD, "a new password", HOME))


async def test_an_administrator_changes_what_they_may(house: House, clock: Clock) -> None:
    """What is not given stays; who is disabled has no session left, who is promoted has."""
    user = await house.person("ada")
    await house.person("root", is_admin=True)
    login = await house.login(user)
    clock.now += 1
    changed = await house.users.administer(user.id, is_admin=True)
    assert (True, True, clock.now) == (changed.is_admin, changed.is_active, changed.updated_at)
    assert (await house.principal(login)).is_admin
    changed = await house.users.administer(user.id, is_active=False)
    assert (True, False) == (changed.is_admin, changed.is_active)
    await refused(Code.TOKEN_INVALID, house.principal(login))


async def test_the_last_administrator_stays(house: House) -> None:
    """Neither removed, disabled nor demoted; of two that go at once, one stays."""
    root, other = await house.person("root", is_admin=True), await house.person("other")
    for call in (
        house.users.administer(root.id, is_active=False),
        house.users.administer(root.id, is_admin=False),
        house.users.delete(root.id),
    ):
        await refused(Code.NOT_IN_THIS_STATE, call)
    await house.users.administer(other.id, is_admin=True)
    answers = await asyncio.gather(
        house.users.delete(root.id), house.users.delete(other.id), return_exceptions=True
    )

    assert 1 == sum(getattr(it, "code", None) is Code.NOT_IN_THIS_STATE for it in answers)


async def test_a_removed_name_is_free(house: House) -> None:
    """And whoever takes it next inherits nothing."""
    first = await house.person("ada", "ada@example.org")
    login = await house.login(first)
    await house.users.delete(first.id)
    second = await house.person("ada", "ada@example.org")

    assert first.id != second.id
    await refused(Code.TOKEN_INVALID, house.principal(login))
