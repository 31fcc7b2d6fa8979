"""Who may do what: rights come from roles, of this moment; credentials only take away from them."""

import asyncio
import time
import uuid
from collections.abc import Sequence
from typing import Literal

from cypd.access import Action, Principal, Scope
from cypd.oci.errors import Code, OCIError
from cypd.oci.names import RepositoryName
from cypd.projects.names import check_name
from cypd.projects.ports import Project, ProjectStore, Role
from cypd.refusals import Code as RefusalCode
from cypd.refusals import Refusal

Anonymous = Literal["none", "public", "pull"]
"""What may be pulled without signing in: nothing, public projects, everything."""

# The contract's table of roles (api.md, section Who may do what), as the least role.
_ROLES = {
    Action.PULL: Role.GUEST,
    Action.PUSH: Role.DEVELOPER,
    Action.SCAN: Role.DEVELOPER,
    Action.DELETE: Role.MAINTAINER,
    Action.SETTINGS: Role.MAINTAINER,
    Action.MEMBERS: Role.OWNER,
}
_SCOPES = {
    Action.CATALOG: Scope.READ,
    Action.PULL: Scope.READ,
    Action.PUSH: Scope.WRITE,
    Action.SCAN: Scope.WRITE,
    Action.SETTINGS: Scope.WRITE,
    Action.DELETE: Scope.DELETE,
    Action.MEMBERS: Scope.ADMIN,
}
_LACKS = {
    Scope.READ: RefusalCode.LACKS_READ,
    Scope.WRITE: RefusalCode.LACKS_WRITE,
    Scope.DELETE: RefusalCode.LACKS_DELETE,
    Scope.ADMIN: RefusalCode.LACKS_ADMIN,
}

_STEP = 256  # projects read at a time


