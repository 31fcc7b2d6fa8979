"""Projects, their members, and what they take: ``/api/v1/projects``."""

import time
from typing import Annotated, Literal

from msgspec import Meta

from cypd.access import Scope
from cypd.api.paging import Listing, Page
from cypd.api.people import moment
from cypd.api.routes import PREFIX, Answer, Call, Input, Route, Time, in_projects
from cypd.projects.members import Members, NamedMember
from cypd.projects.ports import Changes
from cypd.projects.projects import MAX_DESCRIPTION, Details, Projects
from cypd.refusals import Code

_ProjectName = Annotated[str, Meta(min_length=1, max_length=255)]
_Description = Annotated[str, Meta(max_length=MAX_DESCRIPTION)]
_Sort = Literal[
    "name", "-name", "created_at", "-created_at", "updated_at", "-updated_at",
    "storage_used", "-storage_used", "image_count", "-image_count",
]  # fmt: skip
_Role = Literal["owner", "maintainer", "developer", "guest"]
_Id = Annotated[str, Meta(min_length=1, max_length=64)]
_Username = Annotated[str, Meta(min_length=1, max_length=255)]


class NewProject(Input, frozen=True):
    """A project to be made."""

    name: _ProjectName
    description: _Description = ""
    is_public: bool = False
    storage_quota: int | None = None
    """Bytes; -1, for administrators: no bound. Left away: the registry's default."""


class ProjectChanges(Input, frozen=True):
    """What is to change; what is left away stays."""

    name: _ProjectName | None = None
    description: _Description | None = None
    is_public: bool | None = None
    storage_quota: int | None = None


class ProjectsQuery(Page, frozen=True):
    """Which projects."""

    sort: _Sort = "name"


class Deletion(Input, frozen=True):
    """How a project ends."""

    force: bool = False
    """With all that it holds."""


class Project(Answer, frozen=True):
    """A project."""

    id: str
    name: str
    description: str
    is_public: bool
    storage_quota: int
    """Bytes; -1: no bound."""
    storage_used: int
    image_count: int
    """Manifests that carry a tag."""
    owner_id: str
    role: str | None
    """The caller's; null for who is no member."""
    created_at: Time
    updated_at: Time


class ProjectList(Listing, frozen=True):
    """A page of projects."""

    projects: list[Project]


class Storage(Answer, frozen=True):
    """What a project takes of what it may hold, in bytes."""

    quota: int
    used: int
    """Each blob and manifest once."""
    reserved: int
    """Kept for uploads that are under way."""
    left: int
    percent: float
    physical: int
    """The part of it that no other project holds as well: what its end would free."""


class NewMember(Input, frozen=True):
    """Who joins, by name or by id, and as what."""

    role: _Role
    username: _Username | None = None
    user_id: _Id | None = None


class RoleChange(Input, frozen=True):
    """What a member is from now on."""

    role: _Role


class Member(Answer, frozen=True):
    """A member of a project."""

    user_id: str
    username: str
    role: str
    added_at: Time


class MemberList(Answer, frozen=True):
    """All members, by name."""

    members: list[Member]
    total: int


_HIDDEN = (Code.PROJECT_NOT_FOUND, Code.PERMISSION_MISSING)


