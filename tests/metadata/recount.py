"""What projects take and lists tell, counted anew from what repositories hold.

Through the public surface alone, for a store of any engine that nobody writes to meanwhile.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Protocol

from cypd.oci.digest import Digest
from cypd.oci.names import RepositoryName
from cypd.projects.ports import ProjectStore, Totals, Usage
from cypd.registry.inventory_ports import InventoryStore, Window
from cypd.registry.ports import MetadataStore

_ALL = 1_000_000
_WHOLE = Window(0, _ALL)


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

    @property
    def inventory(self) -> InventoryStore:
        """Lists."""
        ...


def check_counters(stores: Stores, digests: Iterable[Digest]) -> None:
    """Hold every counter and list to what projects hold of all digests there ever were."""
    digests = set(digests)
    _check_lists(stores, digests)
    holdings, images = _holdings(stores.registry, digests)
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


def _check_lists(stores: Stores, digests: set[Digest]) -> None:
    """Hold the lists to what can be pulled, and their sums to the items they are of."""
    registry, inventory = stores.registry, stores.inventory
    names = list(registry.repositories(after="", limit=_ALL))
    projects = {it.name: it.id for it in stores.projects.projects(after="", limit=_ALL)}
    listed = inventory.list_repositories(None, _WHOLE)
    assert (names, len(names)) == ([it.name for it in listed.items], listed.total)
    for project_id in projects.values():
        theirs = inventory.list_repositories([project_id], _WHOLE).items
        assert [it for it in listed.items if it.project_id == project_id] == list(theirs)
    for it in listed.items:
        sizes = {digest: _size(registry, it.name, digest) for digest in digests}
        manifests = {digest for digest in digests if registry.manifest(it.name, digest)}
        tags = registry.tags(it.name, after="", limit=_ALL)
        assert it.project_id == projects[it.name.project]
        assert it.size == sum(size or 0 for size in sizes.values()), it
        assert (it.tag_count, it.manifest_count) == (len(tags), len(manifests)), it
        by_digest = inventory.list_manifests(it.name, _WHOLE).items
        by_name = inventory.list_tags(it.name, _WHOLE).items
        by_time = inventory.list_tags(it.name, _WHOLE, by_time=True).items
        assert sorted(manifests) == [manifest.digest for manifest in by_digest]
        assert list(tags) == [tag.name for tag in by_name]
        assert sorted(by_name, key=lambda tag: (tag.pushed_at, tag.name)) == list(by_time)
        for tag in by_name:
            found = registry.manifest(it.name, tag.name)
            assert found is not None
            assert (found.digest, found.media_type) == (tag.digest, tag.media_type)
        subjects = Counter(manifest.subject for manifest in by_digest)
        for manifest in by_digest:
            assert manifest.referrer_count == subjects[manifest.digest]
            assert set(manifest.tags) <= {
                tag.name for tag in by_name if tag.digest == manifest.digest
            }


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
    found = manifest or registry.blob(repository, digest)
    return found.size if found else None


def _sizes_of_shared(stores: Stores, held_by: Counter[Digest]) -> int:
    names = [project.name for project in stores.projects.projects(after="", limit=_ALL)]
    sizes = 0
    for digest in (digest for digest, projects in held_by.items() if projects > 1):
        found = (stores.registry.held_size(RepositoryName(name), digest) for name in names)
        sizes += next(size for size in found if size is not None)
    return sizes
