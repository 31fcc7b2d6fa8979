"""Lists of what there is, from dictionaries."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from cypd.metadata.memory.state import Facts, Repository, State
from cypd.oci.digest import Digest
from cypd.oci.names import RepositoryName, Tag
from cypd.registry import inventory_ports as ports
from cypd.registry.inventory_ports import Found, ListedManifest, Pulls, TaggedManifest, Window

T = TypeVar("T")


class MemoryInventory:
    """The contract of ``InventoryStore``."""

    def __init__(self, state: State) -> None:
        self._state = state

    def list_repositories(
        self, projects: Sequence[str] | None, window: Window
    ) -> Found[ports.Repository]:
        every = sorted(self._state.repositories)
        if projects is not None:
            owners = [
                self._state.projects[it].name for it in projects if it in self._state.projects
            ]
            every = [name for owner in owners for name in every if name.project == owner]
        return _part(every, window, self._repository)

    def list_tags(
        self, repository: RepositoryName, window: Window, *, by_time: bool = False
    ) -> Found[TaggedManifest]:
        found = self._state.repositories.get(repository) or Repository()
        tags = sorted(found.tags)
        if by_time:
            tags.sort(key=lambda tag: found.pushes[tag].pushed_at)
        return _part(tags, window, lambda tag: _tag(found, tag))

    def list_manifests(self, repository: RepositoryName, window: Window) -> Found[ListedManifest]:
        found = self._state.repositories.get(repository) or Repository()
        return _part(sorted(found.manifests), window, lambda digest: _manifest(found, digest))

    async def note_pulls(self, pulls: Sequence[Pulls], *, tell: bool = False) -> None:
        for it in pulls:
            found = self._state.repositories.get(it.repository)
            if found is None:
                continue
            pulled = [found.facts]
            if it.digest in found.manifests:
                pulled.append(found.pushes[it.digest])
            if it.tag in found.tags:
                pulled.append(found.pushes[it.tag])
            for facts in pulled:
                facts.pull_count += it.count
                facts.last_pulled_at = max(it.act.at, facts.last_pulled_at or 0.0)

    def _repository(self, name: RepositoryName) -> ports.Repository:
        found = self._state.repositories[name]
        return ports.Repository(
            name=name,
            project_id=self._state.require_project(name).id,
            tag_count=len(found.tags),
            manifest_count=len(found.manifests),
            size=sum(found.sizes().values()),
            push_count=found.push_count,
            pull_count=found.facts.pull_count,
            created_at=found.created_at,
            updated_at=found.facts.pushed_at,
            last_pulled_at=found.facts.last_pulled_at,
        )


def _part(names: Sequence[T], window: Window, tell: Callable[[T], ports.T]) -> Found[ports.T]:
    keyword = window.keyword.lower()
    found = [name for name in names if keyword in str(name).lower()]
    if window.reverse:
        found.reverse()
    part = found[window.offset : window.offset + window.limit]
    return Found([tell(name) for name in part], len(found))


def _tag(found: Repository, tag: Tag) -> TaggedManifest:
    digest = found.tags[tag]
    manifest, _ = found.manifests[digest]
    of_tag, of_manifest = found.pushes[tag], found.pushes[digest]
    return TaggedManifest(
        name=tag,
        digest=digest,
        media_type=manifest.media_type,
        artifact_type=manifest.artifact_type,
        size=of_manifest.size,
        platforms=list(manifest.platforms),
        pushed_at=of_tag.pushed_at,
        pushed_by=of_tag.pushed_by,
        pull_count=of_tag.pull_count,
        last_pulled_at=of_tag.last_pulled_at,
    )


def _manifest(found: Repository, digest: Digest) -> ListedManifest:
    manifest, _ = found.manifests[digest]
    facts: Facts = found.pushes[digest]
    return ListedManifest(
        digest=digest,
        media_type=manifest.media_type,
        artifact_type=manifest.artifact_type,
        size=facts.size,
        tags=found.tags_of(digest)[: ports.MAX_TAGS],
        platforms=list(manifest.platforms),
        subject=manifest.subject,
        referrer_count=sum(m.subject == digest for m, _ in found.manifests.values()),
        pushed_at=facts.pushed_at,
        pull_count=facts.pull_count,
        last_pulled_at=facts.last_pulled_at,
    )
