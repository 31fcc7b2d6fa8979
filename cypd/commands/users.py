"""``cypd user``: for the operator who makes accounts, or has lost a password."""

import argparse
import asyncio
import getpass
import sys
from collections.abc import Awaitable, Callable

from cypd.accounts.ports import User
from cypd.accounts.users import Users
from cypd.commands.output import Failed, tell
from cypd.commands.store import note, opened
from cypd.composition.accounts import build_accounts
from cypd.config import Config
from cypd.state import require_root

Change = Callable[[Users, User], Awaitable[object]]


def show_all(config: Config, options: argparse.Namespace) -> int:
    """List the users."""

    async def run(users: Users) -> None:
        found = await users.list(keyword="", sort="username")
        if options.json:
            tell([_document(it) for it in found])
            return
        print(f"{'NAME':<32} {'ADMIN':<6} {'ACTIVE':<7} {'2ND FACTOR':<11} EMAIL")
        for it in found:
            factor = _word(it.has_second_factor)
            print(
                f"{it.name:<32} {_word(it.is_admin):<6} {_word(it.is_active):<7} "
                f"{factor:<11} {it.email}"
            )

    return _with_users(config, run)


def add(config: Config, options: argparse.Namespace) -> int:
    """Make an account."""
    password = _read_password(options)

    async def run(users: Users) -> None:
        user = await users.create(options.name, options.email, password, is_admin=options.admin)
        _tell(user, options)

    return _with_users(config, run, options)


def _changing(
    change: Callable[[argparse.Namespace], Change],
) -> Callable[[Config, argparse.Namespace], int]:
    """Return the command that changes the user who is named."""

    def command(config: Config, options: argparse.Namespace) -> int:
        apply = change(options)

        async def run(users: Users) -> None:
            user = users.find(options.name)
            await apply(users, user)
            _tell(users.get(user.id), options)

        return _with_users(config, run, options)

    return command


def _set_password(options: argparse.Namespace) -> Change:
    password = _read_password(options)
    return lambda users, user: users.set_password(user.id, password)


def _disable(_: argparse.Namespace) -> Change:
    return lambda users, user: users.administer(user.id, is_active=False)


def _enable(_: argparse.Namespace) -> Change:
    return lambda users, user: users.administer(user.id, is_active=True)


def _reset_mfa(_: argparse.Namespace) -> Change:
    return lambda users, user: users.administer(user.id, reset_mfa=True)


set_password = _changing(_set_password)
disable = _changing(_disable)
enable = _changing(_enable)
reset_mfa = _changing(_reset_mfa)


def _with_users(
    config: Config,
    run: Callable[[Users], Awaitable[None]],
    change: argparse.Namespace | None = None,
) -> int:
    """Run something with the users; what changes one is told to the audit log."""

    async def work() -> None:
        with opened(config) as metadata:
            accounts = build_accounts(config, require_root(config), metadata.accounts)
            try:
                await run(accounts.users)
                if change is not None:
                    await note(metadata, f"users.{change.action}", username=change.name)
            finally:
                accounts.hasher.close()

    asyncio.run(work())
    return 0


def _read_password(options: argparse.Namespace) -> str:
    if options.password_stdin or not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise Failed("the two are not the same")
    return password


def _tell(user: User, options: argparse.Namespace) -> None:
    if options.json:
        tell(_document(user))
    else:
        print(f"{user.name}: {'an active' if user.is_active else 'a disabled'} user, {user.id}")


def _document(user: User) -> dict[str, object]:
    return {
        "id": user.id,
        "username": user.name,
        "email": user.email,
        "is_admin": user.is_admin,
        "is_active": user.is_active,
        "mfa_enabled": user.has_second_factor,
    }


def _word(value: bool) -> str:
    return "yes" if value else "no"
