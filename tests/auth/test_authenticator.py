"""Who sent a request: each credential by each way in, and what ends it."""

import base64
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cypd.access import ANONYMOUS, Grant, Principal, Scope
from cypd.accounts.personal_tokens import NewToken
from cypd.accounts.ports import User
from cypd.metadata.memory.accounts import MemoryAccounts
from cypd.refusals import Code, Refusal
from tests.accounts.house import (
    ELSEWHERE,
    HOME,
    LIFETIMES,
    PASSWORD,
    Clock,
    House,
    refused,
)

GRANTS = (Grant("library/app", frozenset({"pull"})),)
KINDS = ("password", "access", "pat", "registry", "refresh", "mfa", "identity")


def basic(name: str, secret: str) -> str:
    """Return the header of Basic."""
    return "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()


def bearer(text: str) -> str:
    """Return the header of Bearer."""
    return f"Bearer {text}"


async def token_of(
    house: House, user: User, *, scopes: tuple[str, ...] = ("read",), expire_in: int = 0,
    project_ids: list[str] | None = None,
) -> NewToken:  # fmt: skip
    """Return a personal access token."""
    return await house.personal_tokens.create(
        user.id, name="ci", scopes=scopes, project_ids=project_ids, expire_in=expire_in
    )


async def secrets_of(house: House, user: User) -> dict[str, str]:
    """Return one credential of each kind."""
    login = await house.login(user)
    principal = await house.principal(login)
    return {
        "password": PASSWORD,
        "access": login.access.text,
        "pat": (await token_of(house, user)).text,
        "registry": house.authenticator.issue_token(principal, GRANTS).text,
        "refresh": login.refresh.text,
        "mfa": house.tokens.issue_mfa(user).text,
        "identity": house.authenticator.issue_identity(principal),
    }


# --- each credential by each way in -------------------------------------------------------------


async def test_no_header_is_nobody(house: House) -> None:
    """And nothing else is."""
    assert ANONYMOUS == await house.authenticator.authenticate(None)


