"""Creating, finding, changing and ending projects."""

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from cypd.access import Action, Principal, Scope
from cypd.projects import tag_rules
from cypd.projects.access import ProjectAccess, require_scope
from cypd.projects.names import check_name
from cypd.projects.ports import UNLIMITED, Changes, Project, ProjectStore, Role, Usage
from cypd.projects.scan_policy import ScanPolicy
from cypd.refusals import Code, Refusal, invalid

MAX_DESCRIPTION = 1000
MAX_QUOTA = 1 << 60
"""In bytes: no disk has it, and a few of them add up in 8 bytes."""
_READ_STEP = 256
_DELETE_STEP = 256


class Details(NamedTuple):
    """A project as somebody meets it."""

    project: Project
    usage: Usage
    role: Role | None
    """Theirs; ``None`` for who is no member."""


class Page(NamedTuple):
    """Some of the projects, and how many there are."""

    projects: Sequence[Details]
    total: int


class Storage(NamedTuple):
    """What a project takes of what it may hold, in bytes."""

    quota: int
    used: int
    reserved: int
    left: int
    """``UNLIMITED``, as the quota."""
    percent: float
    """Used of the quota; 0 of one without bounds."""
    physical: int


_Key = Callable[[Details], Any]
_SORT: dict[str, _Key] = {
    "name": lambda it: it.project.name,
    "created_at": lambda it: it.project.created_at,
    "updated_at": lambda it: it.project.updated_at,
    "storage_used": lambda it: it.usage.used,
    "image_count": lambda it: it.usage.image_count,
}
SORTS = [*_SORT, *(f"-{key}" for key in _SORT)]
"""What a list can be sorted by; with a minus, from the largest down."""