class ProjectHandlers:
    """The handlers."""

    def __init__(self, projects: Projects, members: Members) -> None:
        self._projects = projects
        self._members = members

    def routes(self) -> list[Route]:
        """Return what the API serves of it."""
        return [*self._project_routes(), *self._member_routes()]

    def _project_routes(self) -> list[Route]:
        all_, one = f"{PREFIX}/projects", f"{PREFIX}/projects/{{id}}"
        return [
            Route(
                "GET", all_, self.list, in_projects(Scope.READ),
                query=ProjectsQuery, answer=ProjectList,
                tag="projects", summary="List the projects that one may see",
            ),
            Route(
                "POST", all_, self.create, in_projects(Scope.WRITE),
                body=NewProject, answer=Project, status=201,
                refusals=(Code.PROJECT_EXISTS, Code.PERMISSION_MISSING),
                tag="projects", summary="Make a project and be its owner",
            ),
            Route(
                "GET", one, self.get, in_projects(Scope.READ),
                answer=Project, refusals=_HIDDEN, tag="projects", summary="Show a project",
            ),
            Route(
                "PUT", one, self.update, in_projects(Scope.WRITE),
                body=ProjectChanges, answer=Project,
                refusals=(*_HIDDEN, Code.PROJECT_EXISTS, Code.NOT_IN_THIS_STATE),
                tag="projects", summary="Change a project's settings",
            ),
            Route(
                "DELETE", one, self.delete, in_projects(Scope.ADMIN),
                query=Deletion, refusals=(*_HIDDEN, Code.NOT_IN_THIS_STATE),
                tag="projects", summary="End a project",
            ),
            Route(
                "GET", f"{one}/storage", self.storage, in_projects(Scope.READ),
                answer=Storage, refusals=_HIDDEN,
                tag="projects", summary="Tell what a project takes",
            ),
        ]  # fmt: skip

    def _member_routes(self) -> list[Route]:
        all_ = f"{PREFIX}/projects/{{id}}/members"
        one = f"{all_}/{{userId}}"
        refusals = (*_HIDDEN, Code.MEMBER_NOT_FOUND, Code.NOT_IN_THIS_STATE)
        return [
            Route(
                "GET", all_, self.members, in_projects(Scope.READ),
                answer=MemberList, refusals=_HIDDEN,
                tag="projects", summary="List a project's members",
            ),
            Route(
                "POST", all_, self.add_member, in_projects(Scope.ADMIN),
                body=NewMember, answer=Member, status=201,
                refusals=(*_HIDDEN, Code.USER_NOT_FOUND, Code.NOT_IN_THIS_STATE),
                tag="projects", summary="Add a member",
            ),
            Route(
                "PUT", one, self.set_role, in_projects(Scope.ADMIN),
                body=RoleChange, answer=Member, refusals=refusals,
                tag="projects", summary="Change a member's role",
            ),
            Route(
                "DELETE", one, self.remove_member, in_projects(Scope.ADMIN),
                refusals=refusals, tag="projects", summary="Remove a member, or leave",
            ),
        ]  # fmt: skip

    # --- projects -------------------------------------------------------------------------------

    async def list(self, call: Call, query: ProjectsQuery) -> ProjectList:
        """List projects."""
        page = await self._projects.page(
            call.principal,
            number=query.page,
            size=query.page_size,
            sort=query.sort,
            keyword=query.keyword,
        )
        projects = [_project(it) for it in page.projects]
        return ProjectList(projects=projects, **query.place(page.total))

    async def create(self, call: Call, body: NewProject) -> Project:
        """Make a project."""
        details = await self._projects.create(
            call.principal,
            name=body.name,
            description=body.description,
            is_public=body.is_public,
            storage_quota=body.storage_quota,
        )
        return _project(details)

    async def get(self, call: Call) -> Project:
        """Show a project."""
        return _project(self._projects.get(call.principal, call.path["id"]))

    async def update(self, call: Call, body: ProjectChanges) -> Project:
        """Change a project."""
        changes = Changes(
            updated_at=time.time(),
            name=body.name,
            description=body.description,
            is_public=body.is_public,
            storage_quota=body.storage_quota,
        )
        return _project(await self._projects.update(call.principal, call.path["id"], changes))

    async def delete(self, call: Call, query: Deletion) -> None:
        """End a project."""
        await self._projects.delete(call.principal, call.path["id"], force=query.force)

    async def storage(self, call: Call) -> Storage:
        """Tell what a project takes."""
        return Storage(**self._projects.storage(call.principal, call.path["id"])._asdict())

    # --- members --------------------------------------------------------------------------------

    async def members(self, call: Call) -> MemberList:
        """List the members."""
        found = [_member(it) for it in self._members.list(call.principal, call.path["id"])]
        return MemberList(members=found, total=len(found))

    async def add_member(self, call: Call, body: NewMember) -> Member:
        """Add a member."""
        member = await self._members.add(
            call.principal,
            call.path["id"],
            role=body.role,
            act=call.act,
            user_id=body.user_id,
            username=body.username,
        )
        return _member(member)

    async def set_role(self, call: Call, body: RoleChange) -> Member:
        """Change a role."""
        path = call.path
        return _member(
            await self._members.set_role(
                call.principal, path["id"], path["userId"], body.role, act=call.act
            )
        )

    async def remove_member(self, call: Call) -> None:
        """Remove a member."""
        path = call.path
        await self._members.remove(call.principal, path["id"], path["userId"], act=call.act)


def _project(details: Details) -> Project:
    project, usage, role = details
    return Project(
        id=project.id,
        name=project.name,
        description=project.description,
        is_public=project.is_public,
        storage_quota=project.storage_quota,
        storage_used=usage.used,
        image_count=usage.image_count,
        owner_id=project.owner_id,
        role=role.word if role else None,
        created_at=moment(project.created_at),
        updated_at=moment(project.updated_at),
    )


def _member(named: NamedMember) -> Member:
    member = named.member
    return Member(
        user_id=member.user_id,
        username=named.username,
        role=member.role.word,
        added_at=moment(member.added_at),
    )