@pytest.mark.parametrize("way", ["bearer", "basic"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("password", "registry"), [(False, False), (True, False), (False, True)])
async def test_a_credential_is_taken_where_it_belongs(
    house: House, way: str, kind: str, password: bool, registry: bool
) -> None:
    """Access and personal tokens everywhere; passwords and registry tokens where asked for."""
    user = await house.person("ada")
    secret = (await secrets_of(house, user))[kind]
    header = bearer(secret) if way == "bearer" else basic("Ada", secret)
    call = house.authenticator.authenticate(header, password=password, registry=registry)
    taken = (
        kind in {"access", "pat"}
        or (kind == "password" and way == "basic" and password)
        or (kind == "registry" and way == "bearer" and registry)
    )
    if not taken:
        with pytest.raises(Refusal) as refusal:
            await call
        assert 401 == refusal.value.code.status
        return
    principal = await call
    assert (user.id, "ada", False) == (principal.user_id, principal.name, principal.is_admin)
    assert bool(principal.session) is (kind in {"access", "registry"})  # of a session
    assert (principal.grants == GRANTS) is (kind == "registry")


@pytest.mark.parametrize(
    "header",
    [
        "", " ", "Basic", "Basic ", "Basic !!!", "Bearer", "Bearer ", "Bearer token",
        "Bearer a.b.c", "Digest x", "Token x", "basic" + "x" * 100_000, "Bearer " + "x" * 100_000,
        "Basic " + base64.b64encode(b"no colon").decode(), "Basic é", "Bearer é",
        "Basic " + base64.b64encode(b"\xff\xfe:x").decode(), "Basic " + "A" * 101,
        basic("ada", "wrong"), basic("nobody", PASSWORD), basic("", ""), basic("ada", ""),
        basic("ada", PASSWORD + "\0"), basic("ada\0", PASSWORD), basic("", PASSWORD),
        basic("ada", "x" * 100_000), basic("x" * 100_000, "x"), basic("аda", PASSWORD),
        f"{basic('ada', PASSWORD)}, {basic('ada', PASSWORD)}", "Bearer pat_v1_" + "0" * 64,
        basic("ada", "pat_v1_" + "0" * 64), "Bearer pat_v1_" + "A" * 64,
        "Bearer pat_v1_" + "٠" * 64,
    ],
)  # fmt: skip
async def test_anything_else_is_refused(house: House, header: str) -> None:
    """Wrong or malformed credentials are 401, and never anonymous."""
    await house.person("ada")
    with pytest.raises(Refusal) as refusal:
        await house.authenticator.authenticate(
            header, address=HOME, password=True, registry=True, grace=1e9
        )
    assert 401 == refusal.value.code.status


@given(
    st.text(max_size=40)
    | st.binary(max_size=60).map(lambda raw: "Basic " + base64.b64encode(raw).decode())
    | st.text(max_size=40).map(lambda text: "Bearer " + text)
)
async def test_no_header_is_a_fault_of_ours(header: str) -> None:
    """Whatever stands in it, it is refused as credentials are."""
    house = House(MemoryAccounts())
    with pytest.raises(Refusal) as refusal:
        await house.authenticator.authenticate(header, password=True, registry=True)
    assert 401 == refusal.value.code.status


# --- passwords ----------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC"])
async def test_a_password_is_its_users(house: House, scheme: str) -> None:
    """By name or address in any spelling, and an administrator is one."""
    user = await house.person("root", "root@example.org", is_admin=True)
    for login in ("Root", "ROOT@example.org"):
        header = scheme + basic(login, PASSWORD).removeprefix("Basic")
        principal = await house.authenticator.authenticate(header, password=True)
        assert (user.id, "root", True) == (principal.user_id, principal.name, principal.is_admin)
        assert (Scope.ADMIN, None) == (principal.scope, principal.projects)


@pytest.mark.parametrize("password", ["three.short.words", "a:b:c:d:e", "pat_v1_forgotten"])
async def test_a_password_may_look_like_a_token(house: House, password: str) -> None:
    """Dots, colons and prefixes make it no token, and colons end no password."""
    await house.users.create("ada", "", password)

    principal = await house.authenticator.authenticate(basic("ada", password), password=True)
    assert "ada" == principal.name


async def test_a_password_is_not_enough_with_a_second_factor(house: House, clock: Clock) -> None:
    """Only its owner is told that one is missing; a personal access token is enough."""
    user = await house.person("ada")
    made = await token_of(house, user)
    await house.enrolled(user)
    authenticate = house.authenticator.authenticate
    await refused(Code.SECOND_FACTOR_REQUIRED, authenticate(basic("ada", PASSWORD), password=True))
    await refused(Code.WRONG_PASSWORD, authenticate(basic("ada", "wrong"), password=True))

    assert "ada" == (await authenticate(basic("ada", made.text))).name


async def test_wrong_passwords_are_counted_for_their_address(house: House) -> None:
    """After three an account waits, from everywhere; its personal access tokens do not."""
    made = await token_of(house, await house.person("ada"))
    authenticate = house.authenticator.authenticate
    for _ in range(3):
        wrong = authenticate(basic("ada", "wrong"), password=True, address=HOME)
        await refused(Code.WRONG_PASSWORD, wrong)
    right = authenticate(basic("ada", PASSWORD), password=True, address=ELSEWHERE)
    assert "Retry-After" in (await refused(Code.TOO_MANY_FAILURES, right)).headers

    assert "ada" == (await authenticate(basic("ada", made.text), address=HOME)).name


async def test_where_no_password_is_taken_none_is_looked_at(house: House) -> None:
    """Right or wrong is not told, nothing is hashed, and nothing counted."""
    await house.person("ada")
    for password in (PASSWORD, "wrong") * 3:
        await refused(Code.TOKEN_INVALID, house.authenticator.authenticate(basic("ada", password)))

    assert not house.hasher.verified
    await house.passwords.owner("ada", PASSWORD, HOME)


# --- personal access tokens ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scopes", "scope"),
    [
        (("read",), Scope.READ), (("write",), Scope.WRITE), (("read", "delete"), Scope.DELETE),
        (("admin",), Scope.ADMIN), (("read", "write", "delete", "admin"), Scope.ADMIN),
    ],
)  # fmt: skip
@pytest.mark.parametrize("projects", [None, [], ["p", "q"]])
async def test_a_personal_token_restricts_its_user(
    house: House, scopes: tuple[str, ...], scope: Scope, projects: list[str] | None
) -> None:
    """To the farthest of its scopes, and to its projects: to none, if that is what it says."""
    user = await house.person("root", is_admin=True)
    made = await token_of(house, user, scopes=scopes, project_ids=projects)
    for header in (bearer(made.text), basic("root", made.text)):
        principal = await house.authenticator.authenticate(header)
        assert (user.id, True, scope) == (principal.user_id, principal.is_admin, principal.scope)
        assert (None if projects is None else frozenset(projects)) == principal.projects
        assert not principal.session


