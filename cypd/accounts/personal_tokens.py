"""Personal access tokens: what machines sign in with in place of a person's password."""

import secrets
import time
import uuid
from collections.abc import Collection, Sequence
from hashlib import sha256
from typing import NamedTuple

from cypd.access import Scope
from cypd.accounts.ports import AccountStore, PersonalToken
from cypd.refusals import Code, invalid

PREFIX = "pat_v1_"
SCOPES = tuple(scope.name.lower() for scope in Scope)
_DEFAULT_SECONDS = 30 * 86400
_SHORTEST, _LONGEST = 60, 10 * 365 * 86400
_MOST = 100  # of one user


class NewToken(NamedTuple):
    """A token as its owner sees it once."""

    token: PersonalToken
    text: str


class PersonalTokens:
    """Making, listing and removing one's own tokens."""

    def __init__(self, store: AccountStore) -> None:
        self._store = store

    def list(self, user_id: str) -> Sequence[PersonalToken]:
        """Return a user's tokens, the newest first."""
        return self._store.personal_tokens(user_id)

    async def create(
        self,
        user_id: str,
        *,
        name: str,
        scopes: Collection[str],
        project_ids: Sequence[str] | None,
        expire_in: int,
    ) -> NewToken:
        """Make a token; ``expire_in``: seconds, 0 for 30 days, -1 for never.

        Raises UNKNOWN_SCOPE, VALIDATION_FAILED, and NOT_IN_THIS_STATE for one too many.
        """
        if unknown := [scope for scope in scopes if scope not in SCOPES]:
            raise invalid("scopes", f"no scope: {unknown[0]!r}", Code.UNKNOWN_SCOPE)
        if not scopes:
            raise invalid("scopes", "at least one")
        text = PREFIX + secrets.token_hex(32)
        now = time.time()
        token = PersonalToken(
            id=str(uuid.uuid4()),
            user_id=user_id,
            name=name,
            hash=sha256(text.encode()).digest(),
            scopes=tuple(scope for scope in SCOPES if scope in scopes),
            project_ids=None if project_ids is None else tuple(project_ids),
            created_at=now,
            expires_at=_expiry(now, expire_in),
        )
        await self._store.create_personal_token(token, limit=_MOST)
        return NewToken(token, text)

    async def delete(self, user_id: str, token_id: str) -> None:
        """Remove a token: it is worth nothing from now on; raise TOKEN_NOT_FOUND."""
        await self._store.delete_personal_token(user_id, token_id)


def _expiry(now: float, expire_in: int) -> float | None:
    if expire_in == -1:
        return None
    if expire_in == 0:
        return now + _DEFAULT_SECONDS
    if not _SHORTEST <= expire_in <= _LONGEST:
        message = f"0, -1, or {_SHORTEST} to {_LONGEST} seconds"
        raise invalid("expire_in", message)
    return now + expire_in
