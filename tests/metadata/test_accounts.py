"""The contract of ``AccountStore``, clause by clause, for every engine."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from msgspec.structs import replace

from cypd.accounts.ports import AccountStore, Failures, PersonalToken, Session, User
from cypd.metadata.lmdb import LmdbMetadata
from cypd.metadata.memory import MemoryMetadata
from cypd.refusals import Code, Refusal
from tests.accounts.house import refused

WINDOW = 60.0
KEY, OTHER_KEY = b"k" * 16, b"o" * 16


def number(value: int) -> str:
    """Return a UUIDv4 that sorts as its number does."""
    return str(UUID(int=value << 96 | 4 << 76 | 8 << 60 | value))


def user(value: int, name: str, email: str = "", *, is_admin: bool = False) -> User:
    """Return a user."""
    return User(id=number(value), name=name, password_hash="h", email=email, is_admin=is_admin)


ADA, BOB = user(1, "ada", "ada@example.org", is_admin=True), user(2, "bob", "bob@example.org")


def token(value: int, owner: User = BOB, created_at: float = 1.0) -> PersonalToken:
    """Return a token, whose hash is made of its number."""
    return PersonalToken(
        id=number(100 + value),
        user_id=owner.id,
        name=f"token {value}",
        hash=value.to_bytes(32, "big"),
        scopes=("read",),
        created_at=created_at,
    )


def session(value: int, owner: User = BOB, expires_at: float = 100.0) -> Session:
    """Return a session with the refresh token ``first``."""
    return Session(
        id=number(200 + value),
        user_id=owner.id,
        refresh_id="first",
        created_at=1.0,
        expires_at=expires_at,
    )


@pytest.fixture(params=["memory", "lmdb"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AccountStore]:  # type: ignore[misc]
    """Each engine, with an administrator and a user."""
    metadata: MemoryMetadata | LmdbMetadata
    if request.param == "memory":
        metadata = MemoryMetadata()
    else:
        metadata = LmdbMetadata(tmp_path / "metadata", 16 << 20)
    await metadata.accounts.create_user(ADA)
    await metadata.accounts.create_user(BOB)
    yield metadata.accounts
    if isinstance(metadata, LmdbMetadata):
        metadata.close()


# --- users --------------------------------------------------------------------------------------


async def test_a_user_is_found_by_id_name_and_address(store: AccountStore) -> None:
    """All three lead to the same record, and the empty address to nobody."""
    await store.create_user(nobody := user(3, "nobody"))

    assert BOB == store.user(BOB.id) == store.user_by_name("bob")
    assert BOB == store.user_by_email("bob@example.org")
    assert nobody == store.user_by_name("nobody")
    assert store.user_by_email("") is None


@pytest.mark.parametrize(
    "text",
    ["", "a" * 1000, "é", "\0", "../x", "\ud800", "bob@example", BOB.id.replace("-", ""),
     f"{{{BOB.id}}}", f"urn:uuid:{BOB.id}", "٠" * 32, "Bob"],
)  # fmt: skip
async def test_any_text_may_be_asked_for(store: AccountStore, text: str) -> None:
    """What came from a request as an id, name or address is looked up as it is, never a fault."""
    assert store.user(text) is None
    assert store.user_by_name(text) is None
    assert store.user_by_email(text) is None
    assert store.session(text) is None
    assert not store.personal_tokens(text)


async def test_what_is_no_id_is_nobodys(store: AccountStore) -> None:
    """Asked for no id at all, none of the tokens and sessions of somebody answers or ends."""
    low = replace(BOB, id="00000000-0000-4000-8000-000000000001", name="low", email="")
    await store.create_user(low)
    await store.create_personal_token(token(1, low), limit=9)
    await store.open_session(session(1, low), password_hash="h")

    assert not store.personal_tokens("")
    await store.end_session("")
    await refused(Code.TOKEN_NOT_FOUND, store.delete_personal_token("", token(1).id))
    assert store.session(session(1).id) is not None


async def test_users_are_listed_by_name(store: AccountStore) -> None:
    """Ascending, at most so many, and only what comes after the given name."""
    await store.create_user(user(3, "abe"))

    assert ["abe", "ada", "bob"] == [it.name for it in store.users(after="", limit=9)]
    assert ["abe", "ada"] == [it.name for it in store.users(after="", limit=2)]
    assert ["bob"] == [it.name for it in store.users(after="ada", limit=9)]
    assert ["ada", "bob"] == [it.name for it in store.users(after="abf", limit=9)]
    assert not store.users(after="z" * 1000, limit=9)


@pytest.mark.parametrize(
    "newcomer", [user(3, "bob"), user(3, "new", "bob@example.org")], ids=["name", "address"]
)
async def test_names_and_addresses_are_given_once(store: AccountStore, newcomer: User) -> None:
    """A user whose name or address is in use is refused and leaves no trace."""
    await refused(Code.USER_EXISTS, store.create_user(newcomer))

    assert store.user(newcomer.id) is None
    assert store.user_by_name("new") is None
    assert BOB == store.user_by_name("bob")


async def test_of_two_at_once_one_gets_the_name(store: AccountStore) -> None:
    """Two that register the same name at the same time are not both told yes."""
    outcomes = await asyncio.gather(
        *(store.create_user(user(value, "new")) for value in (3, 4)), return_exceptions=True
    )

    assert 1 == sum(outcome is None for outcome in outcomes)


async def test_an_update_is_what_is_read(store: AccountStore) -> None:
    """The change is made to the user of the moment, stored, and returned."""
    changed = await store.update_user(BOB.id, lambda it: replace(it, nickname=it.name.upper()))

    assert replace(BOB, nickname="BOB") == changed == store.user(BOB.id)


async def test_no_update_is_lost(store: AccountStore) -> None:
    """Changes that are made at once are made one after the other."""
    await asyncio.gather(
        *(
            store.update_user(BOB.id, lambda it: replace(it, totp_step=it.totp_step + 1))
            for _ in range(20)
        )
    )
    found = store.user(BOB.id)

    assert found is not None
    assert 20 == found.totp_step


async def test_a_change_that_raises_changes_nothing(store: AccountStore) -> None:
    """What it raises is raised, the user stays, and so do the sessions."""
    await store.open_session(session(1), password_hash="h")

    def change(_: User) -> User:
        raise Refusal(Code.SECOND_FACTOR_WRONG)

    await refused(Code.SECOND_FACTOR_WRONG, store.update_user(BOB.id, change, sessions_left=""))
    assert BOB == store.user(BOB.id)
    assert session(1) == store.session(session(1).id)


async def test_an_address_moves(store: AccountStore) -> None:
    """A new address finds the user, the old one is free, and one in use is refused."""
    await store.update_user(BOB.id, lambda it: replace(it, email="new@example.org"))
    assert store.user_by_email("bob@example.org") is None
    await store.update_user(ADA.id, lambda it: replace(it, email="bob@example.org"))
    await refused(
        Code.USER_EXISTS,
        store.update_user(BOB.id, lambda it: replace(it, email="bob@example.org")),
    )
    await store.update_user(ADA.id, lambda it: replace(it, email=""))

    assert store.user_by_email("bob@example.org") is None
    found = store.user_by_email("new@example.org")
    assert found is not None
    assert BOB.id == found.id


async def test_an_update_ends_the_sessions_it_shall(store: AccountStore) -> None:
    """None by default, all but one where one is left, and all with none left: of that user only."""
    for it in (session(1), session(2), session(3), session(4, ADA)):
        await store.open_session(it, password_hash="h")

    async def left(**sessions: str) -> list[int]:
        await store.update_user(BOB.id, lambda it: it, **sessions)
        return [value for value in (1, 2, 3, 4) if store.session(session(value).id) is not None]

    assert [1, 2, 3, 4] == await left()
    assert [2, 4] == await left(sessions_left=session(2).id)
    assert [4] == await left(sessions_left="")


async def test_nobody_is_nothing_to_change(store: AccountStore) -> None:
    """An unknown user is neither changed nor removed."""
    for user_id in (number(9), "", "admin"):
        await refused(Code.USER_NOT_FOUND, store.update_user(user_id, lambda it: it))
        await refused(Code.USER_NOT_FOUND, store.delete_user(user_id))


async def test_an_active_administrator_is_left(store: AccountStore) -> None:
    """The last one is neither removed, nor disabled, nor demoted; a disabled one does not count."""
    demotions = (
        lambda it: replace(it, is_admin=False),
        lambda it: replace(it, is_active=False),
    )
    await store.update_user(BOB.id, lambda it: replace(it, is_admin=True, is_active=False))
    for change in demotions:
        await refused(Code.NOT_IN_THIS_STATE, store.update_user(ADA.id, change))
    await refused(Code.NOT_IN_THIS_STATE, store.delete_user(ADA.id))
    assert ADA == store.user(ADA.id)

    await store.update_user(BOB.id, lambda it: replace(it, is_active=True))
    for change in demotions:
        await store.update_user(ADA.id, change)
    await store.delete_user(ADA.id)
    await refused(Code.NOT_IN_THIS_STATE, store.delete_user(BOB.id))


async def test_a_removed_user_leaves_nothing(store: AccountStore) -> None:
    """Name, address, tokens and sessions go with them, and those of others stay."""
    await store.create_personal_token(token(1), limit=9)
    await store.create_personal_token(token(2, ADA), limit=9)
    await store.open_session(session(1), password_hash="h")
    await store.open_session(session(2, ADA), password_hash="h")
    await store.delete_user(BOB.id)

    assert store.user(BOB.id) is None
    assert store.user_by_name("bob") is None
    assert store.user_by_email("bob@example.org") is None
    assert [ADA] == list(store.users(after="", limit=9))
    assert store.personal_token(token(1).hash) is None
    assert not store.personal_tokens(BOB.id)
    assert store.session(session(1).id) is None
    assert token(2, ADA) == store.personal_token(token(2).hash)
    assert session(2, ADA) == store.session(session(2).id)
    await store.create_user(replace(BOB, id=number(3)))


# --- personal access tokens ---------------------------------------------------------------------


async def test_a_token_is_found_by_its_hash(store: AccountStore) -> None:
    """Also when its time is over; an unknown hash finds nothing."""
    old = replace(token(1), expires_at=0.5, project_ids=("p",))
    await store.create_personal_token(old, limit=9)

    assert old == store.personal_token(old.hash)
    assert store.personal_token(token(2).hash) is None


async def test_tokens_are_listed_newest_first(store: AccountStore) -> None:
    """A user's own alone, and of one moment in the order of their ids."""
    for value, moment in ((1, 1.0), (3, 2.0), (2, 2.0)):
        await store.create_personal_token(token(value, created_at=moment), limit=9)
    await store.create_personal_token(token(4, ADA), limit=9)

    assert ["token 2", "token 3", "token 1"] == [it.name for it in store.personal_tokens(BOB.id)]


