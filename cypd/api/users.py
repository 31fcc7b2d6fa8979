"""Everybody's accounts, for administrators: ``/api/v1/users``."""

from typing import Literal

from cypd.access import Scope
from cypd.accounts.users import Users
from cypd.api.paging import Listing, Page
from cypd.api.people import Profile, profile
from cypd.api.routes import PREFIX, Call, Input, Route, administrator
from cypd.projects.members import Members
from cypd.refusals import Code

_Sort = Literal["username", "-username", "created_at", "-created_at", "email", "-email"]


class UsersQuery(Page, frozen=True):
    """Which users."""

    sort: _Sort = "username"


class UserList(Listing, frozen=True):
    """A page of users."""

    users: list[Profile]


class UserChanges(Input, frozen=True):
    """What is to change; what is left away stays."""

    is_active: bool | None = None
    is_admin: bool | None = None
    reset_mfa: bool = False


class Everybody:
    """The handlers."""

    def __init__(self, users: Users, members: Members) -> None:
        self._users = users
        self._members = members

    def routes(self) -> list[Route]:
        """Return what the API serves of it."""
        one = f"{PREFIX}/users/{{id}}"
        return [
            Route(
                "GET", f"{PREFIX}/users", self.list, administrator(Scope.ADMIN),
                query=UsersQuery, answer=UserList, tag="users", summary="List the users",
            ),
            Route(
                "GET", one, self.get, administrator(Scope.ADMIN),
                answer=Profile, refusals=(Code.USER_NOT_FOUND,),
                tag="users", summary="Show a user",
            ),
            Route(
                "PATCH", one, self.update, administrator(Scope.ADMIN),
                body=UserChanges, answer=Profile,
                refusals=(Code.USER_NOT_FOUND, Code.NOT_IN_THIS_STATE),
                tag="users", summary="Disable a user, make them administrator, reset their factor",
            ),
            Route(
                "DELETE", one, self.delete, administrator(Scope.ADMIN),
                refusals=(Code.USER_NOT_FOUND, Code.NOT_IN_THIS_STATE),
                tag="users", summary="Remove a user who is no project's only owner",
            ),
        ]  # fmt: skip

    async def list(self, call: Call, query: UsersQuery) -> UserList:
        """List users."""
        found = await self._users.list(keyword=query.keyword, sort=query.sort)
        page = found[query.offset : query.offset + query.page_size]
        return UserList(users=[profile(user) for user in page], **query.place(len(found)))

    async def get(self, call: Call) -> Profile:
        """Show a user."""
        return profile(self._users.get(call.path["id"]))

    async def update(self, call: Call, body: UserChanges) -> Profile:
        """Change a user."""
        user = await self._users.administer(
            call.path["id"],
            is_active=body.is_active,
            is_admin=body.is_admin,
            reset_mfa=body.reset_mfa,
        )
        return profile(user)

    async def delete(self, call: Call) -> None:
        """Remove a user from all projects, and then altogether."""
        user = self._users.get(call.path["id"])
        await self._members.withdraw(user.id, act=call.act)
        await self._users.delete(user.id)
