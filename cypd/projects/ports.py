"""What a project is, and what the rules of projects need of a metadata store.

The contract suite in ``tests/metadata`` holds each engine to these words.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple, Protocol

import msgspec

from cypd.access import Act
from cypd.projects.scan_policy import ScanPolicy
from cypd.projects.tag_rules import TagRules

UNLIMITED = -1
"""As a quota: none."""
_BOUNDLESS = 1 << 62  # no disk has it, and sums up to it fit into 8 bytes


class Role(IntEnum):
    """What a member may do; each role includes those before it."""

    GUEST = 1
    DEVELOPER = 2
    MAINTAINER = 3
    OWNER = 4

    @property
    def word(self) -> str:
        """The role as the API writes it."""
        return self.name.lower()


class Project(msgspec.Struct, frozen=True):
    """A namespace of repositories: those whose name begins with the project's."""

    id: str
    """UUIDv4."""
    name: str
    """One component of a repository's name."""
    owner_id: str
    """A member of role owner: at first who created the project."""
    created_at: float
    """Unix seconds."""
    updated_at: float
    storage_quota: int
    """In bytes; ``UNLIMITED``."""
    description: str = ""
    is_public: bool = False
    """Everybody may pull."""
    tag_rules: TagRules = TagRules()
    scan_policy: ScanPolicy = ScanPolicy()

    @property
    def bound(self) -> int:
        """The bytes that it may hold, also where its quota says that there is no bound."""
        return _BOUNDLESS if self.storage_quota == UNLIMITED else self.storage_quota


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """What to change of a project; ``None`` leaves a field as it is."""

    updated_at: float
    name: str | None = None
    description: str | None = None
    is_public: bool | None = None
    storage_quota: int | None = None
    tag_rules: TagRules | None = None
    scan_policy: ScanPolicy | None = None

    def applied_to(self, project: Project) -> Project:
        """Return the project with these changes."""
        given = {name: it for name, it in msgspec.structs.asdict(self).items() if it is not None}
        return msgspec.structs.replace(project, **given)


class Member(msgspec.Struct, frozen=True):
    """A user's place in a project."""

    user_id: str
    role: Role
    added_at: float
    """Unix seconds."""


class Standing(NamedTuple):
    """A project as one user meets it."""

    project: Project
    role: Role | None
    """``None``: no member."""


class Usage(NamedTuple):
    """What a project takes, in bytes, exact at every commit."""

    used: int
    """The content of its blobs and manifests, each digest once."""
    reserved: int
    """Kept for uploads that are under way."""
    physical: int
    """The part of ``used`` that no other project holds as well."""
    image_count: int
    """Manifests that carry a tag."""


class Holding(NamedTuple):
    """What a project may hold and what it does, in bytes: what one looks at of all projects."""

    project_id: str
    name: str
    quota: int
    """``UNLIMITED``: no bound."""
    used: int
    reserved: int


class Totals(NamedTuple):
    """What all projects take, in bytes."""

    used: int
    """The sum of what each takes."""
    physical: int
    """Each digest once."""


class ProjectStore(Protocol):
    """Projects, their members, and what they take.

    As for all metadata: reads are plain calls, writes are whole intentions, durable when awaited.
    Every write to a project that does not exist raises PROJECT_NOT_FOUND.
    """

    def project(self, project_id: str) -> Project | None:
        """Return a project."""
        ...

    def standing(self, name: str, user_id: str) -> Standing | None:
        """Return the project of that name as the user meets it."""
        ...

    def projects(self, *, after: str, limit: int) -> Sequence[Project]:
        """Return at most ``limit`` projects with names greater than ``after``, ascending."""
        ...

    def member(self, project_id: str, user_id: str) -> Member | None:
        """Return a user's place in a project."""
        ...

    def members(self, project_id: str) -> Sequence[Member]:
        """Return the members, ascending by user id."""
        ...

    def usage(self, project_id: str) -> Usage:
        """Return what a project takes; nothing, if it does not exist."""
        ...

    def totals(self) -> Totals:
        """Return what all projects take."""
        ...

    def holdings(self, *, after: str, limit: int) -> Sequence[Holding]:
        """Return at most ``limit`` projects with ids greater than ``after``, ascending."""
        ...

    async def create_project(self, project: Project) -> None:
        """Create a project with its owner as member; raise PROJECT_EXISTS for a name in use."""
        ...

    async def change_project(self, project_id: str, changes: Changes) -> Project:
        """Change a project and return it.

        Raises PROJECT_EXISTS for a name in use, and NOT_IN_THIS_STATE for a new name while it holds
        anything: its repositories bear the old one.
        """
        ...

    async def delete_project(self, project_id: str, *, force: bool, limit: int) -> bool:
        """Take at most ``limit`` things out of it, and the project itself when nothing is left.

        Returns whether it is gone, so that a large project takes many calls and blocks nobody.
        Unless ``force``, raises NOT_IN_THIS_STATE while it holds images.
        """
        ...

    async def add_member(self, project_id: str, member: Member, *, act: Act) -> None:
        """Add a member; raise NOT_IN_THIS_STATE if they are one."""
        ...

    async def set_role(self, project_id: str, user_id: str, role: Role, *, act: Act) -> Member:
        """Change a member's role.

        Raises MEMBER_NOT_FOUND, and NOT_IN_THIS_STATE for the last owner. Where it was the
        project's ``owner_id``, the owner who was added first takes that place.
        """
        ...

    async def remove_member(self, project_id: str, user_id: str, *, act: Act) -> None:
        """Remove a member; as ``set_role``."""
        ...


class Directory(Protocol):
    """Who the users are, as far as projects need to know."""

    def name_of(self, user_id: str) -> str | None:
        """Return the name of a user."""
        ...

    def id_of(self, name: str) -> str | None:
        """Return the id of the user of that name, however it is spelt."""
        ...
