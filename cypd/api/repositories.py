"""Repositories, their tags and manifests: ``/api/v1/repositories``.

A repository stands in a path as it is, or with ``%2F`` for its slashes.
"""

from typing import Annotated, Literal

from msgspec import Meta

from cypd.access import Scope
from cypd.api.paging import Listing, Page
from cypd.api.people import moment
from cypd.api.routes import PREFIX, Answer, Call, Route, Time, in_projects
from cypd.oci.media_types import INDEXES
from cypd.oci.names import RepositoryName, Tag
from cypd.refusals import Code
from cypd.registry import inventory_ports as ports
from cypd.registry.inventory import Inventory
from cypd.registry.inventory_ports import Window


class RepositoriesQuery(Page, frozen=True):
    """Which repositories."""

    project: Annotated[str, Meta(max_length=255)] = ""
    """A project's name: those of this one alone."""
    sort: Literal["name", "-name"] = "name"


class TagsQuery(Page, frozen=True):
    """Which tags."""

    sort: Literal["name", "-name", "pushed_at", "-pushed_at"] = "name"


class ManifestsQuery(Page, frozen=True):
    """Which manifests; ``keyword`` is a part of their digest."""


class Repository(Answer, frozen=True):
    """A repository."""

    name: str
    project_id: str
    tag_count: int
    manifest_count: int
    size: int
    """Bytes of its blobs and manifests, each once."""
    pull_count: int
    """Manifests that were pulled, a few seconds ago at the latest."""
    push_count: int
    """Manifests that were pushed."""
    created_at: Time
    updated_at: Time
    """When a manifest or tag was last pushed or deleted."""
    last_pulled_at: Time | None


class RepositoryList(Listing, frozen=True):
    """A page of repositories."""

    repositories: list[Repository]


class TagInfo(Answer, frozen=True):
    """A tag, and the manifest that it points at."""

    name: str
    digest: str
    media_type: str
    artifact_type: str | None
    size: int
    """Bytes of the manifest and of all that it lists."""
    platforms: list[str]
    """As ``linux/amd64`` or ``linux/arm/v7``."""
    pushed_at: Time
    pushed_by: str
    """The user's name at that time."""
    last_pulled_at: Time | None
    pull_count: int
    scan_status: ports.ScanStatus | None
    """Of the newest scan of what it points at; null: never scanned."""


class TagList(Listing, frozen=True):
    """A page of tags."""

    tags: list[TagInfo]


class ManifestInfo(Answer, frozen=True):
    """A manifest."""

    digest: str
    media_type: str
    artifact_type: str | None
    size: int
    """Bytes of the manifest and of all that it lists."""
    tags: list[str]
    """The first hundred by name."""
    platform: str | None
    """An image's; null for an index, and for what runs nowhere."""
    subject: str | None
    referrer_count: int
    """Manifests whose subject it is."""
    pushed_at: Time


class ManifestList(Listing, frozen=True):
    """A page of manifests."""

    manifests: list[ManifestInfo]


_ALL = f"{PREFIX}/repositories"
# Greedy: of "a/tags/tags" the last "tags" is the route's, so the repository is "a/tags".
_ONE = f"{_ALL}/{{path:repo}}"


class RepositoryHandlers:
    """The handlers."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory

    def routes(self) -> list[Route]:
        """Return what the API serves of it."""
        return [
            Route(
                "GET", _ALL, self.list, in_projects(Scope.READ),
                query=RepositoriesQuery, answer=RepositoryList,
                refusals=(Code.PROJECT_NOT_FOUND,),
                tag="repositories", summary="List the repositories that one may read",
            ),
            Route(
                "GET", f"{_ONE}/tags", self.tags, in_projects(Scope.READ),
                query=TagsQuery, answer=TagList, refusals=(Code.IMAGE_NOT_FOUND,),
                tag="repositories", summary="List a repository's tags",
            ),
            Route(
                "DELETE", f"{_ONE}/tags/{{tag}}", self.delete_tag, in_projects(Scope.DELETE),
                refusals=(
                    Code.VALIDATION_FAILED, Code.IMAGE_NOT_FOUND, Code.TAG_NOT_FOUND,
                    Code.PERMISSION_MISSING, Code.NOT_IN_THIS_STATE,
                ),
                tag="repositories", summary="Delete a tag; what it points at stays",
            ),
            Route(
                "GET", f"{_ONE}/manifests", self.manifests, in_projects(Scope.READ),
                query=ManifestsQuery, answer=ManifestList, refusals=(Code.IMAGE_NOT_FOUND,),
                tag="repositories", summary="List a repository's manifests",
            ),
        ]  # fmt: skip

    async def list(self, call: Call, query: RepositoriesQuery) -> RepositoryList:
        """List repositories."""
        window = _window(query, query.sort)
        found = await self._inventory.repositories(call.principal, window, project=query.project)
        items = [_repository(it) for it in found.items]
        return RepositoryList(repositories=items, **query.place(found.total))

    async def tags(self, call: Call, query: TagsQuery) -> TagList:
        """List tags."""
        found = self._inventory.tags(
            call.principal,
            _repository_of(call),
            _window(query, query.sort),
            by_time=query.sort.endswith("pushed_at"),
        )
        return TagList(tags=[_tag(it) for it in found.items], **query.place(found.total))

    async def delete_tag(self, call: Call) -> None:
        """Delete a tag."""
        tag = Tag.parse(call.path["tag"])
        await self._inventory.delete_tag(call.principal, _repository_of(call), tag, act=call.act)

    async def manifests(self, call: Call, query: ManifestsQuery) -> ManifestList:
        """List manifests."""
        window = _window(query, "digest")
        found = self._inventory.manifests(call.principal, _repository_of(call), window)
        items = [_manifest(it) for it in found.items]
        return ManifestList(manifests=items, **query.place(found.total))


def _repository_of(call: Call) -> RepositoryName:
    return RepositoryName.parse(call.path["repo"])


def _window(query: Page, sort: str) -> Window:
    return Window(query.offset, query.page_size, query.keyword, sort.startswith("-"))


def _moment(seconds: float | None) -> Time | None:
    return None if seconds is None else moment(seconds)


def _repository(found: ports.Repository) -> Repository:
    return Repository(
        name=str(found.name),
        project_id=found.project_id,
        tag_count=found.tag_count,
        manifest_count=found.manifest_count,
        size=found.size,
        pull_count=found.pull_count,
        push_count=found.push_count,
        created_at=moment(found.created_at),
        updated_at=moment(found.updated_at),
        last_pulled_at=_moment(found.last_pulled_at),
    )


def _tag(found: ports.TaggedManifest) -> TagInfo:
    return TagInfo(
        name=str(found.name),
        digest=str(found.digest),
        media_type=found.media_type,
        artifact_type=found.artifact_type,
        size=found.size,
        platforms=list(found.platforms),
        pushed_at=moment(found.pushed_at),
        pushed_by=found.pushed_by,
        last_pulled_at=_moment(found.last_pulled_at),
        pull_count=found.pull_count,
        scan_status=found.scan_status,
    )


def _manifest(found: ports.ListedManifest) -> ManifestInfo:
    is_image = found.media_type not in INDEXES
    return ManifestInfo(
        digest=str(found.digest),
        media_type=found.media_type,
        artifact_type=found.artifact_type,
        size=found.size,
        tags=[str(tag) for tag in found.tags],
        platform=found.platforms[0] if is_image and found.platforms else None,
        subject=str(found.subject) if found.subject else None,
        referrer_count=found.referrer_count,
        pushed_at=moment(found.pushed_at),
    )
