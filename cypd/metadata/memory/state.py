"""What the stores in memory share, and what can be told by looking at all of it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cypd.access import Act
from cypd.oci.digest import Digest
from cypd.oci.manifest import Manifest
from cypd.oci.names import RepositoryName, Tag
from cypd.projects.ports import Member, Project, Totals, Usage
from cypd.projects.tag_rules import TagRules
from cypd.registry.inventory_ports import MAX_SIZE
from cypd.registry.ports import Upload, immutable_tag, no_project, over_quota


@dataclass
class Facts:
    """What is known of a repository, tag or manifest that was pushed."""

    pushed_at: float = 0.0
    pushed_by: str = ""
    size: int = 0
    """Of a manifest, with all that it lists."""
    pull_count: int = 0
    last_pulled_at: float | None = None


@dataclass
class Repository:
    """What a repository holds."""

    blobs: dict[Digest, int] = field(default_factory=dict)
    loose: dict[Digest, float] = field(default_factory=dict)
    """Blobs that no manifest lists, with since when."""
    manifests: dict[Digest, tuple[Manifest, bool]] = field(default_factory=dict)
    tags: dict[Tag, Digest] = field(default_factory=dict)
    pushes: dict[Tag | Digest, Facts] = field(default_factory=dict)
    """Of what is there, by tag and by digest; also of what was."""
    created_at: float = 0.0
    push_count: int = 0
    facts: Facts = field(default_factory=Facts)

    def lists(self, digest: Digest) -> bool:
        """Tell whether a manifest lists the digest."""
        return any(digest in (*m.blobs, *m.manifests) for m, _ in self.manifests.values())

    def loosen(self, now: float, *again: Digest) -> None:
        """See which blobs are loose; those pushed ``again`` are so since now."""
        kept = {it: since for it, since in self.loose.items() if it not in again}
        self.loose = {it: kept.get(it, now) for it in self.blobs if not self.lists(it)}

    def tags_of(self, digest: Digest) -> list[Tag]:
        """Return the tags of a manifest."""
        return sorted(tag for tag, it in self.tags.items() if it == digest)

    def sizes(self) -> dict[Digest, int]:
        """Return all content with its sizes."""
        return self.blobs | {it: len(m.content) for it, (m, _) in self.manifests.items()}

    def full_size(self, manifest: Manifest) -> int:
        """Return the size of a manifest that is pushed, with all that it lists and that is here."""
        blobs = sum(self.blobs.get(it, 0) for it in set(manifest.blobs))
        children = set(manifest.manifests) & self.manifests.keys()
        listed = blobs + sum(self.pushes[it].size for it in children)
        return min(len(manifest.content) + listed, MAX_SIZE)

    def note_push(self, what: Tag | Digest, was_there: bool, act: Act, size: int = 0) -> None:
        """Note a push; the pulls of what was there stay counted."""
        facts = self.pushes[what] if was_there else Facts()
        facts.pushed_at, facts.pushed_by, facts.size = act.at, act.name, size
        self.pushes[what] = facts


@dataclass
class State:
    """Everything there is. Nothing is counted as it changes: it is summed up when asked for."""

    repositories: dict[RepositoryName, Repository] = field(default_factory=dict)
    uploads: dict[str, Upload] = field(default_factory=dict)
    projects: dict[str, Project] = field(default_factory=dict)
    members: dict[str, dict[str, Member]] = field(default_factory=dict)
    clock: Callable[[], float] = time.time

    def project(self, name: str) -> Project | None:
        """Return the project of that name."""
        return next((it for it in self.projects.values() if it.name == name), None)

    def holdings(self, project: Project) -> dict[Digest, int]:
        """Return the content of a project with its sizes, each digest once."""
        found: dict[Digest, int] = {}
        for name, repository in self.repositories.items():
            if name.project == project.name:
                found |= repository.sizes()
        return found

    def usage(self, project: Project) -> Usage:
        """Return what a project takes."""
        content = self.holdings(project)
        others = [self.holdings(it) for it in self.projects.values() if it != project]
        alone = [size for it, size in content.items() if not any(it in other for other in others)]
        names = [it for it in self.repositories if it.project == project.name]
        images = sum(len(set(self.repositories[name].tags.values())) for name in names)
        uploads = [it for it in self.uploads.values() if it.repository.project == project.name]
        reserved = sum(upload.reserved for upload in uploads)
        return Usage(sum(content.values()), reserved, sum(alone), images)

    def totals(self) -> Totals:
        """Return what all projects take."""
        holdings = [self.holdings(project) for project in self.projects.values()]
        used = sum(sum(content.values()) for content in holdings)
        unique = {digest: size for content in holdings for digest, size in content.items()}
        return Totals(used, sum(unique.values()))

    def require_project(self, repository: RepositoryName) -> Project:
        """Return the project that a repository belongs to."""
        project = self.project(repository.project)
        if project is None:
            raise no_project(repository)
        return project

    def require_mutable(self, repository: RepositoryName, tags: Sequence[Tag]) -> None:
        """Refuse to move or delete a tag that is immutable."""
        rules = self.require_project(repository).tag_rules if tags else TagRules()
        for tag in tags:
            if rules.protects(tag):
                raise immutable_tag(tag)

    def require_room(
        self, repository: RepositoryName, size: int, own: int = 0, digest: Digest | None = None
    ) -> None:
        """Refuse what does not fit, unless it is a digest that is there already."""
        project = self.require_project(repository)
        if size == 0 or digest in self.holdings(project):
            return
        usage = self.usage(project)
        left = project.bound - usage.used - usage.reserved + own
        if size > left:
            raise over_quota(project.bound, usage.used, size, max(0, left))
