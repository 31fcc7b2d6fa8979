"""The contract of ``InventoryStore``, clause by clause, for every engine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cypd.access import Act
from cypd.metadata.lmdb import LmdbMetadata
from cypd.metadata.memory import MemoryMetadata
from cypd.oci.digest import Digest
from cypd.oci.manifest import Manifest
from cypd.oci.names import RepositoryName, Tag
from cypd.registry.inventory_ports import MAX_SIZE, MAX_TAGS, Pulls, Repository, Window
from tests.samples import EMPTY, create_projects, image, index, name, parsed, project

Metadata = MemoryMetadata | LmdbMetadata

APP = name("library/app")
CONFIG = Digest.of(EMPTY)
LAYER = Digest.of(b"layer")
IMAGE = parsed(image(b"layer"))
LATEST = Tag("latest")
ALL = Window(0, 1000)


@pytest.fixture(params=["memory", "lmdb"])
def metadata(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Metadata]:
    """Each engine, where repositories begin at 1."""
    if request.param == "memory":
        model = MemoryMetadata(clock=lambda: 1.0)
        create_projects(model.projects, "library", "lib", "lib-x")
        yield model
        return
    store = LmdbMetadata(tmp_path / "metadata", 64 << 20, clock=lambda: 1.0)
    create_projects(store.projects, "library", "lib", "lib-x")
    yield store
    store.close()


async def put(
    metadata: Metadata,
    manifest: Manifest,
    *tags: str,
    at: float = 2.0,
    by: str = "ada",
    repository: RepositoryName = APP,
) -> None:
    """Push a manifest whose references need not be there."""
    await metadata.registry.put_manifest(
        repository, manifest, [Tag(tag) for tag in tags], inline=True, allow_sparse=True,
        act=Act(at, name=by),
    )  # fmt: skip


def only(metadata: Metadata) -> Repository:
    """Return the one repository."""
    (found,) = metadata.inventory.list_repositories(None, ALL).items
    return found


async def test_what_does_not_exist_has_empty_lists(metadata: Metadata) -> None:
    """No list fails, whatever is asked for."""
    inventory = metadata.inventory
    for window in (ALL, Window(5, 5), Window(0, 5, "x", reverse=True)):
        assert ([], 0) == inventory.list_repositories(None, window)
        assert ([], 0) == inventory.list_repositories(["nobody", project().id], window)
        assert ([], 0) == inventory.list_tags(APP, window)
        assert ([], 0) == inventory.list_manifests(APP, window)


async def test_a_repository_begins_with_its_first_blob(metadata: Metadata) -> None:
    """It is listed from then on, also when all of it is deleted, and until its project ends."""
    await metadata.registry.link_blob(APP, LAYER, 5, upload_id=None)
    assert (5, 0, 0) == (only(metadata).size, only(metadata).push_count, only(metadata).tag_count)
    assert (1.0, 1.0) == (only(metadata).created_at, only(metadata).updated_at)
    await put(metadata, IMAGE, "latest", at=3.0)
    assert (1.0, 3.0) == (only(metadata).created_at, only(metadata).updated_at)
    await metadata.registry.delete_manifest(APP, IMAGE.digest, act=Act(4.0))
    await metadata.registry.unlink_blob(APP, LAYER)

    left = only(metadata)
    assert (0, 0, 0, 1) == (left.size, left.tag_count, left.manifest_count, left.push_count)
    assert 4.0 == left.updated_at
    await metadata.projects.delete_project(project().id, force=True, limit=10)
    assert ([], 0) == metadata.inventory.list_repositories(None, ALL)


async def test_a_repository_counts_each_digest_once(metadata: Metadata) -> None:
    """What is a blob and a manifest takes its bytes once, and as long as it is either."""
    size = len(IMAGE.content)
    await put(metadata, IMAGE)
    await metadata.registry.link_blob(APP, IMAGE.digest, size, upload_id=None)
    await put(metadata, IMAGE, "again")
    assert size == only(metadata).size
    await metadata.registry.delete_manifest(APP, IMAGE.digest, act=Act(3.0))
    assert size == only(metadata).size
    await metadata.registry.unlink_blob(APP, IMAGE.digest)
    assert 0 == only(metadata).size


async def test_projects_are_listed_one_after_another(metadata: Metadata) -> None:
    """Theirs alone, in the order asked for, from either end and over their borders."""
    for text in ("lib/a", "lib/b", "lib-x/c", "library/d"):
        await put(metadata, IMAGE, repository=name(text))
    ids = [project("lib-x").id, project("lib").id]

    def listed(window: Window) -> tuple[list[str], int]:
        found = metadata.inventory.list_repositories(ids, window)
        return [it.name for it in found.items], found.total

    assert (["lib-x/c", "lib/a", "lib/b"], 3) == listed(ALL)
    assert (["lib/b", "lib/a", "lib-x/c"], 3) == listed(ALL._replace(reverse=True))
    assert (["lib/a"], 3) == listed(Window(1, 1))
    assert (["lib/a", "lib-x/c"], 3) == listed(Window(1, 5, reverse=True))
    assert (["lib/b"], 1) == listed(Window(0, 5, "IB/B"))
    assert ([], 3) == listed(Window(10**9, 100))


async def test_a_tag_remembers_its_last_push(metadata: Metadata) -> None:
    """By whom and when, and where it stands among the others; what was pulled by it stays."""
    await put(metadata, IMAGE, "latest", "old")
    pulls = Pulls(APP, IMAGE.digest, LATEST, 3, Act(9.0))
    await metadata.inventory.note_pulls([pulls])
    other = parsed(image(note="other"))
    await put(metadata, other, "latest", at=5.0, by="bob")
    old, latest = metadata.inventory.list_tags(APP, ALL, by_time=True).items

    assert ("old", IMAGE.digest, 2.0, "ada") == (old.name, old.digest, old.pushed_at, old.pushed_by)
    assert ("latest", other.digest) == (latest.name, latest.digest)
    assert (5.0, "bob", 3, 9.0) == (
        latest.pushed_at, latest.pushed_by, latest.pull_count, latest.last_pulled_at,
    )  # fmt: skip
    await metadata.registry.delete_tag(APP, LATEST, act=Act(6.0))
    await put(metadata, other, "latest", at=7.0)
    assert [0, 0] == [it.pull_count for it in metadata.inventory.list_tags(APP, ALL).items]


@pytest.mark.parametrize("by_time", [False, True])
async def test_many_tags_are_searched(metadata: Metadata, by_time: bool) -> None:
    """In whatever case, among hundreds, and never in the times that they are sorted by."""
    for minute in range(7):
        tags = [f"V{minute}.{i}-Slim" for i in range(60)]
        await put(metadata, IMAGE, *tags, at=1e9 + 60.0 * (7 - minute))

    def found(keyword: str) -> tuple[int, str]:
        window = Window(0, 1, keyword)
        items, total = metadata.inventory.list_tags(APP, window, by_time=by_time)
        return total, items[0].name if items else ""

    assert (420, "V6.0-Slim" if by_time else "V0.0-Slim") == found("slim")
    assert (60, "V3.0-Slim") == found("v3.")
    assert (1, "V5.59-Slim") == found("V5.59-")
    assert [(0, "")] * 5 == [found(it) for it in ("slim2", "!", ")", "000", "\0V")]


async def test_a_size_is_with_all_that_is_listed(metadata: Metadata) -> None:
    """An image's with its blobs, an index's with its images, each once, as far as they are here."""
    await metadata.registry.link_blob(APP, LAYER, 5, upload_id=None)
    await put(metadata, IMAGE)
    whole = parsed(index(image(b"layer"), image(b"layer"), image(b"absent")), "")
    await put(metadata, whole, "all")
    sizes = {it.digest: it.size for it in metadata.inventory.list_manifests(APP, ALL).items}

    assert len(IMAGE.content) + 5 == sizes[IMAGE.digest]
    assert len(whole.content) + len(IMAGE.content) + 5 == sizes[whole.digest]
    assert sizes[whole.digest] == metadata.inventory.list_tags(APP, ALL).items[0].size


async def test_an_index_of_indexes_has_a_bounded_size(metadata: Metadata) -> None:
    """Lists of lists, each with the next twice under two digests, end at a number of 8 bytes."""
    pair = [image(note="1"), image(note="2")]
    for content in pair:
        await put(metadata, parsed(content))
    for level in range(70):
        document = index(*pair)
        pair = [document, document[:-1] + b" " * (level % 2 + 1) + b"}"]
        for content in pair:
            await put(metadata, parsed(content, ""))
    sizes = [it.size for it in metadata.inventory.list_manifests(APP, ALL).items]

    assert MAX_SIZE == max(sizes)


async def test_a_manifest_is_listed_with_its_tags(metadata: Metadata) -> None:
    """The first of them by name, however many there are."""
    tags = [f"{i:03}" for i in range(MAX_TAGS + 5)]
    await put(metadata, IMAGE, *reversed(tags))
    (found,) = metadata.inventory.list_manifests(APP, ALL).items

    assert tags[:MAX_TAGS] == found.tags


async def test_pulls_of_what_is_gone_are_passed_over(metadata: Metadata) -> None:
    """What is left of repository, manifest and tag is counted; times only go forward."""
    await put(metadata, IMAGE, "latest")
    gone = Digest.of(b"gone")
    for pulls in (
        Pulls(APP, IMAGE.digest, None, 2, Act(8.0)),
        Pulls(APP, gone, LATEST, 3, Act(7.0)),
        Pulls(APP, gone, Tag("gone"), 4, Act(9.0)),
        Pulls(name("library/gone"), IMAGE.digest, LATEST, 5, Act(9.0)),
    ):
        await metadata.inventory.note_pulls([pulls])
    (manifest,) = metadata.inventory.list_manifests(APP, ALL).items
    (tag,) = metadata.inventory.list_tags(APP, ALL).items

    assert (9, 9.0) == (only(metadata).pull_count, only(metadata).last_pulled_at)
    assert (2, 8.0) == (manifest.pull_count, manifest.last_pulled_at)
    assert (3, 7.0) == (tag.pull_count, tag.last_pulled_at)


@pytest.mark.parametrize("at", [-1.0, 0.0, 1e300, 0.1234567])
async def test_a_clock_may_say_anything(metadata: Metadata, at: float) -> None:
    """A push at any time is listed by it, and deleted from there."""
    await put(metadata, IMAGE, "latest", at=at)

    assert [at] == [
        it.pushed_at for it in metadata.inventory.list_tags(APP, ALL, by_time=True).items
    ]
    await metadata.registry.delete_tag(APP, LATEST, act=Act(1.0))
    assert ([], 0) == metadata.inventory.list_tags(APP, ALL, by_time=True)
