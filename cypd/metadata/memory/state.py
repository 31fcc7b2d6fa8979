"""What the stores in memory share, and what can be told by looking at all of it."""

from dataclasses import dataclass, field

from cypd.oci.digest import Digest
from cypd.oci.manifest import Manifest
from cypd.oci.names import RepositoryName, Tag
from cypd.projects.ports import Member, Project, Totals, Usage
from cypd.registry.ports import Upload, no_project, over_quota


@dataclass
class Repository:
    """What a repository holds."""

    blobs: dict[Digest, int] = field(default_factory=dict)
    manifests: dict[Digest, tuple[Manifest, bool]] = field(default_factory=dict)
    tags: dict[Tag, Digest] = field(default_factory=dict)

    def lists(self, digest: Digest) -> bool:
        """Tell whether a manifest lists the digest."""
        return any(digest in (*m.blobs, *m.manifests) for m, _ in self.manifests.values())

    def sizes(self) -> dict[Digest, int]:
        """Return all content with its sizes."""
        return self.blobs | {it: len(m.content) for it, (m, _) in self.manifests.items()}


@dataclass
class State:
    """Everything there is. Nothing is counted as it changes: it is summed up when asked for."""

    repositories: dict[RepositoryName, Repository] = field(default_factory=dict)
    uploads: dict[str, Upload] = field(default_factory=dict)
    projects: dict[str, Project] = field(default_factory=dict)
    members: dict[str, dict[str, Member]] = field(default_factory=dict)

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
