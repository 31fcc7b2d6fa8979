"""Signed tokens: JWT of one fixed form, made by this registry for this registry.

Says what a token is, never what it is worth: whether its session, password or user still stands is
the authenticator's question, at each request.
"""

import re
import secrets
import time
import uuid
from collections import OrderedDict
from enum import Enum
from hashlib import blake2b
from typing import Annotated, Any

import jwt
import msgspec
from msgspec import Meta

from cypd.access import Grant, Token
from cypd.accounts.ports import Issued, User
from cypd.refusals import Code, Refusal

_ALGORITHM = "HS256"
# What stands before the first dot of every token that was made here. Nothing in a header is ever
# looked at: not alg, kid, jwk, jku, x5c, crit (CVE-2025-24976, CVE-2026-32597, CVE-2022-29217).
_HEADER = jwt.encode({}, "k" * 32, _ALGORITHM).partition(".")[0]
# 43 characters of base64 hold 258 bits: the last two are zero, so that a token has one spelling.
_FORM = re.compile(rf"{_HEADER}\.[\w-]+\.[\w-]{{42}}[AEIMQUYcgkosw048]", re.ASCII)
_SELF = "cypd"
_LEEWAY = 60
_MAX_BYTES = 16 << 10
_MFA_SECONDS = 300
_MEMORY_ENTRIES = 4096

_Time = Annotated[int, Meta(ge=0, lt=1 << 40)]


class TokenType(Enum):
    """What a token is for; none is taken where another belongs."""

    ACCESS = "access"
    REFRESH = "refresh"
    MFA = "mfa"
    REGISTRY = "registry"
    IDENTITY = "identity"


class _Access(msgspec.Struct, frozen=True):
    name: str
    actions: frozenset[str]
    type: str = "repository"


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """What a token says; times are unix seconds."""

    iss: str = _SELF
    aud: str = _SELF
    sub: str
    """The user's id; ``""`` for nobody."""
    exp: _Time
    iat: _Time
    nbf: _Time
    jti: str
    sid: str = ""
    user_id: str
    username: str
    token_type: TokenType
    credential: str = ""
    """What has to stand for the token to stand: see ``Principal.credential``."""
    access: tuple[_Access, ...] = ()

    def grants(self) -> tuple[Grant, ...]:
        """Return what a registry token was issued for."""
        return tuple(Grant(it.name, it.actions) for it in self.access)


class Lifetimes(msgspec.Struct, frozen=True):
    """Seconds that tokens are good for."""

    access: float
    refresh: float
    registry: float


class Tokens:
    """Issues and verifies tokens with one key."""

    def __init__(self, key: str, lifetimes: Lifetimes) -> None:
        self._key = key
        self._lifetimes = lifetimes
        self._memory: OrderedDict[bytes, Claims] = OrderedDict()
        self._memory_key = secrets.token_bytes(32)

    # --- issuing --------------------------------------------------------------------------------

    def issue_access(self, user: User, session_id: str) -> Issued:
        return self._issue(TokenType.ACCESS, user, self._lifetimes.access, sid=session_id)

    def issue_refresh(self, user: User, session_id: str) -> Issued:
        return self._issue(TokenType.REFRESH, user, self._lifetimes.refresh, sid=session_id)

    def issue_mfa(self, user: User) -> Issued:
        return self._issue(TokenType.MFA, user, _MFA_SECONDS, credential=user.password_mark)

    def issue_registry(
        self, user: User | None, grants: tuple[Grant, ...], credential: str
    ) -> Token:
        """Return a token of the token server, for a user or for nobody."""
        lifetime = self._lifetimes.registry
        access = tuple(_Access(name, actions) for name, actions in grants)
        more = {"credential": credential, "access": access}
        issued = self._issue(TokenType.REGISTRY, user, lifetime, **more)
        return Token(issued.text, int(lifetime))

    def issue_identity(self, user: User, credential: str) -> Issued:
        """Return a refresh token of the token server."""
        lifetime = self._lifetimes.refresh
        return self._issue(TokenType.IDENTITY, user, lifetime, credential=credential)

    def _issue(self, kind: TokenType, user: User | None, lifetime: float, **more: Any) -> Issued:
        now = int(time.time())
        claims = Claims(
            sub=user.id if user else "",
            user_id=user.id if user else "",
            username=user.name if user else "",
            iat=now,
            nbf=now,
            exp=now + int(lifetime),
            jti=str(uuid.uuid4()),
            token_type=kind,
            **more,
        )
        text = jwt.encode(msgspec.to_builtins(claims), self._key, _ALGORITHM)
        return Issued(text, claims.jti, claims.exp)

    # --- verifying ------------------------------------------------------------------------------

    def verify(self, token: str, *kinds: TokenType, grace: float = 0.0) -> Claims:
        """Return what a token of one of these kinds says.

        Raises TOKEN_INVALID unless this registry made it, for one of them; TOKEN_EXPIRED if its
        time has been over for more than ``grace`` seconds.
        """
        claims = self._claims(token)
        now = time.time()
        if claims.token_type not in kinds or max(claims.nbf, claims.iat) > now + _LEEWAY:
            raise Refusal(Code.TOKEN_INVALID)
        if is_over(claims, by=grace):
            raise Refusal(Code.TOKEN_EXPIRED)
        return claims

    def refresh_claims(self, token: str) -> tuple[str, str, str]:
        try:
            claims = self.verify(token, TokenType.REFRESH)
        except Refusal:
            raise Refusal(Code.REFRESH_TOKEN_INVALID) from None
        return claims.user_id, claims.sid, claims.jti

    def mfa_claims(self, token: str) -> tuple[str, str]:
        claims = self.verify(token, TokenType.MFA)
        return claims.user_id, claims.credential

    def _claims(self, token: str) -> Claims:
        """Verify form and signature, or remember that this has been done."""
        text = token.encode(errors="replace")
        proof = blake2b(text, key=self._memory_key, digest_size=32).digest()
        known = self._memory.get(proof)
        if known is None:
            known = self._decode(token)
            self._memory[proof] = known
            if len(self._memory) > _MEMORY_ENTRIES:
                self._memory.popitem(last=False)
        return known

    def _decode(self, token: str) -> Claims:
        if len(token) > _MAX_BYTES or not _FORM.fullmatch(token):
            raise Refusal(Code.TOKEN_INVALID)
        try:
            # Times are checked where they are needed; that they are there and numbers, by Claims.
            payload = jwt.decode(
                token,
                self._key,
                algorithms=[_ALGORITHM],
                audience=_SELF,
                issuer=_SELF,
                options={
                    "strict_aud": True,
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
            return msgspec.convert(payload, Claims)
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            raise Refusal(Code.TOKEN_INVALID) from None


def is_over(claims: Claims, *, by: float = 0.0) -> bool:
    """Tell whether a token's time has been over for more than ``by`` seconds."""
    return time.time() > claims.exp + _LEEWAY + by
