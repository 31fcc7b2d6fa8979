"""Bearer tokens: JWT of one fixed algorithm, signed by this registry for this registry.

A token says who somebody is, not what they may do: rights are decided at each request, so that
taking one away works at once.
"""

import time
import uuid
from hashlib import sha256
from typing import Any

import jwt

from cypd.access import ANONYMOUS, Principal
from cypd.accounts.ports import AccountStore, User
from cypd.oci.errors import Code, OCIError

LIFETIME_SECONDS = 900
_LEEWAY_SECONDS = 60
_ALGORITHM = "HS256"
_SELF = "cypd"
_REQUIRED = ["iss", "aud", "sub", "exp", "iat", "nbf", "jti", "credential"]


class Tokens:
    """Issues and verifies tokens with one key."""

    def __init__(self, users: AccountStore, key: str) -> None:
        self._users = users
        self._key = key

    def issue(self, principal: Principal) -> str:
        """Return a token that says that its bearer is the principal, for 15 minutes."""
        now = int(time.time())
        user = self._users.user(principal.name)
        claims = {
            "iss": _SELF,
            "aud": _SELF,
            "sub": principal.name,
            "iat": now,
            "nbf": now,
            "exp": now + LIFETIME_SECONDS,
            "jti": str(uuid.uuid4()),
            "credential": _credential(user),
        }
        return jwt.encode(claims, self._key, _ALGORITHM)

    def verify(self, token: str) -> Principal:
        """Return whom a token names; raise UNAUTHORIZED unless it is ours and in its time.

        The algorithm is fixed here, and keys that a header names are never looked at
        (CVE-2025-24976). A token stops with the password it was given for.
        """
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._key,
                algorithms=[_ALGORITHM],
                audience=_SELF,
                issuer=_SELF,
                leeway=_LEEWAY_SECONDS,
                options={"require": _REQUIRED, "strict_aud": True},
            )
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            raise _invalid() from None
        if not claims["sub"]:
            return ANONYMOUS
        user = self._users.user(claims["sub"])
        if user is None or claims["credential"] != _credential(user):
            raise _invalid()
        return Principal(user_id=user.name, name=user.name, is_admin=user.is_admin)


def _credential(user: User | None) -> str:
    return sha256(user.password_hash.encode()).hexdigest()[:32] if user else ""


def _invalid() -> OCIError:
    return OCIError(Code.UNAUTHORIZED, "the token is not valid, or not any more")
