"""Who sent a request: Bearer (RFC 6750) with a token, or Basic (RFC 7617) with one or a password.

Whatever is sent, and however: it is worth what its user, session, password or personal access token
is worth at this moment.
"""

import re
import time
from base64 import b64decode
from collections.abc import Callable
from hashlib import sha256

from cypd.access import (
    ANONYMOUS,
    SCAN_CREDENTIAL,
    Grant,
    Principal,
    Scope,
    Token,
)
from cypd.accounts.names import canonical
from cypd.accounts.passwords import Passwords
from cypd.accounts.ports import AccountStore, PersonalToken, User
from cypd.auth.tokens import Claims, Tokens, TokenType, is_over
from cypd.refusals import Code, Refusal

_PAT = re.compile(r"pat_v1_[0-9a-f]{64}", re.ASCII)
# Base64 of {", as each starts: a password may well be three words with dots between them.
_JWT = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)
_MAX_NAME = 255
_SCOPES = {scope.name.lower(): scope for scope in Scope}


class UserAuthenticator:
    """The ``Authenticator`` over accounts.

    ``is_scanning`` tells whether the scan of an id runs: for as long its own token is good.
    """

    def __init__(
        self,
        store: AccountStore,
        passwords: Passwords,
        tokens: Tokens,
        is_scanning: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._is_scanning = is_scanning
        self._store = store
        self._passwords = passwords
        self._tokens = tokens
        self._used: dict[bytes, float] = {}

    async def authenticate(
        self,
        authorization: str | None,
        *,
        address: str = "",
        password: bool = False,
        registry: bool = False,
        grace: float = 0.0,
    ) -> Principal:
        if authorization is None:
            return ANONYMOUS
        scheme, _, credentials = authorization.partition(" ")
        if scheme.lower() == "bearer":
            return self._by_token(credentials.strip(), registry=registry, grace=grace)
        if scheme.lower() != "basic":
            raise Refusal(Code.TOKEN_INVALID)
        name, secret = _decoded(credentials)
        if _PAT.fullmatch(secret) or _JWT.fullmatch(secret):
            return self._by_own_token(name, secret)
        if not password:
            raise Refusal(Code.TOKEN_INVALID)
        return await self._by_password(name, secret, address)

    # --- each kind of credential ----------------------------------------------------------------

    async def _by_password(self, name: str, password: str, address: str) -> Principal:
        user = await self._passwords.owner(name, password, address)
        if user.has_second_factor:
            raise Refusal(Code.SECOND_FACTOR_REQUIRED)
        return _principal(user, _password_credential(user))

    def _by_own_token(self, name: str, token: str) -> Principal:
        principal = self._by_token(token)
        if principal.name != canonical(name):
            raise Refusal(Code.TOKEN_INVALID)
        return principal

    def _by_token(self, token: str, *, registry: bool = False, grace: float = 0.0) -> Principal:
        if _PAT.fullmatch(token):
            return self._by_personal_token(sha256(token.encode()).digest())
        kinds = (TokenType.ACCESS, TokenType.REGISTRY) if registry else (TokenType.ACCESS,)
        claims = self._tokens.verify(token, *kinds, grace=grace)
        if claims.token_type is TokenType.REGISTRY:
            return self._by_registry_token(claims)
        if is_over(claims):
            raise Refusal(Code.TOKEN_EXPIRED)  # grace is for the token server's alone
        return self._by_session(claims.user_id, claims.sid)

    def _by_registry_token(self, claims: Claims) -> Principal:
        principal = self._by_credential(claims) if claims.credential else ANONYMOUS
        return principal._replace(grants=claims.grants(), is_expired=is_over(claims))

    def _by_credential(self, claims: Claims) -> Principal:
        """Return whose token it is, if what it was issued for still stands."""
        kind, _, value = claims.credential.partition(":")
        if kind == "pat":
            principal = self._by_personal_token(bytes.fromhex(value))
        elif kind == "sid":
            principal = self._by_session(claims.user_id, value)
        elif f"{kind}:" == SCAN_CREDENTIAL:
            principal = self._by_scan(value)
        else:
            user = self._active(claims.user_id)
            if claims.credential != _password_credential(user) or user.has_second_factor:
                raise Refusal(Code.TOKEN_INVALID)
            principal = _principal(user, claims.credential)
        return principal

    def _by_session(self, user_id: str, session_id: str) -> Principal:
        session = self._store.session(session_id)
        if session is None or session.user_id != user_id or session.expires_at < time.time():
            raise Refusal(Code.TOKEN_INVALID)
        return _principal(self._active(user_id), f"sid:{session_id}", session=session_id)

    def _by_scan(self, scan_id: str) -> Principal:
        """Return who a scan is: it reads, whatever its token was granted for."""
        if not self._is_scanning(scan_id):
            raise Refusal(Code.TOKEN_INVALID)
        credential = f"{SCAN_CREDENTIAL}{scan_id}"
        return Principal("", "scanner", is_admin=True, scope=Scope.READ, credential=credential)

    def _by_personal_token(self, token_hash: bytes) -> Principal:
        token = self._store.personal_token(token_hash)
        now = time.time()
        if token is None or (token.expires_at is not None and token.expires_at < now):
            raise Refusal(Code.PAT_INVALID)
        user = self._store.user(token.user_id)
        if user is None or not user.is_active:
            raise Refusal(Code.PAT_INVALID)
        self._used[token_hash] = now
        return _restricted(_principal(user, f"pat:{token_hash.hex()}"), token)

    def _active(self, user_id: str) -> User:
        user = self._store.user(user_id)
        if user is None or not user.is_active:
            raise Refusal(Code.TOKEN_INVALID)
        return user

    # --- the token server -----------------------------------------------------------------------

    def issue_token(self, principal: Principal, grants: tuple[Grant, ...]) -> Token:
        user = self._store.user(principal.user_id)
        return self._tokens.issue_registry(user, grants, principal.credential)

    def issue_scan_token(self, scan_id: str, repository: str) -> str:
        """Return a token for a scan that runs, to pull what it is to look at."""
        grant = Grant(repository, frozenset({"pull"}))
        return self._tokens.issue_registry(None, (grant,), f"{SCAN_CREDENTIAL}{scan_id}").text

    def issue_identity(self, principal: Principal) -> str:
        user = self._active(principal.user_id)
        return self._tokens.issue_identity(user, principal.credential).text

    def authenticate_identity(self, token: str) -> Principal:
        return self._by_credential(self._tokens.verify(token, TokenType.IDENTITY))

    # --- when tokens were last used -------------------------------------------------------------

    async def flush(self) -> None:
        """Note when personal access tokens were last used: many at a time, never for each use."""
        if self._used:
            used, self._used = self._used, {}
            await self._store.touch_personal_tokens(used)


def _principal(user: User, credential: str, session: str = "") -> Principal:
    return Principal(
        user_id=user.id,
        name=user.name,
        is_admin=user.is_admin,
        credential=credential,
        session=session,
    )


def _restricted(principal: Principal, token: PersonalToken) -> Principal:
    return principal._replace(
        scope=max(_SCOPES[scope] for scope in token.scopes),
        projects=None if token.project_ids is None else frozenset(token.project_ids),
    )


def _password_credential(user: User) -> str:
    return f"pwd:{user.password_mark}"


def _decoded(encoded: str) -> tuple[str, str]:
    try:
        name, colon, secret = b64decode(encoded.strip(), validate=True).decode().partition(":")
    except ValueError:  # not ASCII, not base64 (binascii.Error), not UTF-8: all are of this type
        raise Refusal(Code.WRONG_PASSWORD) from None
    if not colon or len(name) > _MAX_NAME:
        raise Refusal(Code.WRONG_PASSWORD)
    return name, secret
