"""The administrator that a new registry starts with."""

import secrets
from collections.abc import Callable
from pathlib import Path

from cypd.accounts import secret_file
from cypd.accounts.ports import AccountStore, User

ADMINISTRATOR = "admin"


async def ensure_administrator(
    users: AccountStore,
    hash_password: Callable[[str], str],
    verify_password: Callable[[str, str], bool],
    *,
    configured_password: str,
    password_file: Path,
) -> Path | None:
    """Create the administrator if there is none; return where a made-up password was written.

    A configured password holds at every start, so that changing it in the configuration changes
    it in fact. Else the first start makes one up: 0600, written before the user exists, so that a
    crash between the two leaves a password that is simply written again.
    """
    user = users.user(ADMINISTRATOR)
    if configured_password:
        if user is None or not verify_password(user.password_hash, configured_password):
            await users.put_user(_administrator(hash_password(configured_password)))
        return None
    if user is not None:
        return None
    password = secrets.token_urlsafe(24)
    secret_file.write(password_file, password)
    await users.put_user(_administrator(hash_password(password)))
    return password_file


def _administrator(password_hash: str) -> User:
    return User(name=ADMINISTRATOR, password_hash=password_hash, is_admin=True)
