"""What projects take, counted anew from what repositories hold, and held against the counters.

Through the public surface alone, for a store of any engine that nobody writes to meanwhile.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Protocol

from cypd.oci.digest import Digest
from cypd.oci.names import RepositoryName
from cypd.projects.ports import ProjectStore, Totals, Usage
from cypd.registry.ports import MetadataStore

_ALL = 1_000_000


class Stores(Protocol):
    """The part of a metadata store that is looked at."""

    @property
    def registry(self) -> MetadataStore:
        """Repositories."""
        ...

    @property
    def projects(self) -> ProjectStore:
        """Projects."""
        ...


def check_counters(stores: Stores, digests: Iterable[Digest]) -> None:
    """Hold the counters of every project to what it holds of all digests there ever were."""
    holdings, images = _holdings(stores.registry, set(digests))
    reserved: Counter[str] = Counter()
    for upload in stores.registry.uploads(started_before=float("inf")):
        reserved[upload.repository.project] += upload.reserved
    held_by = Counter(digest for content in holdings.values() for digest in content)
    totals = Totals(0, 0)
    for project in stores.projects.projects(after="", limit=_ALL):
        content = holdings.pop(project.name, {})
        alone = {digest: size for digest, size in content.items() if held_by[digest] == 1}
        used = sum(content.values())
        counted = Usage(used, reserved[project.name], sum(alone.values()), images[project.name])
        assert stores.projects.usage(project.id) == counted, project
        assert project.storage_quota < 0 or used <= project.storage_quota, project
        totals = Totals(totals.used + used, totals.physical + sum(alone.values()))
    assert not holdings, "content without a project"
    shared = _sizes_of_shared(stores, held_by)
    assert stores.projects.totals() == Totals(totals.used, totals.physical + shared)


def _holdings(
    registry: MetadataStore, digests: set[Digest]
) -> tuple[dict[str, dict[Digest, int]], Counter[str]]:
    """Return, by project, its content with the sizes, and how many images it has."""
    holdings: dict[str, dict[Digest, int]] = {}
    images: Counter[str] = Counter()
    for repository in registry.repositories(after="", limit=_ALL):
        content = holdings.setdefault(repository.project, {})
        for digest in digests:
            size = _size(registry, repository, digest)
            if size is not None:
                content[digest] = size
        tags = registry.tags(repository, after="", limit=_ALL)
        tagged = {registry.manifest(repository, tag) for tag in tags}
        images[repository.project] += len(tagged)
    return holdings, images


def _size(registry: MetadataStore, repository: RepositoryName, digest: Digest) -> int | None:
    manifest = registry.manifest(repository, digest)
    return manifest.size if manifest else registry.blob_size(repository, digest)


def _sizes_of_shared(stores: Stores, held_by: Counter[Digest]) -> int:
    names = [project.name for project in stores.projects.projects(after="", limit=_ALL)]
    sizes = 0
    for digest in (digest for digest, projects in held_by.items() if projects > 1):
        found = (stores.registry.held_size(RepositoryName(name), digest) for name in names)
        sizes += next(size for size in found if size is not None)
    return sizes
