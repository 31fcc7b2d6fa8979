"""Accounts: made, changed by their owners, and looked after by administrators."""

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from cypd.access import Principal
from cypd.accounts.names import canonical, email_address, user_name
from cypd.accounts.passwords import Passwords, require_good
from cypd.accounts.ports import AccountStore, Hasher, User
from cypd.accounts.second_factor import without_second_factor
from cypd.refusals import Code, Refusal

_STEP = 500  # users read at a time, so that a long list holds nobody up
SORTS: dict[str, Callable[[User], object]] = {
    "username": lambda user: user.name,
    "created_at": lambda user: user.created_at,
    "email": lambda user: user.email,
}


class Users:
    """Every account."""

    def __init__(
        self,
        store: AccountStore,
        passwords: Passwords,
        hasher: Hasher,
        *,
        is_open: bool,
    ) -> None:
        """``is_open``: whether anybody may register."""
        self._store = store
        self._passwords = passwords
        self._hasher = hasher
        self._is_open = is_open

    async def register(self, name: str, email: str, password: str, nickname: str) -> User:
        """Make an account for whoever asks; raise ACCESS_DENIED unless that is allowed."""
        if not self._is_open:
            raise Refusal(Code.ACCESS_DENIED)
        return await self.create(name, email, password, nickname=nickname)

    async def create(
        self, name: str, email: str, password: str, *, nickname: str = "", is_admin: bool = False
    ) -> User:
        """Make an account; raise VALIDATION_FAILED or USER_EXISTS."""
        name = user_name(name)
        require_good(password, name)
        now = time.time()
        user = User(
            id=str(uuid.uuid4()),
            name=name,
            email=email_address(email) if email else "",
            nickname=nickname,
            password_hash=await self._hasher.hash(password),
            is_admin=is_admin,
            created_at=now,
            updated_at=now,
        )
        await self._store.create_user(user)
        return user

    def name_of(self, user_id: str) -> str | None:
        """Return the name of a user."""
        user = self._store.user(user_id)
        return user.name if user else None

    def id_of(self, name: str) -> str | None:
        """Return the id of the user of that name, however it is spelt."""
        user = self._store.user_by_name(canonical(name))
        return user.id if user else None

    def get(self, user_id: str) -> User:
        """Return a user; raise USER_NOT_FOUND."""
        user = self._store.user(user_id)
        if user is None:
            raise Refusal(Code.USER_NOT_FOUND)
        return user

    def find(self, name: str) -> User:
        """Return the user of a name, however it is spelled; raise USER_NOT_FOUND."""
        user = self._store.user_by_name(canonical(name))
        if user is None:
            raise Refusal(Code.USER_NOT_FOUND)
        return user

    async def list(self, *, keyword: str, sort: str) -> Sequence[User]:
        """Return the users whose name, nickname or address holds ``keyword``.

        ``sort``: one of ``SORTS``, with ``-`` before it the other way round.
        """
        wanted = canonical(keyword)
        found: list[User] = []
        after = ""
        while page := self._store.users(after=after, limit=_STEP):
            found += [user for user in page if _matches(user, wanted)]
            after = page[-1].name
            await asyncio.sleep(0)
        return sorted(found, key=SORTS[sort.lstrip("-")], reverse=sort.startswith("-"))  # type: ignore[arg-type]

    async def update_profile(
        self, user_id: str, *, nickname: str | None, email: str | None
    ) -> User:
        """Change what a user says of themselves; ``None`` leaves it."""
        address = email_address(email) if email else email

        def change(user: User) -> User:
            return replace(
                user,
                nickname=user.nickname if nickname is None else nickname,
                email=user.email if address is None else address,
                updated_at=time.time(),
            )

        return await self._store.update_user(user_id, change)

    async def change_password(self, principal: Principal, old: str, new: str, address: str) -> None:
        """Change one's own password, which ends all other sessions.

        Raises as ``Passwords.owner`` for the old one, VALIDATION_FAILED for the new one.
        """
        user = self.get(principal.user_id)
        await self._passwords.owner(user.name, old, address)
        await self.set_password(user.id, new, session_left=principal.session)

    async def set_password(self, user_id: str, new: str, *, session_left: str = "") -> None:
        """Change a password, which ends all sessions but one; raise VALIDATION_FAILED."""
        require_good(new, self.get(user_id).name, "new_password")
        hashed = await self._hasher.hash(new)

        def change(user: User) -> User:
            return replace(user, password_hash=hashed, updated_at=time.time())

        await self._store.update_user(user_id, change, sessions_left=session_left)

    async def administer(
        self,
        user_id: str,
        *,
        is_active: bool | None = None,
        is_admin: bool | None = None,
        reset_mfa: bool = False,
    ) -> User:
        """Change what an administrator may of somebody; who is disabled has no session left.

        Raises USER_NOT_FOUND, and NOT_IN_THIS_STATE for the last active administrator.
        """

        def change(user: User) -> User:
            if reset_mfa:
                user = without_second_factor(user)
            return replace(
                user,
                is_active=user.is_active if is_active is None else is_active,
                is_admin=user.is_admin if is_admin is None else is_admin,
                updated_at=time.time(),
            )

        ends = "" if is_active is False else None
        return await self._store.update_user(user_id, change, sessions_left=ends)

    async def delete(self, user_id: str) -> None:
        """Remove an account; raises as ``administer``."""
        await self._store.delete_user(user_id)


def _matches(user: User, wanted: str) -> bool:
    return any(wanted in text for text in (user.name, user.email, canonical(user.nickname)))
