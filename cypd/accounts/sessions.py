"""Signing in, staying signed in, and leaving."""

import time
import uuid
from typing import NamedTuple

from cypd.access import Principal
from cypd.accounts.passwords import Passwords
from cypd.accounts.ports import AccountStore, Issued, Issuer, Session, User
from cypd.accounts.second_factor import SecondFactor
from cypd.refusals import Code, Refusal


class Login(NamedTuple):
    """What somebody gets who has signed in."""

    user: User
    access: Issued
    refresh: Issued


class HalfLogin(NamedTuple):
    """What somebody gets whose second factor is still to be proved."""

    mfa: Issued


class Sessions:
    """A session is two tokens at a time; both end with it, at once."""

    def __init__(
        self,
        store: AccountStore,
        passwords: Passwords,
        second_factor: SecondFactor,
        issuer: Issuer,
    ) -> None:
        self._store = store
        self._passwords = passwords
        self._second_factor = second_factor
        self._issuer = issuer

    async def login(self, login: str, password: str, address: str) -> Login | HalfLogin:
        """Open a session for the user of that name or email address; raises as ``Passwords``."""
        user = await self._passwords.owner(login, password, address)
        if user.has_second_factor:
            return HalfLogin(self._issuer.issue_mfa(user))
        return await self._open(user, Code.WRONG_PASSWORD)

    async def verify(self, token: str, code: str, address: str) -> Login:
        """Open the session of a half login; ``code``: of the second factor, or for recovery.

        Raises TOKEN_INVALID, TOKEN_EXPIRED, SECOND_FACTOR_WRONG, and as the throttle does.
        """
        user_id, mark = self._issuer.mfa_claims(token)
        user = self._store.user(user_id)
        if user is None or not user.is_active or not user.has_second_factor:
            raise Refusal(Code.TOKEN_INVALID)
        if user.password_mark != mark:  # what was proved is no proof any more
            raise Refusal(Code.TOKEN_INVALID)
        user = await self._second_factor.consume(user, code, address)
        return await self._open(user, Code.TOKEN_INVALID)

    async def refresh(self, token: str) -> Login:
        """Exchange a refresh token for new tokens; raise REFRESH_TOKEN_INVALID.

        One that was exchanged before was stolen, or is being used by a thief's victim: nobody
        knows, so the session ends (RFC 9700 section 4.14.2).
        """
        user_id, session_id, token_id = self._issuer.refresh_claims(token)
        user = self._store.user(user_id)
        if user is None or not user.is_active:
            raise Refusal(Code.REFRESH_TOKEN_INVALID)
        login = self._tokens(user, session_id)
        until = float(login.refresh.expires_at)
        if not await self._store.rotate_session(
            session_id, old=token_id, new=login.refresh.id, until=until
        ):
            raise Refusal(Code.REFRESH_TOKEN_INVALID)
        return login

    async def logout(self, principal: Principal) -> None:
        """End the principal's session; raise NOT_IN_THIS_STATE if it came by no session."""
        if not principal.session:
            raise Refusal(Code.NOT_IN_THIS_STATE)
        await self._store.end_session(principal.session)

    async def _open(self, user: User, proof_is_over: Code) -> Login:
        session_id = str(uuid.uuid4())
        login = self._tokens(user, session_id)
        session = Session(
            id=session_id,
            user_id=user.id,
            refresh_id=login.refresh.id,
            created_at=time.time(),
            expires_at=float(login.refresh.expires_at),
        )
        if not await self._store.open_session(session, password_hash=user.password_hash):
            raise Refusal(proof_is_over)
        return login

    def _tokens(self, user: User, session_id: str) -> Login:
        access = self._issuer.issue_access(user, session_id)
        return Login(user, access, self._issuer.issue_refresh(user, session_id))
