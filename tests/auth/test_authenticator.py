"""HTTP Basic: who is let in, who is not, and what it costs."""

import asyncio
import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cypd.access import ANONYMOUS, Principal
from cypd.accounts.ports import User
from cypd.auth import authenticator as authenticators
from cypd.auth.authenticator import UserAuthenticator
from cypd.auth.passwords import hash_password, verify_password
from cypd.metadata.memory.accounts import MemoryAccounts
from cypd.oci.errors import Code, OCIError
from tests.daemon import basic

PASSWORD = "päss:word"
KEY = "0" * 64


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Passwords are compared as they are, and each comparison is noted: argon2id is slow."""
    noted: list[str] = []

    def verify(password_hash: str, password: str) -> bool:
        noted.append(password)
        return password_hash == f"hash of {password}"

    monkeypatch.setattr(authenticators, "verify_password", verify)
    monkeypatch.setattr(authenticators, "hash_password", lambda password: f"hash of {password}")
    return noted


async def users() -> MemoryAccounts:
    """Return a store with one administrator and one other user."""
    store = MemoryAccounts()
    await store.put_user(User("admin", f"hash of {PASSWORD}", is_admin=True))
    await store.put_user(User("other", "hash of other"))
    return store


async def test_the_right_password_is_who_it_says(checks: list[str]) -> None:
    """Each user is themself, an administrator only if they are one; no header is nobody."""
    authenticator = UserAuthenticator(await users(), KEY)

    assert Principal("admin", "admin", is_admin=True) == await authenticator.authenticate(
        basic("admin", PASSWORD)
    )
    assert Principal("other", "other") == await authenticator.authenticate(basic("other", "other"))
    assert ANONYMOUS == await authenticator.authenticate(None)


@pytest.mark.parametrize(
    "header",
    [
        "", "Basic", "Basic ", "Basic !!!", "Bearer token", "basic" + "x" * 100_000,
        "Basic " + base64.b64encode(b"no colon").decode(),
        "Basic " + base64.b64encode(b"\xff\xfe:x").decode(),
        basic("admin", "wrong"), basic("nobody", PASSWORD), basic("", ""), basic("admin", ""),
        basic("admin", PASSWORD + "\0"), basic("Admin", PASSWORD), basic("admin\0", PASSWORD),
        basic("admin", "x" * 100_000), basic("x" * 100_000, "x"),
        f"{basic('admin', PASSWORD)}, {basic('admin', PASSWORD)}",
    ],
)  # fmt: skip
async def test_anything_else_is_refused(checks: list[str], header: str) -> None:
    """Wrong or malformed credentials are 401, and never anonymous."""
    authenticator = UserAuthenticator(await users(), KEY)
    with pytest.raises(OCIError) as refusal:
        await authenticator.authenticate(header)

    assert refusal.value.code is Code.UNAUTHORIZED
    assert refusal.value.status == 401


@given(st.text(max_size=40) | st.binary(max_size=40).map(lambda raw: "Basic " + raw.hex()))
async def test_no_header_is_a_fault_of_ours(header: str) -> None:
    """Whatever stands in the header, it is a user or a 401."""
    authenticator = UserAuthenticator(MemoryAccounts(), KEY)
    with pytest.raises(OCIError):
        await authenticator.authenticate(header.encode("latin-1", "replace").decode("latin-1"))


async def test_an_unknown_name_costs_what_a_wrong_password_costs(checks: list[str]) -> None:
    """Both are checked against a hash, so that time does not tell names apart."""
    authenticator = UserAuthenticator(await users(), KEY)
    for name in ("admin", "nobody"):
        with pytest.raises(OCIError):
            await authenticator.authenticate(basic(name, "wrong"))

    assert checks == ["wrong", "wrong"]


async def test_a_right_password_is_remembered_for_a_while(
    checks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job's hundred requests cost one hash a minute; a wrong password is never remembered."""
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    authenticator = UserAuthenticator(await users(), KEY)
    for _ in range(100):
        await authenticator.authenticate(basic("admin", PASSWORD))
    assert checks == [PASSWORD]
    now += 61
    await authenticator.authenticate(basic("admin", PASSWORD))
    assert checks == [PASSWORD] * 2


async def test_many_at_once_cost_one_hash(checks: list[str]) -> None:
    """Sixteen connections of one job wait for one check; one that goes away spoils it for none."""
    authenticator = UserAuthenticator(await users(), KEY)
    asked = [
        asyncio.ensure_future(authenticator.authenticate(basic("admin", PASSWORD)))
        for _ in range(16)
    ]
    await asyncio.sleep(0)
    asked[0].cancel()
    answers = await asyncio.gather(*asked, return_exceptions=True)

    assert checks == [PASSWORD]
    assert [Principal("admin", "admin", is_admin=True)] * 15 == answers[1:]


async def test_a_changed_password_is_forgotten_at_once(checks: list[str]) -> None:
    """The old password stops with the write that changed it, whichever process made it."""
    store = await users()
    authenticator = UserAuthenticator(store, KEY)
    await authenticator.authenticate(basic("admin", PASSWORD))
    await store.put_user(User("admin", "hash of new", is_admin=True))
    with pytest.raises(OCIError):
        await authenticator.authenticate(basic("admin", PASSWORD))

    assert await authenticator.authenticate(basic("admin", "new"))


async def test_the_memory_of_passwords_is_bounded(
    checks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest entry goes first, and nothing in it can be read as a password."""
    monkeypatch.setattr(authenticators, "_CACHE_ENTRIES", 1)
    authenticator = UserAuthenticator(await users(), KEY)
    for _ in range(2):
        await authenticator.authenticate(basic("admin", PASSWORD))
        await authenticator.authenticate(basic("other", "other"))

    assert len(checks) == 4
    assert PASSWORD not in repr(vars(authenticator))


def test_passwords_are_argon2id() -> None:
    """The parameters are RFC 9106's; a hash that is none never matches."""
    password_hash = hash_password(PASSWORD)

    assert password_hash.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert verify_password(password_hash, PASSWORD)
    assert not verify_password(password_hash, "other")
    assert not verify_password("nonsense", PASSWORD)
