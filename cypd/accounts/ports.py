"""What the rules of accounts need of a metadata store."""

from typing import Protocol

import msgspec


class User(msgspec.Struct, frozen=True):
    """Someone who can sign in."""

    name: str
    password_hash: str
    """argon2id, in the PHC string format."""
    is_admin: bool = False


class AccountStore(Protocol):
    """Users by name. A read sees every write that was awaited before, by whichever process."""

    def user(self, name: str) -> User | None:
        """Return a user."""
        ...

    async def put_user(self, user: User) -> None:
        """Store a user, in place of one of the same name. Durable when the await returns."""
        ...
