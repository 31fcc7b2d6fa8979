"""``cypd project``: which there are, what they take, and what they may take."""

import argparse
import asyncio
import time
from collections.abc import Iterator

from cypd.commands.output import tell
from cypd.commands.sizes import readable
from cypd.commands.store import note, opened
from cypd.config import Config
from cypd.metadata.lmdb import LmdbMetadata
from cypd.projects.ports import Changes, Project, ProjectStore, Usage
from cypd.projects.projects import storage_of
from cypd.refusals import Code, Refusal

_PAGE = 256


def show_all(config: Config, options: argparse.Namespace) -> int:
    """List the projects, with what they take."""
    with opened(config) as metadata:
        found = [(it, metadata.projects.usage(it.id)) for it in _all(metadata.projects)]
    if options.json:
        tell([_document(*it) for it in found])
        return 0
    print(f"{'NAME':<32} {'OPEN TO':<8} {'IMAGES':>8} {'USED':>12} {'QUOTA':>12}")
    for project, usage in found:
        reader = "all" if project.is_public else "members"
        used, most = readable(usage.used), readable(project.storage_quota)
        print(f"{project.name:<32} {reader:<8} {usage.image_count:>8} {used:>12} {most:>12}")
    return 0


def quota(config: Config, options: argparse.Namespace) -> int:
    """Show or set a quota."""
    with opened(config) as metadata:
        standing = metadata.projects.standing(options.name, "")
        if standing is None:
            raise Refusal(Code.PROJECT_NOT_FOUND)
        project = standing.project
        if options.bytes is not None:
            changes = Changes(updated_at=time.time(), storage_quota=options.bytes)
            project = asyncio.run(_change(metadata, project, changes))
        usage = metadata.projects.usage(project.id)
    if options.json:
        tell(_document(project, usage))
        return 0
    storage = storage_of(project, usage)
    print(f"quota     {readable(storage.quota)}")
    print(f"used      {readable(storage.used)} ({storage.percent}%)")
    print(f"reserved  {readable(storage.reserved)}")
    print(f"left      {readable(storage.left)}")
    return 0


async def _change(metadata: LmdbMetadata, project: Project, changes: Changes) -> Project:
    changed = await metadata.projects.change_project(project.id, changes)
    quota = str(changed.storage_quota)
    await note(metadata, "projects.update", name=project.name, storage_quota=quota)
    return changed


def _all(store: ProjectStore) -> Iterator[Project]:
    after = ""
    while page := store.projects(after=after, limit=_PAGE):
        yield from page
        after = page[-1].name


def _document(project: Project, usage: Usage) -> dict[str, object]:
    return {
        "id": project.id,
        "name": project.name,
        "is_public": project.is_public,
        "owner_id": project.owner_id,
        "image_count": usage.image_count,
        **storage_of(project, usage)._asdict(),
    }
