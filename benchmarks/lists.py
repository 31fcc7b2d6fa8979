"""Claim: a page of a list costs the same wherever it is, and however long the list."""

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from uuid import uuid4

from benchmarks.credentials import sign_in
from benchmarks.figures import SUBJECT, Figure, Result, Target
from benchmarks.kernel import Window
from benchmarks.lab import Lab, Sample
from benchmarks.oci import Blob, manifest
from benchmarks.servers import Cypd
from benchmarks.small_pulls import answered, load
from cypd.access import Act
from cypd.metadata.lmdb import LmdbMetadata
from cypd.oci.digest import Digest
from cypd.oci.manifest import Manifest, parse
from cypd.oci.media_types import OCI_MANIFEST
from cypd.oci.names import RepositoryName, Tag
from cypd.projects.ports import UNLIMITED, Project

SHORT = "cypd, a list of 1,000"
_SHORT_ROWS = 1000
_MOST = 3.0  # times what the same costs of the short list
_PAGE = 20
_BATCH = 1000
_PROJECT = "benchmarks"
_REPOSITORY = RepositoryName(f"{_PROJECT}/tagged")
_MAP_BYTES = 16 << 30


class _Listed(NamedTuple):
    """A registry with as many repositories as one of them has tags."""

    server: Cypd
    authorization: str
    rows: int


def run(lab: Lab) -> Iterator[Result]:
    """GET the first page, the last, and what a keyword finds, of a short list and a long one."""
    if SUBJECT not in lab.servers:
        return
    with (
        TemporaryDirectory(prefix="benchmarks-") as directory,
        Cypd(Path(directory) / "long", lab.server_cpu) as long,
        Cypd(Path(directory) / "short", lab.server_cpu) as short,
    ):
        registries = {
            name: _Listed(server, sign_in(server), rows)
            for name, server, rows in (
                (SUBJECT, long, lab.scale.rows),
                (SHORT, short, _SHORT_ROWS),
            )
        }
        for registry in registries.values():
            asyncio.run(_fill(registry.server.directory / "state" / "metadata", registry.rows))
        lists = {"repositories": "repositories", "tags": f"repositories/{_REPOSITORY}/tags"}
        for noun, path in lists.items():
            for page, query in _pages().items():
                yield _compare(lab, registries, f"{noun}, {page}", f"/api/v1/{path}?{query}")


def _pages() -> Mapping[str, str]:
    return {
        "first page": "page=1",
        "last page": "page={last}",
        "last page, backwards": "page={last}&sort=-name",
        "a keyword of one": "keyword=-000777",
        "a keyword of all": "keyword=service",
    }


def _compare(lab: Lab, registries: Mapping[str, _Listed], name: str, path: str) -> Result:
    def take(which: str) -> Sample:
        registry = registries[which]
        url = registry.server.url + path.format(last=registry.rows // _PAGE)
        with Window(registry.server.pid) as window:
            report = load(url, lab.scale.seconds, f"Authorization: {registry.authorization}")
        return Sample.cpu_per(answered(report) / 1000, window)

    figure = Figure(f"GET {name}", "CPU-ms", "lower", [Target(_MOST, SHORT)])
    return lab.alternate(figure, list(registries), take)


async def _fill(path: Path, rows: int) -> None:
    """Push beside the daemon, through its own store: by HTTP it would take a while."""
    metadata = LmdbMetadata(path, _MAP_BYTES)
    try:
        await metadata.projects.create_project(
            Project(str(uuid4()), _PROJECT, "nobody", 0.0, 0.0, UNLIMITED)
        )
        content = manifest(Blob.of(b"{}"), [])
        image = parse(content, OCI_MANIFEST, Digest.of(content))
        names = [f"service-{i:06}" for i in range(rows)]
        for start in range(0, rows, _BATCH):
            some = names[start : start + _BATCH]
            pushes = [_put(metadata, RepositoryName(f"{_PROJECT}/{it}"), image) for it in some]
            await asyncio.gather(*pushes, _put(metadata, _REPOSITORY, image, *map(Tag, some)))
    finally:
        metadata.close()


async def _put(
    metadata: LmdbMetadata, repository: RepositoryName, image: Manifest, *tags: Tag
) -> None:
    await metadata.registry.put_manifest(
        repository, image, tags, inline=True, allow_sparse=True, act=Act(0.0, name="admin")
    )
