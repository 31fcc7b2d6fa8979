"""``cypd project``: which there are, what they take, and what they may take."""

import argparse
import asyncio
import re
import time
from collections.abc import Iterator

import orjson

from cypd.commands import AddConfig, note, opened
from cypd.config import Config
from cypd.metadata.lmdb import LmdbMetadata
from cypd.projects.ports import UNLIMITED, Changes, Project, ProjectStore, Usage
from cypd.projects.projects import MAX_QUOTA, storage_of
from cypd.refusals import Code, Refusal

_PAGE = 256
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_BYTES = re.compile(r"([0-9]{1,19})([KMGT]?)(?:iB)?", re.ASCII)


def add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", add_config: AddConfig
) -> None:
    """Add the commands to a command line."""
    project = commands.add_parser("project", help="look after projects and their quotas")
    actions = project.add_subparsers(required=True, metavar="COMMAND")
    listing = actions.add_parser(
        "list", help="list the projects", description="List the projects, with what they take."
    )
    listing.set_defaults(command=_list)
    quota = actions.add_parser(
        "quota",
        help="show or set a project's quota",
        description="Show what a project takes of its quota, or set the quota; it holds at once.",
    )
    quota.add_argument("name", help="the project's name")
    quota.add_argument(
        "bytes",
        nargs="?",
        type=_parse_quota,
        help="bytes, also as 512MiB, 10GiB or 2TiB; or unlimited",
    )
    quota.set_defaults(command=_quota)
    for parser in (listing, quota):
        parser.add_argument("--json", action="store_true", help="print JSON, sizes in bytes")
        add_config(parser)


def _list(config: Config, options: argparse.Namespace) -> int:
    with opened(config) as metadata:
        found = [(it, metadata.projects.usage(it.id)) for it in _all(metadata.projects)]
    if options.json:
        print(orjson.dumps([_document(*it) for it in found]).decode())
        return 0
    print(f"{'NAME':<32} {'OPEN TO':<8} {'IMAGES':>8} {'USED':>12} {'QUOTA':>12}")
    for project, usage in found:
        reader = "all" if project.is_public else "members"
        used, quota = _readable(usage.used), _readable(project.storage_quota)
        print(f"{project.name:<32} {reader:<8} {usage.image_count:>8} {used:>12} {quota:>12}")
    return 0


def _quota(config: Config, options: argparse.Namespace) -> int:
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
        print(orjson.dumps(_document(project, usage)).decode())
        return 0
    storage = storage_of(project, usage)
    print(f"quota     {_readable(storage.quota)}")
    print(f"used      {_readable(storage.used)} ({storage.percent}%)")
    print(f"reserved  {_readable(storage.reserved)}")
    print(f"left      {_readable(storage.left)}")
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


def _parse_quota(text: str) -> int:
    if text == "unlimited":
        return UNLIMITED
    match = _BYTES.fullmatch(text)
    size = int(match[1]) * _UNITS[match[2]] if match else MAX_QUOTA + 1
    if size > MAX_QUOTA:
        raise argparse.ArgumentTypeError(f"not a size: {text!r}")
    return size


def _readable(size: int) -> str:
    if size == UNLIMITED:
        return "unlimited"
    unit = next((unit for unit in reversed(_UNITS) if unit and size >= _UNITS[unit]), "")
    return f"{size / _UNITS[unit]:.1f} {unit}iB" if unit else f"{size} B"