class ProjectAccess:
    """The policy of projects, and the way a push makes one."""

    def __init__(
        self,
        store: ProjectStore,
        *,
        anonymous: Anonymous,
        auto_create: bool,
        default_quota: int,
    ) -> None:
        self._store = store
        self._anonymous = anonymous
        self._auto_create = auto_create
        self._default_quota = default_quota

    def allows(
        self, principal: Principal, action: Action, repository: RepositoryName | None
    ) -> bool:
        """Tell whether a principal may do this to a repository; this is the ``Policy``.

        Of a project that does not exist: whatever leads to its absence being told to who may know,
        and a push, if that creates it.
        """
        if not _reaches(principal, action, repository):
            return False
        if repository is None:
            is_somebody = bool(principal.user_id)
            return action is Action.CATALOG and (is_somebody or self._anonymous != "none")
        if principal.projects is None and (principal.is_admin or self._is_open(action)):
            return True
        standing = self._store.standing(repository.project, principal.user_id)
        if standing is not None:
            return self._permits(principal, action, standing.project, standing.role)
        return self._may_begin(principal, action)

    def _may_begin(self, principal: Principal, action: Action) -> bool:
        """Tell whether a principal may do this in a project that their push would create.

        A client asks what is there before it pushes, and with a token for the push it gets to hear
        that nothing is. Without one nothing is told: a private project would answer the same.
        """
        if not principal.user_id or not self._auto_create or principal.projects is not None:
            return False
        is_asking = action is Action.PULL and principal.grants is not None
        return action is Action.PUSH or (is_asking and principal.scope >= _SCOPES[Action.PUSH])

    def allows_in(self, principal: Principal, action: Action, project: Project) -> bool:
        """Tell whether a principal may do this in a project as a whole."""
        if principal.grants is not None or not _reaches(principal, action, None):
            return False
        return self._permits(principal, action, project, self.role(principal, project))

    def require(self, principal: Principal, action: Action, project_id: str) -> Project:
        """Return a project in which a principal may do this.

        Raises NO_CREDENTIALS to nobody, PROJECT_NOT_FOUND for one that is not there or not theirs
        to see, LACKS_* where the credential and PERMISSION_MISSING where the role is too small.
        """
        if not principal.user_id:
            raise Refusal(RefusalCode.NO_CREDENTIALS)
        project = self._store.project(project_id)
        if project is None or not self.allows_in(principal, Action.PULL, project):
            raise Refusal(RefusalCode.PROJECT_NOT_FOUND)
        require_scope(principal, action)
        if not self.allows_in(principal, action, project):
            raise Refusal(RefusalCode.PERMISSION_MISSING)
        return project

    def readable(self, principal: Principal, name: str) -> str | None:
        """Return the id of the project of that name, if there is one that they may read."""
        standing = self._store.standing(name, "")
        if standing is None or not self.allows_in(principal, Action.PULL, standing.project):
            return None
        return standing.project.id

    async def all_readable(self, principal: Principal) -> Sequence[str] | None:
        """Return the ids of all projects that they may read, in the order of their repositories.

        ``None``: every project.
        """
        if principal.grants is not None or not _reaches(principal, Action.PULL, None):
            return []
        if principal.projects is None and (principal.is_admin or self._is_open(Action.PULL)):
            return None
        found = await self._candidates(principal)
        readable = [it for it in found if self.allows_in(principal, Action.PULL, it)]
        readable.sort(key=lambda it: f"{it.name}/")  # "lib-x/a" comes before "lib/a"
        return [project.id for project in readable]

    async def _candidates(self, principal: Principal) -> list[Project]:
        if principal.projects is not None:
            bounds = map(self._store.project, principal.projects)
            return [project for project in bounds if project]
        found: list[Project] = []
        while some := self._store.projects(after=found[-1].name if found else "", limit=_STEP):
            found += some
            await asyncio.sleep(0)  # others have their turn, however many projects there are
        return found

    def is_set_aside(self, principal: Principal, repository: RepositoryName) -> bool:
        """Tell whether only being an administrator lets a principal push to a repository."""
        if not principal.is_admin:
            return False
        standing = self._store.standing(repository.project, principal.user_id)
        return standing is not None and (standing.role or Role.GUEST) < _ROLES[Action.PUSH]

    def role(self, principal: Principal, project: Project) -> Role | None:
        """Return a principal's role in a project."""
        member = self._store.member(project.id, principal.user_id) if principal.user_id else None
        return member.role if member else None

    async def admit(self, principal: Principal, repository: RepositoryName) -> None:
        """Create the project that an allowed push goes to, unless it exists.

        Private, of the default quota, owned by who pushes. Raises NAME_INVALID if the project
        can't have that name, NAME_UNKNOWN if pushes create none.
        """
        name = repository.project
        if self._store.standing(name, "") is not None:
            return
        if not self._auto_create:
            raise OCIError(Code.NAME_UNKNOWN, detail={"name": repository})
        if (problem := check_name(name)) is not None:
            raise OCIError(Code.NAME_INVALID, f"the project {name!r}: {problem}")
        now = time.time()
        project = Project(
            id=str(uuid.uuid4()),
            name=name,
            owner_id=principal.user_id,
            created_at=now,
            updated_at=now,
            storage_quota=self._default_quota,
        )
        try:
            await self._store.create_project(project)
        except Refusal as refusal:
            if refusal.code is not RefusalCode.PROJECT_EXISTS:
                raise
            # Another push was first; what its owner lets this one do was asked of nobody yet.
            if not self.allows(principal, Action.PUSH, repository):
                raise OCIError(Code.DENIED) from None

    def _permits(
        self, principal: Principal, action: Action, project: Project, role: Role | None
    ) -> bool:
        if principal.projects is not None and project.id not in principal.projects:
            return False
        if principal.is_admin or self._is_open(action):
            return True
        if action is Action.PULL and project.is_public:
            return bool(principal.user_id) or self._anonymous == "public"
        return role is not None and action in _ROLES and role >= _ROLES[action]

    def _is_open(self, action: Action) -> bool:
        return action is Action.PULL and self._anonymous == "pull"


def require_scope(principal: Principal, action: Action) -> None:
    """Raise LACKS_* unless the credential reaches as far as that."""
    if principal.scope < _SCOPES[action]:
        raise Refusal(_LACKS[_SCOPES[action]])


def _reaches(principal: Principal, action: Action, repository: RepositoryName | None) -> bool:
    """Tell whether the credential reaches as far as that, whatever its user may do."""
    if principal.is_expired and action is not Action.PUSH:
        return False
    if principal.scope < _SCOPES[action]:
        return False
    if principal.grants is None:
        return True
    name, wanted = (repository, action.value) if repository else ("*", "*")
    for grant in principal.grants:  # noqa: SIM110 (a third of the time of any())
        if grant.repository == name and wanted in grant.actions:
            return True
    return False
