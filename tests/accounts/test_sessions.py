"""Signing in, staying signed in, and leaving."""

import asyncio

import pytest

from cypd.access import ANONYMOUS
from cypd.accounts.ports import Issued
from cypd.accounts.sessions import HalfLogin, Login
from cypd.refusals import Code
from tests.accounts.house import (
    HOME,
    LIFETIMES,
    PASSWORD,
    Clock,
    House,
    code_at,
    refused,
)


async def test_a_login_opens_a_session(house: House, clock: Clock) -> None:
    """By name or address; its access token is its user, and both tokens say when they end."""
    user = await house.person("ada", "ada@example.org")
    for login in ("Ada", "ADA@example.org"):
        found = await house.sessions.login(login, PASSWORD, HOME)
        assert isinstance(found, Login)
        principal = await house.principal(found)
        assert (user.id, "ada", False) == (principal.user_id, principal.name, principal.is_admin)
        assert clock.now + LIFETIMES.access == found.access.expires_at
        assert clock.now + LIFETIMES.refresh == found.refresh.expires_at


async def test_a_wrong_login_opens_none(house: House) -> None:
    """It is refused as ``Passwords`` refuses it."""
    user = await house.person("ada")
    await refused(Code.WRONG_PASSWORD, house.sessions.login("ada", "wrong", HOME))
    await house.users.administer(user.id, is_active=False)
    await refused(Code.ACCOUNT_DISABLED, house.sessions.login("ada", PASSWORD, HOME))


