"""Everything about accounts, put together over one store, with hashes that cost nothing."""

import time
from collections.abc import Awaitable
from hashlib import sha256
from typing import Any

import pyotp
import pytest

from cypd.access import Principal
from cypd.accounts.passwords import Passwords
from cypd.accounts.personal_tokens import PersonalTokens
from cypd.accounts.ports import AccountStore, User
from cypd.accounts.second_factor import SecondFactor
from cypd.accounts.sessions import Login, Sessions
from cypd.accounts.throttle import Throttle
from cypd.accounts.users import Users
from cypd.auth.authenticator import UserAuthenticator
from cypd.auth.tokens import Lifetimes, Tokens
from cypd.refusals import Code, Refusal

KEY = "k" * 64
HOME, ELSEWHERE = "192.0.2.1", "198.51.100.7"
PASSWORD = "päss:word"
LIFETIMES = Lifetimes(access=900, refresh=86400, registry=300)
WINDOW = 600.0


class Clock:
    """The time of day, stopped until it is moved."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_800_000_000.0
        monkeypatch.setattr(time, "time", lambda: self.now)


class CheapHasher:
    """A ``Hasher`` that notes which passwords it was given to verify."""

    def __init__(self) -> None:
        self.verified: list[str] = []

    async def hash(self, password: str) -> str:
        return sha256(password.encode()).hexdigest()

    async def verify(self, password_hash: str, password: str) -> bool:
        self.verified.append(password)
        return password_hash == sha256(password.encode()).hexdigest()


class House:
    """All objects, composed as the daemon composes them."""

    def __init__(self, store: AccountStore, *, per_account: int = 3, per_address: int = 8) -> None:
        self.store = store
        self.hasher = CheapHasher()
        self.throttle = Throttle(store, per_account, per_address, WINDOW)
        self.passwords = Passwords(store, self.hasher, self.throttle, decoy="of nothing")
        self.second_factor = SecondFactor(store, self.passwords, self.throttle)
        self.tokens = Tokens(KEY, LIFETIMES)
        self.sessions = Sessions(store, self.passwords, self.second_factor, self.tokens)
        self.users = Users(store, self.passwords, self.hasher, is_open=True)
        self.personal_tokens = PersonalTokens(store)
        self.authenticator = UserAuthenticator(store, self.passwords, self.tokens)

    async def person(self, name: str = "ada", email: str = "", **more: Any) -> User:
        """Make a user whose password is ``PASSWORD``."""
        return await self.users.create(name, email, PASSWORD, **more)

    async def login(self, user: User) -> Login:
        """Open a session of a user without a second factor."""
        login = await self.sessions.login(user.name, PASSWORD, HOME)
        assert isinstance(login, Login)
        return login

    async def principal(self, login: Login) -> Principal:
        """Return who sends a session's access token."""
        return await self.authenticator.authenticate(f"Bearer {login.access.text}")

    async def enrolled(self, user: User) -> tuple[pyotp.TOTP, list[str]]:
        """Give a user a second factor; return it and the recovery codes."""
        totp = pyotp.TOTP((await self.second_factor.enrol(user.id)).secret)
        return totp, await self.second_factor.activate(user.id, code_at(totp, -1))


def code_at(totp: pyotp.TOTP, step: int = 0) -> str:
    """Return the code of a time step, counted from that of now."""
    return totp.generate_otp(int(time.time()) // 30 + step)


async def refused(code: Code, call: Awaitable[object]) -> Refusal:
    """Assert that a call is refused with that code, and return the refusal."""
    with pytest.raises(Refusal) as refusal:
        await call
    assert code is refusal.value.code
    return refusal.value
