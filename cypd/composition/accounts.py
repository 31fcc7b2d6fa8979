"""The rules of accounts, built over their store."""

import logging
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cypd import systemd
from cypd.accounts import secret_file
from cypd.accounts.administrator import ADMINISTRATOR, ensure_administrator
from cypd.accounts.passwords import Passwords
from cypd.accounts.personal_tokens import PersonalTokens
from cypd.accounts.ports import AccountStore
from cypd.accounts.second_factor import SecondFactor
from cypd.accounts.sessions import Sessions
from cypd.accounts.throttle import Throttle
from cypd.accounts.users import Users
from cypd.auth.authenticator import UserAuthenticator
from cypd.auth.passwords import PasswordPool, hash_password
from cypd.auth.tokens import Lifetimes, Tokens
from cypd.config import Config, ConfigError
from cypd.turn import turn

log = logging.getLogger(__name__)

_KEY_CHARACTERS = 32
_LOOK_SECONDS = 0.02  # the others of its crew wait for the first one, and who starts cypd for them


class Accounts(NamedTuple):
    """The rules of accounts, and who knows whom."""

    store: AccountStore
    hasher: PasswordPool
    users: Users
    sessions: Sessions
    second_factor: SecondFactor
    personal_tokens: PersonalTokens
    authenticator: UserAuthenticator
    window: float
    """Seconds for which a wrong password counts."""
    key: str
    """What tokens are signed with."""

    async def sweep(self) -> None:
        """Forget what is over."""
        await self.store.sweep(now=time.time(), window=self.window)


def build_accounts(
    config: Config,
    root: Path,
    store: AccountStore,
    is_scanning: Callable[[str], bool] = lambda _: False,
) -> Accounts:
    """Return everything that has to do with accounts, over their store.

    ``is_scanning`` tells whether the scan of an id runs.
    """
    hasher = PasswordPool()
    settings = config.auth
    throttle = Throttle(
        store,
        per_account=settings.max_failures_per_account,
        per_address=settings.max_failures_per_address,
        window=settings.failure_window,
    )
    lifetimes = Lifetimes(settings.access_ttl, settings.refresh_ttl, settings.token_ttl)
    key = _token_key(root)
    tokens = Tokens(key, lifetimes)
    passwords = Passwords(store, hasher, throttle, decoy=hash_password(secrets.token_hex()))
    second_factor = SecondFactor(store, passwords, throttle)
    return Accounts(
        store,
        hasher,
        Users(store, passwords, hasher, is_open=settings.registration == "open"),
        Sessions(store, passwords, second_factor, tokens),
        second_factor,
        PersonalTokens(store),
        UserAuthenticator(store, passwords, tokens, is_scanning),
        settings.failure_window,
        key,
    )


def _token_key(root: Path) -> str:
    key = systemd.credential(os.environ, "token-key")
    if key and len(key) < _KEY_CHARACTERS:
        raise ConfigError(f"credential token-key: it has less than {_KEY_CHARACTERS} characters")
    return key or secret_file.ensure(root / "token-key")


async def make_administrator(config: Config, root: Path, accounts: Accounts) -> None:
    """See to it that somebody can sign in after the first start."""
    async with turn(root / "start.lock", look=_LOOK_SECONDS):
        written = await ensure_administrator(
            accounts.store,
            accounts.users,
            accounts.hasher,
            configured_password=config.auth.admin_password
            or systemd.credential(os.environ, "admin-password"),
            password_file=root / "admin-password",
        )
    if written:
        log.info("first start: the password of the user %s is in %s", ADMINISTRATOR, written)