async def test_tokens_of_one_user_are_bounded(store: AccountStore) -> None:
    """One too many is refused, also of many at once, and another user is not concerned."""
    outcomes = await asyncio.gather(
        *(store.create_personal_token(token(value), limit=2) for value in range(1, 6)),
        return_exceptions=True,
    )

    assert 2 == sum(outcome is None for outcome in outcomes)
    assert 2 == len(store.personal_tokens(BOB.id))
    await refused(Code.NOT_IN_THIS_STATE, store.create_personal_token(token(9), limit=2))
    assert store.personal_token(token(9).hash) is None
    await store.create_personal_token(token(9, ADA), limit=2)


async def test_a_removed_token_is_gone(store: AccountStore) -> None:
    """By its owner and once; to others it is not there."""
    await store.create_personal_token(token(1), limit=1)
    for owner, token_id in ((ADA.id, token(1).id), (BOB.id, token(2).id), ("", ""), (BOB.id, "x")):
        await refused(Code.TOKEN_NOT_FOUND, store.delete_personal_token(owner, token_id))
    await store.delete_personal_token(BOB.id, token(1).id)

    assert store.personal_token(token(1).hash) is None
    assert not store.personal_tokens(BOB.id)
    await refused(Code.TOKEN_NOT_FOUND, store.delete_personal_token(BOB.id, token(1).id))
    await store.create_personal_token(token(2), limit=1)


