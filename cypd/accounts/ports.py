"""Users and what they sign in with, and what the rules need of a metadata store.

The contract suite in ``tests/metadata`` holds each engine to these words.
"""

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple, Protocol

import msgspec


class User(msgspec.Struct, frozen=True, kw_only=True):
    """Someone who can sign in. All times are unix seconds."""

    id: str
    """UUIDv4."""
    name: str
    """In its one canonical form, see ``names``."""
    password_hash: str
    """argon2id, in the PHC string format."""
    email: str = ""
    nickname: str = ""
    is_admin: bool = False
    is_active: bool = True
    created_at: float = 0.0
    updated_at: float = 0.0
    totp_secret: str = ""
    """Base32; ``""``: no second factor."""
    totp_pending: str = ""
    """A secret that was shown and not proved yet."""
    totp_step: int = 0
    """The time step (RFC 6238) of the last code that was accepted: none before it is again."""
    recovery_hashes: tuple[str, ...] = ()
    """SHA-256, in hex, of the codes that are left."""

    def __repr__(self) -> str:
        return f"<User {self.name} {self.id}>"  # no secret in a log or a traceback

    @property
    def password_mark(self) -> str:
        """A fingerprint of the password's hash: it ends with the password, and tells nothing."""
        return blake2b(self.password_hash.encode(), digest_size=16).hexdigest()

    @property
    def has_second_factor(self) -> bool:
        """Whether a password alone is not enough."""
        return bool(self.totp_secret)


class PersonalToken(msgspec.Struct, frozen=True, kw_only=True):
    """A personal access token; the token itself is known to its owner alone."""

    id: str
    """UUIDv4."""
    user_id: str
    name: str
    hash: bytes
    """SHA-256 of the token."""
    scopes: tuple[str, ...]
    project_ids: tuple[str, ...] | None = None
    """``None``: good for all projects."""
    created_at: float
    expires_at: float | None = None
    """``None``: never."""
    last_used_at: float | None = None

    def __repr__(self) -> str:
        return f"<PersonalToken {self.name} {self.id}>"


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """What a login opened: an access token and a refresh token at a time belong to it."""

    id: str
    """UUIDv4."""
    user_id: str
    refresh_id: str
    """The ``jti`` of the refresh token that is the valid one."""
    created_at: float
    expires_at: float


class Failures(NamedTuple):
    """Wrong passwords and codes of one account or address, in a window of time."""

    number: int
    since: float


class AccountStore(Protocol):
    """Users, their tokens and sessions, and the failures of those who are none.

    As for all metadata: reads are plain calls that see every write that was awaited before, by
    whichever process; writes are whole intentions, durable when awaited.
    """

    def user(self, user_id: str) -> User | None:
        """Return a user by id."""
        ...

    def user_by_name(self, name: str) -> User | None:
        """Return a user by name, in canonical form."""
        ...

    def user_by_email(self, email: str) -> User | None:
        """Return a user by email address, in canonical form."""
        ...

    def users(self, *, after: str, limit: int) -> Sequence[User]:
        """Return at most ``limit`` users with names greater than ``after``, ascending."""
        ...

    async def create_user(self, user: User) -> None:
        """Store a new user; raise USER_EXISTS for a name or an email address in use."""
        ...

    async def update_user(
        self, user_id: str, change: Callable[[User], User], *, sessions_left: str | None = None
    ) -> User:
        """Put ``change`` of a user in their place and return it.

        ``change`` is a pure function and sees the user of that moment; what it raises is raised and
        nothing changes. With ``sessions_left`` all sessions but the one of that id (``""``: all)
        end in the same instant. Raises USER_NOT_FOUND, USER_EXISTS for an email address in use, and
        NOT_IN_THIS_STATE where no active administrator would be left.
        """
        ...

    async def delete_user(self, user_id: str) -> None:
        """Remove a user with their tokens and sessions; raises as ``update_user``."""
        ...

    def personal_token(self, token_hash: bytes) -> PersonalToken | None:
        """Return a token by its hash, also one whose time is over."""
        ...

    def personal_tokens(self, user_id: str) -> Sequence[PersonalToken]:
        """Return a user's tokens, the newest first."""
        ...

    async def create_personal_token(self, token: PersonalToken, *, limit: int) -> None:
        """Store a token; raise NOT_IN_THIS_STATE if its user has ``limit`` already."""
        ...

    async def delete_personal_token(self, user_id: str, token_id: str) -> None:
        """Remove a token; raise TOKEN_NOT_FOUND."""
        ...

    async def touch_personal_tokens(self, used_at: Mapping[bytes, float]) -> None:
        """Note when tokens were last used, by their hashes; those that are gone are passed over."""
        ...

    def session(self, session_id: str) -> Session | None:
        """Return a session."""
        ...

    async def open_session(self, session: Session, *, password_hash: str) -> bool:
        """Store a new session, unless its user is disabled or has another password by now."""
        ...

    async def rotate_session(self, session_id: str, *, old: str, new: str, until: float) -> bool:
        """Exchange the valid refresh token, and let the session live until then.

        If ``old`` is not the valid one somebody has used it before: the session ends, ``False``.
        """
        ...

    async def end_session(self, session_id: str) -> None:
        """End a session. Repeating it changes nothing."""
        ...

    def failures(self, key: bytes) -> Failures:
        """Return the failures counted under a key (16 bytes); none is ``Failures(0, 0.0)``."""
        ...

    async def count_failure(self, keys: Sequence[bytes], *, now: float, window: float) -> None:
        """Count one failure under each key; a window that is over starts anew."""
        ...

    async def clear_failures(self, key: bytes) -> None:
        """Forget the failures under a key."""
        ...

    async def sweep(self, *, now: float, window: float) -> None:
        """Remove sessions that are over and failures of windows that are, some at a time."""
        ...


class Hasher(Protocol):
    """Turns passwords into hashes, slowly by intent and off the event loop."""

    async def hash(self, password: str) -> str:
        """Return the hash of a password; raise TOO_MANY_REQUESTS if too many wait already."""
        ...

    async def verify(self, password_hash: str, password: str) -> bool:
        """Tell whether it is that password; raises as ``hash``."""
        ...


class Issued(NamedTuple):
    """A signed token."""

    text: str
    id: str
    expires_at: int
    """Unix seconds."""


class Issuer(Protocol):
    """Signs tokens."""

    def issue_access(self, user: User, session_id: str) -> Issued:
        """Return a session's access token."""
        ...

    def issue_refresh(self, user: User, session_id: str) -> Issued:
        """Return a session's refresh token."""
        ...

    def issue_mfa(self, user: User) -> Issued:
        """Return the token of somebody who proved the password and not yet the second factor."""
        ...

    def refresh_claims(self, token: str) -> tuple[str, str, str]:
        """Return (user id, session id, token id); raise REFRESH_TOKEN_INVALID."""
        ...

    def mfa_claims(self, token: str) -> tuple[str, str]:
        """Return (user id, password mark at that time) of a token of ``issue_mfa``.

        Raises TOKEN_INVALID or TOKEN_EXPIRED.
        """
        ...