async def test_a_password_changed_meanwhile_opens_none(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who proves the old one while it is being changed has no session after the change."""
    user = await house.person("ada")
    verify = house.hasher.verify

    async def slowly(password_hash: str, password: str) -> bool:
        is_right = await verify(password_hash, password)
        await house.users.set_password(user.id, "quite another")
        return is_right

    monkeypatch.setattr(house.hasher, "verify", slowly)
    await refused(Code.WRONG_PASSWORD, house.sessions.login("ada", PASSWORD, HOME))


async def test_a_refresh_gives_new_tokens(house: House, clock: Clock) -> None:
    """Again and again, for longer than one refresh token lives, and always of the same session."""
    first = login = await house.login(await house.person())
    for _ in range(3):
        clock.now += LIFETIMES.refresh - 1
        login = await house.sessions.refresh(login.refresh.text)
        assert login.refresh.id != first.refresh.id
        assert clock.now + LIFETIMES.refresh == login.refresh.expires_at
    principal = await house.principal(login)
    clock.now = first.access.expires_at - 1

    assert principal.session == (await house.principal(first)).session


async def test_a_refresh_token_that_is_used_twice_ends_the_session(house: House) -> None:
    """It was stolen, by whoever came first or last: so neither keeps anything."""
    first = await house.login(await house.person())
    second = await house.sessions.refresh(first.refresh.text)
    await refused(Code.REFRESH_TOKEN_INVALID, house.sessions.refresh(first.refresh.text))

    await refused(Code.REFRESH_TOKEN_INVALID, house.sessions.refresh(second.refresh.text))
    for login in (first, second):
        await refused(Code.TOKEN_INVALID, house.principal(login))


async def test_a_refresh_token_that_is_used_twice_at_once_ends_the_session(house: House) -> None:
    """At most one gets an answer, which is worth nothing then."""
    first = await house.login(await house.person())
    answers = await asyncio.gather(
        *(house.sessions.refresh(first.refresh.text) for _ in range(8)), return_exceptions=True
    )
    won = [it for it in answers if isinstance(it, Login)]

    assert 1 == len(won)
    await refused(Code.TOKEN_INVALID, house.principal(won[0]))


async def test_a_refresh_token_ends(house: House, clock: Clock) -> None:
    """Past its time, with a minute's leeway, it is worth nothing."""
    login = await house.login(await house.person())
    clock.now += LIFETIMES.refresh + 61

    await refused(Code.REFRESH_TOKEN_INVALID, house.sessions.refresh(login.refresh.text))


@pytest.mark.parametrize("kind", ["access", "mfa", "", "x.y.z", "\ud800", "x" * (1 << 20)])
async def test_only_a_refresh_token_refreshes(house: House, kind: str) -> None:
    """Every other token, and every other text, is refused in the same way."""
    user = await house.person()
    login = await house.login(user)
    texts = {"access": login.access.text, "mfa": house.tokens.issue_mfa(user).text}

    await refused(Code.REFRESH_TOKEN_INVALID, house.sessions.refresh(texts.get(kind, kind)))
    assert await house.sessions.refresh(login.refresh.text)  # and nothing has happened


async def test_a_logout_ends_both_tokens(house: House) -> None:
    """At once, and those of no other session."""
    user = await house.person()
    left, stays = await house.login(user), await house.login(user)
    await house.sessions.logout(await house.principal(left))

    await refused(Code.TOKEN_INVALID, house.principal(left))
    await refused(Code.REFRESH_TOKEN_INVALID, house.sessions.refresh(left.refresh.text))
    assert await house.principal(stays)
    assert await house.sessions.refresh(stays.refresh.text)


async def test_only_a_session_can_be_left(house: House) -> None:
    """Who came by anything else has nothing to log out of."""
    await refused(Code.NOT_IN_THIS_STATE, house.sessions.logout(ANONYMOUS))


async def test_who_is_disabled_or_removed_is_signed_out(house: House) -> None:
    """Neither token is worth anything, not even when the account is enabled again."""
    ada, bob = await house.person("ada"), await house.person("bob")
    logins = [await house.login(ada), await house.login(bob)]
    await house.users.administer(ada.id, is_active=False)
    await house.users.delete(bob.id)
    for login in logins:
        await refused(Code.TOKEN_INVALID, house.principal(login))
        await refused(Code.REFRESH_TOKEN_INVALID, house.sessions.refresh(login.refresh.text))
    await house.users.administer(ada.id, is_active=True)

    await refused(Code.TOKEN_INVALID, house.principal(logins[0]))


async def half(house: House) -> Issued:
    """Return the token of a login that owes the second factor."""
    login = await house.sessions.login("ada", PASSWORD, HOME)
    assert isinstance(login, HalfLogin)
    return login.mfa


async def test_a_second_factor_makes_a_login_of_two_halves(house: House, clock: Clock) -> None:
    """The password gives a token that only a code turns into a session."""
    totp, recovery = await house.enrolled(await house.person("ada"))
    for code in (code_at(totp), recovery[0]):
        mfa = await half(house)
        await refused(Code.TOKEN_INVALID, house.authenticator.authenticate(f"Bearer {mfa.text}"))
        await refused(Code.SECOND_FACTOR_WRONG, house.sessions.verify(mfa.text, "000000", HOME))
        login = await house.sessions.verify(mfa.text, code, HOME)
        assert "ada" == (await house.principal(login)).name
        await refused(Code.SECOND_FACTOR_WRONG, house.sessions.verify(mfa.text, code, HOME))


async def test_a_half_login_ends(house: House, clock: Clock) -> None:
    """After five minutes and a minute's leeway the password is asked for again."""
    totp, _ = await house.enrolled(await house.person("ada"))
    mfa = await half(house)
    clock.now += 361

    await refused(Code.TOKEN_EXPIRED, house.sessions.verify(mfa.text, code_at(totp), HOME))


async def test_only_a_half_login_is_verified(house: House, clock: Clock) -> None:
    """A session's own tokens are none, and neither is that of a user without a second factor."""
    ada = await house.person("ada")
    login = await house.login(ada)
    totp, _ = await house.enrolled(ada)
    bob = house.tokens.issue_mfa(await house.person("bob")).text
    for token in (login.access.text, login.refresh.text, bob, "", "x.y.z"):
        await refused(Code.TOKEN_INVALID, house.sessions.verify(token, code_at(totp), HOME))


async def test_a_half_login_of_somebody_disabled_is_none(house: House, clock: Clock) -> None:
    """Between the halves, too, an account can be disabled."""
    ada = await house.person("ada")
    totp, _ = await house.enrolled(ada)
    mfa = await half(house)
    await house.users.administer(ada.id, is_active=False)

    await refused(Code.TOKEN_INVALID, house.sessions.verify(mfa.text, code_at(totp), HOME))


async def test_a_half_login_ends_with_its_password(house: House, clock: Clock) -> None:
    """Between the halves, too, a password can be changed: the old one proves nothing then."""
    ada = await house.person("ada")
    totp, _ = await house.enrolled(ada)
    mfa = await half(house)
    await house.users.set_password(ada.id, "another password")

    await refused(Code.TOKEN_INVALID, house.sessions.verify(mfa.text, code_at(totp), HOME))


async def test_codes_are_throttled(house: House, clock: Clock) -> None:
    """A million codes cannot be tried: the account is closed for a while, for the right one too."""
    totp, _ = await house.enrolled(await house.person("ada"))
    mfa = await half(house)
    for number in range(3):
        await refused(
            Code.SECOND_FACTOR_WRONG, house.sessions.verify(mfa.text, f"00000{number}", HOME)
        )

    refusal = await refused(
        Code.TOO_MANY_FAILURES, house.sessions.verify(mfa.text, code_at(totp), HOME)
    )
    assert int(refusal.headers["Retry-After"]) > 0
