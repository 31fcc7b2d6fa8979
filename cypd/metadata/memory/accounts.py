"""Accounts in dictionaries."""

from cypd.accounts.ports import User


class MemoryAccounts:
    """The contract of ``AccountStore``."""

    def __init__(self) -> None:
        self._users: dict[str, User] = {}

    def user(self, name: str) -> User | None:
        return self._users.get(name)

    async def put_user(self, user: User) -> None:
        self._users[user.name] = user