@pytest.mark.parametrize("kind", ["pat", "access"])
async def test_a_token_is_not_sent_under_another_name(house: House, kind: str) -> None:
    """As the password of Basic it goes with its own user's name, in any spelling."""
    await house.person("bob")
    token = (await secrets_of(house, await house.person("ada")))[kind]
    for name in ("bob", "", "nobody", "ada ", "аda"):
        await refused(
            Code.TOKEN_INVALID, house.authenticator.authenticate(basic(name, token), password=True)
        )

    assert "ada" == (await house.authenticator.authenticate(basic("ＡDA", token))).name
    assert not house.hasher.verified[1:]  # but for the login: a token is never taken for a password


async def test_a_personal_token_ends(house: House, clock: Clock) -> None:
    """To the second, when it said it would; one without an end does not."""
    user = await house.person("ada")
    made, lasting = (
        await token_of(house, user, expire_in=60),
        await token_of(house, user, expire_in=-1),
    )
    clock.now += 60
    assert await house.authenticator.authenticate(bearer(made.text))
    clock.now += 1
    for header in (bearer(made.text), basic("ada", made.text)):
        await refused(Code.PAT_INVALID, house.authenticator.authenticate(header))
    clock.now += 1e9

    assert await house.authenticator.authenticate(bearer(lasting.text))


async def test_the_last_use_is_noted_when_flushed(house: House, clock: Clock) -> None:
    """One write for many uses, with the time of the last one; refused uses are none."""
    user = await house.person("ada")
    used, unused = await token_of(house, user), await token_of(house, user)
    for _ in range(3):
        clock.now += 1
        await house.authenticator.authenticate(bearer(used.text))

    def last(made: NewToken) -> float | None:
        record = house.store.personal_token(made.token.hash)
        assert record is not None
        return record.last_used_at

    assert last(used) is None
    await house.authenticator.flush()
    assert (clock.now, None) == (last(used), last(unused))
    clock.now += 1
    await house.authenticator.flush()
    assert clock.now - 1 == last(used)


# --- tokens of the token server -----------------------------------------------------------------

Ending = Callable[[House, User, NewToken, str], Awaitable[object]]


async def _change_password(house: House, user: User, _: NewToken, __: str) -> None:
    await house.users.set_password(user.id, "a new password")


async def _disable(house: House, user: User, _: NewToken, __: str) -> None:
    await house.users.administer(user.id, is_active=False)


async def _remove(house: House, user: User, _: NewToken, __: str) -> None:
    await house.users.delete(user.id)


async def _delete_token(house: House, user: User, made: NewToken, _: str) -> None:
    await house.personal_tokens.delete(user.id, made.token.id)


async def _log_out(house: House, _: User, __: NewToken, session: str) -> None:
    await house.store.end_session(session)


async def _enrol(house: House, user: User, _: NewToken, __: str) -> None:
    await house.enrolled(user)


