"""Signing in and out: ``/api/v1/auth``."""

import time
from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from cypd.access import Scope
from cypd.accounts.sessions import HalfLogin, Login, Sessions
from cypd.accounts.users import Users
from cypd.api.people import Code as FactorCode
from cypd.api.people import Name, Nickname, Password, Profile, profile
from cypd.api.routes import OPEN, PREFIX, Answer, Call, Input, Route, signed_in
from cypd.refusals import Code, Refusal, invalid

_THROTTLED = (Code.TOO_MANY_FAILURES, Code.ADDRESS_BLOCKED, Code.TOO_MANY_REQUESTS)


class Credentials(Input, frozen=True):
    """Who signs in: by name or by email address."""

    password: Password
    username: Name | UnsetType = UNSET
    email: Name | UnsetType = UNSET


class Registration(Input, frozen=True):
    """A new account."""

    username: Name
    password: Password
    email: Name
    nickname: Nickname = ""


class RefreshToken(Input, frozen=True):
    """What a session goes on with."""

    refresh_token: Annotated[str, Meta(min_length=1, max_length=16384)]


class Proof(Input, frozen=True):
    """A code of the second factor, or one for recovery; the token here or as Bearer."""

    code: FactorCode | UnsetType = UNSET
    recovery_code: FactorCode | UnsetType = UNSET
    mfa_token: Annotated[str, Meta(min_length=1, max_length=16384)] | UnsetType = UNSET


class SignedIn(Answer, frozen=True):
    """A session's two tokens."""

    access_token: str
    refresh_token: str
    token_type: str
    expires_in: int
    """Seconds."""
    expires_at: int
    """Unix seconds."""
    user: Profile


class HalfSignedIn(Answer, frozen=True):
    """The password was right; ``auth/mfa/verify`` wants the second factor."""

    mfa_required: bool
    mfa_token: str
    expires_at: int
    """Unix seconds."""


class Auth:
    """The handlers."""

    def __init__(self, sessions: Sessions, users: Users) -> None:
        self._sessions = sessions
        self._users = users

    def routes(self) -> list[Route]:
        """Return what the API serves of it."""
        password = (Code.WRONG_PASSWORD, Code.ACCOUNT_DISABLED, *_THROTTLED)
        factor = (Code.TOKEN_INVALID, Code.TOKEN_EXPIRED, Code.SECOND_FACTOR_WRONG, *_THROTTLED)
        return [
            Route(
                "POST", f"{PREFIX}/auth/login", self.login, OPEN,
                body=Credentials, answer=SignedIn | HalfSignedIn, refusals=password,
                tag="auth", summary="Sign in with a password",
            ),
            Route(
                "POST", f"{PREFIX}/auth/register", self.register, OPEN,
                body=Registration, answer=Profile, status=201,
                refusals=(Code.ACCESS_DENIED, Code.USER_EXISTS, Code.TOO_MANY_REQUESTS),
                tag="auth", summary="Make an account, where the registry lets everybody",
            ),
            Route(
                "POST", f"{PREFIX}/auth/refresh", self.refresh, OPEN,
                body=RefreshToken, answer=SignedIn, refusals=(Code.REFRESH_TOKEN_INVALID,),
                is_routine=True,
                tag="auth", summary="Exchange a refresh token for new tokens; each works once",
            ),
            Route(
                "POST", f"{PREFIX}/auth/logout", self.logout, signed_in(Scope.READ),
                refusals=(Code.NOT_IN_THIS_STATE,),
                tag="auth", summary="End the session whose access token this is",
            ),
            Route(
                "POST", f"{PREFIX}/auth/mfa/verify", self.verify, OPEN,
                body=Proof, answer=SignedIn, refusals=factor,
                tag="auth", summary="Finish signing in with the second factor",
            ),
        ]  # fmt: skip

    async def login(self, call: Call, body: Credentials) -> SignedIn | HalfSignedIn:
        """Check a password."""
        if (body.username is UNSET) == (body.email is UNSET):
            raise invalid("username", "either username or email", Code.MISSING_PARAMETER)
        name = body.email if isinstance(body.email, str) else str(body.username)
        login = await self._sessions.login(name, body.password, call.address)
        if isinstance(login, HalfLogin):
            issued = login.mfa
            return HalfSignedIn(
                mfa_required=True, mfa_token=issued.text, expires_at=issued.expires_at
            )
        return _signed_in(login)

    async def register(self, call: Call, body: Registration) -> Profile:
        """Make an account."""
        user = await self._users.register(body.username, body.email, body.password, body.nickname)
        return profile(user)

    async def refresh(self, call: Call, body: RefreshToken) -> SignedIn:
        """Exchange a refresh token."""
        return _signed_in(await self._sessions.refresh(body.refresh_token))

    async def logout(self, call: Call) -> None:
        """End a session."""
        await self._sessions.logout(call.principal)

    async def verify(self, call: Call, body: Proof) -> SignedIn:
        """Check a code."""
        code = body.code if isinstance(body.code, str) else body.recovery_code
        if not isinstance(code, str) or UNSET not in (body.code, body.recovery_code):
            raise invalid("code", "either code or recovery_code", Code.MISSING_PARAMETER)
        token = body.mfa_token if isinstance(body.mfa_token, str) else _bearer(call)
        return _signed_in(await self._sessions.verify(token, code, call.address))


def _bearer(call: Call) -> str:
    scheme, _, token = (call.authorization or "").partition(" ")
    if scheme.lower() != "bearer":
        raise Refusal(Code.TOKEN_INVALID)
    return token.strip()


def _signed_in(login: Login) -> SignedIn:
    return SignedIn(
        access_token=login.access.text,
        refresh_token=login.refresh.text,
        token_type="Bearer",  # noqa: S106 (the word of RFC 6750)
        expires_in=max(0, login.access.expires_at - int(time.time())),
        expires_at=login.access.expires_at,
        user=profile(login.user),
    )
