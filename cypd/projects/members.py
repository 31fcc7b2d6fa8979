"""Who belongs to a project, and as what."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from cypd.access import Act, Action, Principal
from cypd.projects.access import ProjectAccess, require_scope
from cypd.projects.ports import Directory, Member, ProjectStore, Role
from cypd.refusals import Code, Refusal, invalid

_READ_STEP = 256
ROLES = [role.word for role in reversed(Role)]


class NamedMember(NamedTuple):
    """A member with their name."""

    member: Member
    username: str
    """Empty for an account that is gone."""


class Members:
    """The rules of membership: owners decide, everybody may leave, one owner stays."""

    def __init__(self, store: ProjectStore, access: ProjectAccess, directory: Directory) -> None:
        self._store = store
        self._access = access
        self._directory = directory

    def list(self, principal: Principal, project_id: str) -> Sequence[NamedMember]:
        """Return the members by name, to members and administrators alone.

        Whoever may pull from a public project need not know who makes it.
        """
        project = self._access.require(principal, Action.PULL, project_id)
        if not principal.is_admin and self._access.role(principal, project) is None:
            raise Refusal(Code.PERMISSION_MISSING)
        found = [self._named(member) for member in self._store.members(project_id)]
        return sorted(found, key=lambda it: (it.username, it.member.user_id))

    async def add(
        self,
        principal: Principal,
        project_id: str,
        *,
        role: str,
        act: Act,
        user_id: str | None = None,
        username: str | None = None,
    ) -> NamedMember:
        """Add a user, told by id or by name.

        Raises USER_NOT_FOUND, VALIDATION_FAILED with the field, NOT_IN_THIS_STATE for a member.
        """
        self._access.require(principal, Action.MEMBERS, project_id)
        member = Member(self._user(user_id, username), parse_role(role), act.at)
        await self._store.add_member(project_id, member, act=act)
        return self._named(member)

    async def set_role(
        self, principal: Principal, project_id: str, user_id: str, role: str, *, act: Act
    ) -> NamedMember:
        """Change a member's role; raise MEMBER_NOT_FOUND, NOT_IN_THIS_STATE for the last owner."""
        self._access.require(principal, Action.MEMBERS, project_id)
        return self._named(
            await self._store.set_role(project_id, user_id, parse_role(role), act=act)
        )

    async def remove(
        self, principal: Principal, project_id: str, user_id: str, *, act: Act
    ) -> None:
        """Remove a member, or leave; raises as ``set_role``."""
        is_self = user_id == principal.user_id
        self._access.require(principal, Action.PULL if is_self else Action.MEMBERS, project_id)
        require_scope(principal, Action.MEMBERS)
        await self._store.remove_member(project_id, user_id, act=act)

    async def withdraw(self, user_id: str, *, act: Act) -> None:
        """Take a user out of all projects; raise NOT_IN_THIS_STATE for the last owner of one.

        Then nothing has changed, unless somebody left a project in this very moment.
        """
        own: list[str] = []
        after = ""
        while some := self._store.projects(after=after, limit=_READ_STEP):
            own += [it.id for it in some if self._store.member(it.id, user_id)]
            after = some[-1].name
            await asyncio.sleep(0)
        for project_id in own:
            members = self._store.members(project_id)
            if {user_id} == {it.user_id for it in members if it.role is Role.OWNER}:
                raise Refusal(Code.NOT_IN_THIS_STATE)
        for project_id in own:
            await self._store.remove_member(project_id, user_id, act=act)

    def _named(self, member: Member) -> NamedMember:
        return NamedMember(member, self._directory.name_of(member.user_id) or "")

    def _user(self, user_id: str | None, username: str | None) -> str:
        if (user_id is None) == (username is None):
            raise invalid("username", "either username or user_id", Code.MISSING_PARAMETER)
        if username is not None:
            user_id = self._directory.id_of(username)
        if user_id is None or self._directory.name_of(user_id) is None:
            raise Refusal(Code.USER_NOT_FOUND)
        return user_id


def parse_role(word: str) -> Role:
    """Return the role of that name; raise VALIDATION_FAILED."""
    if word not in ROLES:
        raise invalid("role", f"one of {', '.join(ROLES)}")
    return Role[word.upper()]