@pytest.mark.parametrize(
    ("ending", "ended"),
    [
        (_change_password, {"password", "access"}), (_disable, {"password", "access", "pat"}),
        (_remove, {"password", "access", "pat"}), (_delete_token, {"pat"}), (_log_out, {"access"}),
        (_enrol, {"password"}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["password", "access", "pat"])
async def test_a_token_ends_with_what_it_was_issued_for(
    house: House, kind: str, ending: Ending, ended: set[str]
) -> None:
    """Registry and identity tokens fall with their credential, and with nothing else."""
    user = await house.person("ada")
    login, made = await house.login(user), await token_of(house, user)
    header = {
        "password": basic("ada", PASSWORD),
        "access": bearer(login.access.text),
        "pat": bearer(made.text),
    }[kind]
    authenticator = house.authenticator
    principal = await authenticator.authenticate(header, password=True)
    registry = bearer(authenticator.issue_token(principal, GRANTS).text)
    identity = authenticator.issue_identity(principal)
    found = await authenticator.authenticate(registry, registry=True)
    assert principal._replace(grants=GRANTS) == found
    assert principal == authenticator.authenticate_identity(identity)

    await ending(house, user, made, (await house.principal(login)).session)
    call = authenticator.authenticate(registry, registry=True)
    if kind not in ended:
        assert principal._replace(grants=GRANTS) == await call
        assert principal == authenticator.authenticate_identity(identity)
        return
    code = Code.PAT_INVALID if kind == "pat" else Code.TOKEN_INVALID
    await refused(code, call)
    with pytest.raises(Refusal) as refusal:
        authenticator.authenticate_identity(identity)
    assert code is refusal.value.code


async def test_a_token_reaches_no_farther_than_its_credential(house: House) -> None:
    """Scope and projects of a personal access token hold for the tokens that it gets."""
    made = await token_of(house, await house.person("ada"), project_ids=["p"])
    principal = await house.authenticator.authenticate(bearer(made.text))
    token = house.authenticator.issue_token(principal, GRANTS)
    found = await house.authenticator.authenticate(bearer(token.text), registry=True)

    assert (Scope.READ, frozenset({"p"})) == (found.scope, found.projects)
    identity = house.authenticator.issue_identity(principal)
    again = house.authenticator.authenticate_identity(identity)
    assert (Scope.READ, frozenset({"p"})) == (again.scope, again.projects)


async def test_an_administrator_is_one_of_the_moment(house: House) -> None:
    """Tokens say who somebody is, not what they may: a demotion holds at once."""
    await house.person("root", is_admin=True)
    ada = await house.person("ada", is_admin=True)
    access = bearer((await house.login(ada)).access.text)
    principal = await house.authenticator.authenticate(access)
    registry = bearer(house.authenticator.issue_token(principal, GRANTS).text)
    assert principal.is_admin
    await house.users.administer(ada.id, is_admin=False)

    for header in (access, registry):
        assert not (await house.authenticator.authenticate(header, registry=True)).is_admin


async def test_nobody_has_tokens_too(house: House) -> None:
    """A token for nobody is nobody with grants; an identity nobody has."""
    token = house.authenticator.issue_token(ANONYMOUS, GRANTS)
    found = await house.authenticator.authenticate(bearer(token.text), registry=True)

    assert LIFETIMES.registry == token.lifetime
    assert ANONYMOUS._replace(grants=GRANTS) == found
    with pytest.raises(Refusal) as refusal:
        house.authenticator.issue_identity(ANONYMOUS)
    assert Code.TOKEN_INVALID is refusal.value.code


async def test_grace_is_for_registry_tokens_alone(house: House, clock: Clock) -> None:
    """For so long, and marked as expired; an access token past its time is refused."""
    login = await house.login(await house.person("ada"))
    principal: Principal = await house.principal(login)
    registry = bearer(house.authenticator.issue_token(principal, GRANTS).text)
    authenticate = house.authenticator.authenticate
    clock.now += LIFETIMES.registry + 61
    await refused(Code.TOKEN_EXPIRED, authenticate(registry, registry=True))
    found = await authenticate(registry, registry=True, grace=600)
    assert principal._replace(grants=GRANTS, is_expired=True) == found
    clock.now += 600
    await refused(Code.TOKEN_EXPIRED, authenticate(registry, registry=True, grace=600))

    access = bearer(login.access.text)
    for header in (access, basic("ada", login.access.text)):
        call = authenticate(header, registry=True, grace=1e9)
        await refused(Code.TOKEN_EXPIRED, call)


async def test_only_an_identity_token_is_an_identity(house: House) -> None:
    """Every other token, and every other text, is refused."""
    secrets = await secrets_of(house, await house.person("ada"))
    assert "ada" == house.authenticator.authenticate_identity(secrets.pop("identity")).name
    for text in (*secrets.values(), "", "x.y.z", "\ud800"):
        with pytest.raises(Refusal) as refusal:
            house.authenticator.authenticate_identity(text)
        assert Code.TOKEN_INVALID is refusal.value.code
