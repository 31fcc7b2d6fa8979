"""The administrator that a new registry starts with."""

import secrets
from pathlib import Path

from cypd.accounts import secret_file
from cypd.accounts.ports import AccountStore, Hasher
from cypd.accounts.users import Users

ADMINISTRATOR = "admin"


async def ensure_administrator(
    store: AccountStore,
    users: Users,
    hasher: Hasher,
    *,
    configured_password: str,
    password_file: Path,
) -> Path | None:
    """Create the first user of a registry; return where a made-up password was written.

    A configured password holds at every start, so that changing it in the configuration changes
    it in fact. Else the first start makes one up: 0600, written before the user exists, so that a
    crash between the two leaves a password that is simply written again.
    """
    user = store.user_by_name(ADMINISTRATOR)
    if user is not None:
        if configured_password and not await hasher.verify(user.password_hash, configured_password):
            await users.set_password(user.id, configured_password)
        return None
    if store.users(after="", limit=1):
        return None  # others look after it, and have removed this one
    password = configured_password
    if not password:
        password = secrets.token_urlsafe(24)
        secret_file.write(password_file, password)
    await users.create(ADMINISTRATOR, "", password, is_admin=True)
    return None if configured_password else password_file