async def test_use_is_noted(store: AccountStore) -> None:
    """Of each token that is there; one that is gone does not come back."""
    await store.create_personal_token(token(1), limit=9)
    await store.touch_personal_tokens({token(1).hash: 5.0, token(2).hash: 6.0})

    assert [replace(token(1), last_used_at=5.0)] == list(store.personal_tokens(BOB.id))
    assert store.personal_token(token(2).hash) is None


# --- sessions -----------------------------------------------------------------------------------


async def test_a_session_opens_and_ends(store: AccountStore) -> None:
    """It is read as it was stored, and ending it twice is ending it."""
    await store.open_session(session(1), password_hash="h")
    assert session(1) == store.session(session(1).id)
    for _ in range(2):
        await store.end_session(session(1).id)
        assert store.session(session(1).id) is None


@pytest.mark.parametrize("changed", [{"password_hash": "other"}, {"is_active": False}])
async def test_a_proof_may_be_over(store: AccountStore, changed: dict[str, object]) -> None:
    """Who proved a password that is none any more, or is disabled or gone, opens no session."""
    await store.update_user(BOB.id, lambda it: replace(it, **changed), sessions_left="")
    assert not await store.open_session(session(1), password_hash="h")
    await store.delete_user(BOB.id)
    assert not await store.open_session(session(1), password_hash="h")
    assert store.session(session(1).id) is None


