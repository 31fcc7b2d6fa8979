"""What lists of repositories, tags and manifests need: of a metadata store, and of the projects.

The contract suite in ``tests/metadata`` holds each engine to these words.
"""

from collections.abc import Sequence
from typing import Generic, Literal, NamedTuple, Protocol, TypeVar

import msgspec

from cypd.access import Act, Action, Principal
from cypd.oci.digest import Digest
from cypd.oci.names import RepositoryName, Tag

MAX_TAGS = 100
"""How many of its tags a manifest is listed with."""

MAX_SIZE = 1 << 62
"""Where sizes end: an index of indexes may list the same bytes any number of times."""

ScanStatus = Literal["pending", "running", "succeeded", "failed", "cancelled"]

T = TypeVar("T")


class Window(NamedTuple):
    """Which part of a list."""

    offset: int
    limit: int
    keyword: str = ""
    """What stands in the name, in whatever case."""
    reverse: bool = False
    """From the end; ``offset`` counts from there."""


class Found(NamedTuple, Generic[T]):
    """A part of a list, and how long the list is."""

    items: Sequence[T]
    total: int


class Repository(NamedTuple):
    """A repository as it is listed."""

    name: RepositoryName
    project_id: str
    tag_count: int
    manifest_count: int
    size: int
    """Bytes of its blobs and manifests, each digest once."""
    push_count: int
    """Manifests that were pushed, each time they were."""
    pull_count: int
    """Manifests that were pulled, by tag or by digest."""
    created_at: float
    """Unix seconds, as all times here."""
    updated_at: float
    """When a manifest or tag was last pushed or deleted."""
    last_pulled_at: float | None


class TaggedManifest(NamedTuple):
    """A tag as it is listed, with what it points at."""

    name: Tag
    digest: Digest
    media_type: str
    artifact_type: str | None
    size: int
    """Bytes of the manifest and of all that it listed when it was pushed, at most ``MAX_SIZE``."""
    platforms: Sequence[str]
    """``os/architecture``, or with a variant after another slash."""
    pushed_at: float
    pushed_by: str
    """A user's name at that time."""
    pull_count: int
    """Pulls by this tag, whatever it pointed at."""
    last_pulled_at: float | None
    scan_status: ScanStatus | None = None
    """Of the newest scan of what it points at; ``None``, if there is none."""


class ListedManifest(NamedTuple):
    """A manifest as it is listed."""

    digest: Digest
    media_type: str
    artifact_type: str | None
    size: int
    """As of a tag."""
    tags: Sequence[Tag]
    """The first ``MAX_TAGS`` by name."""
    platforms: Sequence[str]
    subject: Digest | None
    referrer_count: int
    pushed_at: float
    pull_count: int
    """Pulls by digest and by tag."""
    last_pulled_at: float | None


class Pulls(msgspec.Struct, frozen=True):
    """Pulls of one manifest by one reference."""

    repository: RepositoryName
    digest: Digest
    tag: Tag | None
    """``None``: by digest."""
    count: int
    act: Act
    """Of the last one."""


class InventoryStore(Protocol):
    """What repositories hold, in parts of lists.

    A part costs the same wherever in a list it is; a keyword is looked for in all names. What does
    not exist has empty lists.
    """

    def list_repositories(
        self, projects: Sequence[str] | None, window: Window
    ) -> Found[Repository]:
        """Return repositories by name; with the ids of ``projects`` theirs, one after another."""
        ...

    def list_tags(
        self, repository: RepositoryName, window: Window, *, by_time: bool = False
    ) -> Found[TaggedManifest]:
        """Return tags by name, or by when they were last pushed."""
        ...

    def list_manifests(self, repository: RepositoryName, window: Window) -> Found[ListedManifest]:
        """Return manifests by digest."""
        ...

    async def note_pulls(self, pulls: Sequence[Pulls], *, tell: bool = False) -> None:
        """Count pulls; those of what is gone meanwhile are passed over.

        With ``tell`` there is an event for each manifest, however often and by whatever name it was
        pulled.
        """
        ...


class ProjectRights(Protocol):
    """What projects say of who may see and do what."""

    def readable(self, principal: Principal, name: str) -> str | None:
        """Return the id of the project of that name, if there is one that they may read."""
        ...

    async def all_readable(self, principal: Principal) -> Sequence[str] | None:
        """Return the ids of all projects that they may read, in the order of their repositories.

        ``None``: every project.
        """
        ...

    def require(self, principal: Principal, action: Action, project_id: str) -> object:
        """Raise Refusal unless they may do this in a project that they may read."""
        ...
