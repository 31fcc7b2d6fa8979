"""Whose password one is, and what it costs to find out."""

import asyncio
import time

import pytest

from cypd.accounts import passwords
from cypd.accounts.passwords import require_good
from cypd.refusals import Code, Refusal
from tests.accounts.house import ELSEWHERE, HOME, PASSWORD, Clock, House, code_at, refused


@pytest.mark.parametrize("login", ["ada", "Ada", "ＡＤＡ", "ada@example.org", "ADA@example.org"])
async def test_the_right_password_is_its_owners(house: House, login: str) -> None:
    """By name or address, in whatever spelling."""
    user = await house.person("ada", "ada@example.org")

    assert user == await house.passwords.owner(login, PASSWORD, HOME)


@pytest.mark.parametrize(
    ("login", "password"),
    [
        ("ada", "wrong"), ("ada", ""), ("ada", PASSWORD + "\0"), ("ada", PASSWORD.upper()),
        ("ada", "x" * 100_000), ("nobody", PASSWORD), ("", PASSWORD), ("", ""), ("ada\0", PASSWORD),
        ("аda", PASSWORD), ("x" * 100_000, PASSWORD), ("ad", "a" + PASSWORD), ("bob", PASSWORD),
    ],
)  # fmt: skip
async def test_anything_else_is_refused_alike(house: House, login: str, password: str) -> None:
    """A wrong password and an unknown name are one answer."""
    await house.person("ada")
    await house.users.create("bob", "", "another password")

    refusal = await refused(Code.WRONG_PASSWORD, house.passwords.owner(login, password, HOME))
    assert 401 == refusal.code.status


async def test_an_unknown_name_costs_what_a_wrong_password_costs(house: House) -> None:
    """Both are checked against a hash, so that time does not tell names apart."""
    await house.person("ada")
    for login in ("ada", "nobody", "nobody@example.org"):
        await refused(Code.WRONG_PASSWORD, house.passwords.owner(login, "wrong", HOME))

    assert ["wrong"] * 3 == house.hasher.verified


async def test_a_password_without_bounds_is_not_hashed(house: House) -> None:
    """A megabyte is wrong without a look, and counts as wrong."""
    await house.person("ada")
    for _ in range(3):
        await refused(Code.WRONG_PASSWORD, house.passwords.owner("ada", "x" * (1 << 20), HOME))

    assert not house.hasher.verified
    await refused(Code.TOO_MANY_FAILURES, house.passwords.owner("ada", "x", HOME))


async def test_a_disabled_account_says_so_to_its_owner_alone(house: House) -> None:
    """Who does not know the password is not told that the account exists."""
    user = await house.person("ada")
    await house.users.administer(user.id, is_active=False)
    await refused(Code.WRONG_PASSWORD, house.passwords.owner("ada", "wrong", HOME))
    for _ in range(2):  # hashed, and remembered
        await refused(Code.ACCOUNT_DISABLED, house.passwords.owner("ada", PASSWORD, HOME))