async def test_a_refresh_token_is_exchanged_once(store: AccountStore) -> None:
    """The valid one gives way to a new one; the one before ends the session."""
    await store.open_session(session(1), password_hash="h")
    assert await store.rotate_session(session(1).id, old="first", new="second", until=200.0)
    assert replace(session(1), refresh_id="second", expires_at=200.0) == store.session(
        session(1).id
    )
    assert not await store.rotate_session(session(1).id, old="first", new="third", until=300.0)
    assert store.session(session(1).id) is None
    assert not await store.rotate_session(session(1).id, old="second", new="third", until=300.0)


async def test_of_two_exchanges_at_once_one_succeeds(store: AccountStore) -> None:
    """And the session ends, as for any token that is used twice."""
    await store.open_session(session(1), password_hash="h")
    outcomes = await asyncio.gather(
        *(
            store.rotate_session(session(1).id, old="first", new=new, until=200.0)
            for new in ("second", "third")
        )
    )

    assert [False, True] == sorted(outcomes)
    assert store.session(session(1).id) is None


# --- failures -----------------------------------------------------------------------------------


async def test_failures_are_counted_by_key(store: AccountStore) -> None:
    """Each call counts one under each of its keys, from the first one's time; clearing forgets."""
    assert Failures(0, 0.0) == store.failures(KEY)
    await store.count_failure([KEY, OTHER_KEY], now=1010.0, window=WINDOW)
    await store.count_failure([KEY], now=1069.0, window=WINDOW)
    assert Failures(2, 1010.0) == store.failures(KEY)
    assert Failures(1, 1010.0) == store.failures(OTHER_KEY)
    for _ in range(2):
        await store.clear_failures(KEY)
        assert Failures(0, 0.0) == store.failures(KEY)


@pytest.mark.parametrize("later", [1070.0, 2000.0, 1009.0])
async def test_a_window_that_is_over_starts_anew(store: AccountStore, later: float) -> None:
    """Also one that lies in the future, because a clock was set back."""
    await store.count_failure([KEY], now=1010.0, window=WINDOW)
    await store.count_failure([KEY], now=later, window=WINDOW)

    assert Failures(1, later) == store.failures(KEY)


async def test_what_is_over_is_swept(store: AccountStore) -> None:
    """Sessions and failures whose time is over go, and the others stay."""
    for value, until in ((1, 1050.0), (2, 1050.5)):
        await store.open_session(session(value, expires_at=until), password_hash="h")
    await store.count_failure([KEY], now=1010.0, window=WINDOW)
    await store.sweep(now=1050.0, window=WINDOW)
    assert store.session(session(1).id) is None
    assert store.session(session(2).id) is not None
    assert Failures(1, 1010.0) == store.failures(KEY)

    await store.sweep(now=1070.0, window=WINDOW)
    assert Failures(0, 0.0) == store.failures(KEY)


async def test_much_that_is_over_is_swept(store: AccountStore) -> None:
    """However many there are: what is over goes, and what stands between it stays."""
    keys = [value.to_bytes(16, "big") for value in range(1200)]
    await store.count_failure(keys[::3], now=1000.0, window=WINDOW)
    await store.count_failure(keys[1::3], now=1050.0, window=WINDOW)
    await store.sweep(now=1060.0, window=WINDOW)

    assert {Failures(0, 0.0)} == {store.failures(key) for key in keys[::3]}
    assert {Failures(1, 1050.0)} == {store.failures(key) for key in keys[1::3]}


async def test_accounts_outlive_the_process(tmp_path: Path) -> None:
    """Everything is there after a restart."""
    first = LmdbMetadata(tmp_path / "metadata", 16 << 20)
    await first.accounts.create_user(BOB)
    await first.accounts.create_personal_token(token(1), limit=9)
    await first.accounts.open_session(session(1), password_hash="h")
    await first.accounts.count_failure([KEY], now=1010.0, window=WINDOW)
    first.close()
    second = LmdbMetadata(tmp_path / "metadata", 16 << 20)
    store = second.accounts

    assert BOB == store.user(BOB.id)
    assert token(1) == store.personal_token(token(1).hash)
    assert session(1) == store.session(session(1).id)
    assert Failures(1, 1010.0) == store.failures(KEY)
    second.close()


@pytest.mark.parametrize("secret", [replace(BOB, totp_secret="SECRET", password_hash="SECRET")])
def test_no_secret_is_in_a_repr(secret: User) -> None:
    """What may stand in a log or a traceback names a record and no more."""
    assert "SECRET" not in repr(secret)
    assert str(token(1).hash) not in repr(token(1))
