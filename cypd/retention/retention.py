"""Takes away the tags that no rule keeps any longer, and tells beforehand which those would be."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from typing import NamedTuple

from cypd.access import Act, Action, Principal
from cypd.oci.names import RepositoryName, Tag
from cypd.projects.access import ProjectAccess
from cypd.projects.ports import Project, ProjectStore
from cypd.projects.tag_rules import TagRules, require_valid
from cypd.registry.inventory_ports import InventoryStore, TaggedManifest, Window
from cypd.registry.ports import MetadataStore
from cypd.retention.plan import Doomed, plan

log = logging.getLogger(__name__)

MAX_LISTED = 1000
"""Tags of a dry run."""
_STEP = 100  # rows that are read in one go


class Trial(NamedTuple):
    """What a round would take of a project."""

    doomed: list[tuple[RepositoryName, Doomed]]
    """The first ``MAX_LISTED``, by repository."""
    total: int
    kept: int
    """How many tags would stay."""


class _Plan(NamedTuple):
    """What is to happen to a repository."""

    repository: RepositoryName
    doomed: list[Doomed]
    kept: int


class Retention:
    """Keeps projects to their rules of retention."""

    def __init__(
        self,
        projects: ProjectStore,
        access: ProjectAccess,
        registry: MetadataStore,
        inventory: InventoryStore,
        *,
        delete_enabled: bool,
    ) -> None:
        self._projects = projects
        self._access = access
        self._registry = registry
        self._inventory = inventory
        self._delete_enabled = delete_enabled

    async def run(self) -> None:
        """Do one round; it may run beside pushes and pulls, and be cut off anywhere.

        Where deleting is switched off, it does nothing.
        """
        if not self._delete_enabled:
            return
        after = ""
        while some := self._projects.projects(after=after, limit=_STEP):
            for project in some:
                if project.tag_rules.retention:
                    await self._expire(project)
            after = some[-1].name
            await asyncio.sleep(0)  # others have their turn, however many projects there are

    async def dry_run(self, principal: Principal, project_id: str, rules: TagRules) -> Trial:
        """Return what a round would take now if these were the project's rules.

        Raises what keeps one from changing them, and VALIDATION_FAILED as changing them does.
        """
        project = self._access.require(principal, Action.SETTINGS, project_id)
        require_valid(rules)
        doomed: list[tuple[RepositoryName, Doomed]] = []
        total = kept = 0
        async for it in self._plans(project, rules):
            room = MAX_LISTED - len(doomed)
            doomed += [(it.repository, each) for each in it.doomed[:room]]
            total, kept = total + len(it.doomed), kept + it.kept
        return Trial(doomed, total, kept)

    async def _expire(self, project: Project) -> None:
        tags = repositories = 0
        try:
            async for it in self._plans(project, project.tag_rules):
                gone = [await self._take(it.repository, tag) for tag, _ in it.doomed]
                tags += sum(gone)
                repositories += any(gone)
        finally:
            if tags:
                log.info(
                    "retention: removed %d tags of %d repositories of project %s",
                    tags,
                    repositories,
                    project.name,
                )

    async def _take(self, repository: RepositoryName, tag: TaggedManifest) -> bool:
        act = Act(time.time(), name="retention")
        return await self._registry.expire_tag(
            repository, tag.name, pushed_at=tag.pushed_at, act=act
        )

    # --- plans ----------------------------------------------------------------------------------

    async def _plans(self, project: Project, rules: TagRules) -> AsyncIterator[_Plan]:
        async for repository in self._repositories(project):
            tags = await self._tags(repository)
            path = repository.removeprefix(project.name).removeprefix("/")
            # In a thread: patterns against all tags of a large repository take their time.
            doomed = await asyncio.to_thread(plan, rules, path, tags, time.time())
            yield _Plan(repository, list(doomed), len(tags) - len(doomed))

    async def _repositories(self, project: Project) -> AsyncIterator[RepositoryName]:
        offset = 0
        while some := self._inventory.list_repositories([project.id], Window(offset, _STEP)).items:
            for it in some:
                yield it.name
            offset += _STEP

    async def _tags(self, repository: RepositoryName) -> list[TaggedManifest]:
        found: dict[Tag, TaggedManifest] = {}  # a push may shift one onto the next page as well
        offset = 0
        while some := self._inventory.list_tags(repository, Window(offset, _STEP)).items:
            found |= {it.name: it for it in some}
            offset += _STEP
            await asyncio.sleep(0)
        return list(found.values())