async def test_a_right_password_is_remembered_for_a_while(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job's hundred requests cost one hash a minute; a wrong password is never remembered."""
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    await house.person("ada", "ada@example.org")
    for _ in range(50):
        await house.passwords.owner("ada", PASSWORD, HOME)
        await house.passwords.owner("ada@example.org", PASSWORD, HOME)
    assert [PASSWORD] == house.hasher.verified
    now += 61
    await house.passwords.owner("ada", PASSWORD, HOME)
    assert [PASSWORD] * 2 == house.hasher.verified
    for _ in range(2):
        await refused(Code.WRONG_PASSWORD, house.passwords.owner("ada", "wrong", HOME))
    assert ["wrong"] * 2 == house.hasher.verified[2:]


async def test_many_at_once_cost_one_hash(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen connections of one job wait for one check; one that goes away spoils it for none."""
    user = await house.person("ada")
    gate, verify = asyncio.Event(), house.hasher.verify

    async def slowly(password_hash: str, password: str) -> bool:
        await gate.wait()
        return await verify(password_hash, password)

    monkeypatch.setattr(house.hasher, "verify", slowly)
    asked = [asyncio.create_task(house.passwords.owner("ada", PASSWORD, HOME)) for _ in range(16)]
    await asyncio.sleep(0)
    asked[0].cancel()
    await asyncio.sleep(0)
    gate.set()
    answers = await asyncio.gather(*asked, return_exceptions=True)

    assert [PASSWORD] == house.hasher.verified
    assert [user] * 15 == answers[1:]


async def test_many_wrong_at_once_are_all_wrong(house: House) -> None:
    """A check that is shared is shared by those who sent the same for the same account alone."""
    await house.person("ada")
    await house.person("bob")
    logins = [("ada", PASSWORD), ("bob", PASSWORD), ("ada", "wrong"), ("bob", "wrong")]
    answers = await asyncio.gather(
        *(house.passwords.owner(login, password, HOME) for login, password in logins),
        return_exceptions=True,
    )

    assert 4 == len(house.hasher.verified)
    assert [False, False, True, True] == [isinstance(it, Refusal) for it in answers]


async def test_a_stale_password_of_many_jobs_is_one_failure(house: House) -> None:
    """A pipeline whose password was changed does not close the account to its owner."""
    await house.person("ada")
    answers = await asyncio.gather(
        *(house.passwords.owner("ada", "the old one", HOME) for _ in range(16)),
        return_exceptions=True,
    )

    assert all(isinstance(it, Refusal) for it in answers)
    assert "ada" == (await house.passwords.owner("ada", PASSWORD, HOME)).name


async def test_guesses_at_once_are_no_more_than_guesses_one_by_one(house: House) -> None:
    """Of sixty that arrive together hardly more are hashed than the throttle lets through."""
    await house.person("ada")
    guesses = (house.passwords.owner("ada", f"guess {it}", HOME) for it in range(60))
    answers = await asyncio.gather(*guesses, return_exceptions=True)

    assert all(isinstance(it, Refusal) for it in answers)
    assert 3 <= len(house.hasher.verified) <= 4  # the house bears three; two have a turn at once


async def test_a_changed_password_is_forgotten_at_once(house: House) -> None:
    """The old one stops with the write that changed it, whichever process made it."""
    user = await house.person("ada")
    await house.passwords.owner("ada", PASSWORD, HOME)
    await House(house.store).users.set_password(user.id, "a new password")

    await refused(Code.WRONG_PASSWORD, house.passwords.owner("ada", PASSWORD, HOME))
    await house.passwords.owner("ada", "a new password", HOME)


async def test_what_is_remembered_passes_although_others_guess(house: House) -> None:
    """Nobody can stop a running pipeline by sending wrong passwords for its account."""
    user = await house.person("ada")
    await house.passwords.owner("ada", PASSWORD, HOME)
    for _ in range(3):
        await refused(Code.WRONG_PASSWORD, house.passwords.owner("ada", "wrong", ELSEWHERE))
    await refused(Code.TOO_MANY_FAILURES, house.passwords.owner("ada", "wrong", ELSEWHERE))

    assert user == await house.passwords.owner("ada", PASSWORD, HOME)


async def test_the_memory_is_bounded_and_cannot_be_read(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest entry goes first, and nothing in it can be read as a password."""
    monkeypatch.setattr(passwords, "_MEMORY_ENTRIES", 1)
    for name in ("ada", "bob"):
        await house.person(name)
    for _ in range(2):
        for name in ("ada", "bob"):
            await house.passwords.owner(name, PASSWORD, HOME)

    assert 4 == len(house.hasher.verified)
    assert PASSWORD not in repr(vars(house.passwords))


async def test_a_password_alone_does_not_forgive_wrong_codes(house: House, clock: Clock) -> None:
    """Who knows the password and guesses at the second factor gets no more guesses by it."""
    totp, _ = await house.enrolled(await house.person("ada"))
    user = house.users.find("ada")
    for _ in range(3):
        fresh = House(house.store)  # one that remembers nothing
        await fresh.passwords.owner("ada", PASSWORD, HOME)
        await refused(Code.SECOND_FACTOR_WRONG, fresh.second_factor.consume(user, "000000", HOME))

    await refused(Code.TOO_MANY_FAILURES, house.second_factor.consume(user, code_at(totp), HOME))


@pytest.mark.parametrize(
    ("password", "good"),
    [
        ("x" * 7, False), ("x" * 8, True), ("x" * 1024, True), ("x" * 1025, False),
        ("someone-long", False), ("SomeOne-Long", False), ("someone-long1", True),
        ("密码" * 4, True),
    ],
)  # fmt: skip
def test_what_a_good_password_is(password: str, good: bool) -> None:
    """8 to 1024 characters of any kind, and not the user's name however it is spelled."""
    if good:
        require_good(password, "someone-long")
        return
    with pytest.raises(Refusal) as refusal:
        require_good(password, "someone-long", "new_password")
    assert Code.VALIDATION_FAILED is refusal.value.code
    assert ["new_password"] == [error.field for error in refusal.value.errors]