class Projects:
    """The rules of projects. Every id may be anything that stood in a path."""

    def __init__(
        self, store: ProjectStore, access: ProjectAccess, *, default_quota: int, max_quota: int
    ) -> None:
        self._store = store
        self._access = access
        self._default_quota = default_quota
        self._max_quota = max_quota

    async def create(
        self,
        principal: Principal,
        *,
        name: str,
        description: str = "",
        is_public: bool = False,
        storage_quota: int | None = None,
    ) -> Details:
        """Create a project whose owner the principal is.

        Raises VALIDATION_FAILED with the field, PROJECT_EXISTS, and what keeps one from writing.
        """
        if not principal.user_id:
            raise Refusal(Code.NO_CREDENTIALS)
        require_scope(principal, Action.SETTINGS)
        if principal.projects is not None or principal.grants is not None:
            raise Refusal(Code.PERMISSION_MISSING)
        quota = self._default_quota if storage_quota is None else storage_quota
        if storage_quota is not None:
            self._require_quota(principal, quota)
        now = time.time()
        project = Project(
            id=str(uuid.uuid4()),
            name=name,
            owner_id=principal.user_id,
            created_at=now,
            updated_at=now,
            storage_quota=quota,
            description=description,
            is_public=is_public,
        )
        _require_valid(project)
        await self._store.create_project(project)
        return self._details(principal, project)

    def get(self, principal: Principal, project_id: str) -> Details:
        """Return a project; raise PROJECT_NOT_FOUND for one that is not theirs to see."""
        project = self._access.require(principal, Action.PULL, project_id)
        return self._details(principal, project)

    async def page(
        self,
        principal: Principal,
        *,
        number: int,
        size: int,
        sort: str = "name",
        keyword: str = "",
    ) -> Page:
        """Return a page, the first is 1, of the projects that the principal may see.

        ``keyword`` stands in the name or the description, in whatever case. Raises
        VALIDATION_FAILED for a ``sort`` that is none of ``SORTS``.
        """
        if not principal.user_id:
            raise Refusal(Code.NO_CREDENTIALS)
        if sort not in SORTS:
            raise invalid("sort", f"one of {', '.join(SORTS)}")
        found = await self._visible(principal, keyword.casefold())
        found.sort(key=_SORT[sort.removeprefix("-")], reverse=sort.startswith("-"))
        start = (number - 1) * size
        return Page(found[start : start + size], len(found))

    async def _visible(self, principal: Principal, keyword: str) -> list[Details]:
        found: list[Details] = []
        after = ""
        while some := self._store.projects(after=after, limit=_READ_STEP):
            found += [
                self._details(principal, project)
                for project in some
                if keyword in f"{project.name}\n{project.description.casefold()}"
                and self._access.allows_in(principal, Action.PULL, project)
            ]
            after = some[-1].name
            await asyncio.sleep(0)  # others have their turn, however many projects there are
        return found

    async def update(self, principal: Principal, project_id: str, changes: Changes) -> Details:
        """Change any of a project's settings; its quota only as its owner.

        Raises also VALIDATION_FAILED with the field, PROJECT_EXISTS, and NOT_IN_THIS_STATE for a
        new name while it holds anything.
        """
        before = self._access.require(principal, Action.SETTINGS, project_id)
        quota = changes.storage_quota
        if quota is not None and quota != before.storage_quota:
            if not principal.is_admin and self._access.role(principal, before) is not Role.OWNER:
                raise Refusal(Code.PERMISSION_MISSING)
            self._require_quota(principal, quota)
        _require_valid(changes.applied_to(before))
        project = await self._store.change_project(project_id, changes)
        return self._details(principal, project)

    async def set_scan_policy(
        self, principal: Principal, project_id: str, policy: ScanPolicy, *, at: float
    ) -> Project:
        """Say which pulls are refused, as an owner; ``at`` is now, in unix seconds.

        Raises PROJECT_NOT_FOUND, LACKS_ADMIN, PERMISSION_MISSING.
        """
        self._access.require(principal, Action.MEMBERS, project_id)
        changes = Changes(updated_at=at, scan_policy=policy)
        return await self._store.change_project(project_id, changes)

    async def delete(self, principal: Principal, project_id: str, *, force: bool = False) -> None:
        """End a project; raise NOT_IN_THIS_STATE while it holds images, unless ``force``.

        A large one goes piece by piece, beside all other work. Cut off, it is smaller; repeating
        it finishes.
        """
        self._access.require(principal, Action.MEMBERS, project_id)
        while not await self._store.delete_project(project_id, force=force, limit=_DELETE_STEP):
            pass

    def storage(self, principal: Principal, project_id: str) -> Storage:
        """Return what a project takes."""
        project = self._access.require(principal, Action.PULL, project_id)
        return storage_of(project, self._store.usage(project.id))

    def _details(self, principal: Principal, project: Project) -> Details:
        role = self._access.role(principal, project)
        return Details(project, self._store.usage(project.id), role)

    def _require_quota(self, principal: Principal, quota: int) -> None:
        if principal.is_admin and principal.scope >= Scope.ADMIN:
            if not UNLIMITED <= quota <= MAX_QUOTA:
                raise invalid("storage_quota", f"bytes, at most {MAX_QUOTA}; -1: no bound")
        elif quota == UNLIMITED:
            raise Refusal(Code.PERMISSION_MISSING)
        elif not 0 <= quota <= self._max_quota:
            raise invalid("storage_quota", f"bytes, at most {self._max_quota}")


def storage_of(project: Project, usage: Usage) -> Storage:
    """Return what a project takes of its quota."""
    quota = project.storage_quota
    is_bounded = quota != UNLIMITED
    left = max(0, quota - usage.used - usage.reserved) if is_bounded else UNLIMITED
    percent = round(100 * usage.used / quota, 2) if quota > 0 else 0.0
    return Storage(quota, usage.used, usage.reserved, left, percent, usage.physical)


def _require_valid(project: Project) -> None:
    if (problem := check_name(project.name)) is not None:
        raise invalid("name", problem)
    if len(project.description) > MAX_DESCRIPTION:
        raise invalid("description", f"at most {MAX_DESCRIPTION} characters")
    try:
        project.description.encode()
    except UnicodeEncodeError:  # half of a surrogate pair: JSON can write it, UTF-8 can't
        raise invalid("description", "not well-formed Unicode") from None
    tag_rules.require_valid(project.tag_rules)
