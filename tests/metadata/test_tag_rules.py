"""What the rules of a project's tags forbid, and how a tag expires, for every engine."""

from collections.abc import Awaitable, Iterator
from pathlib import Path

import pytest

from cypd.access import Act
from cypd.metadata.lmdb import LmdbMetadata
from cypd.metadata.memory import MemoryMetadata
from cypd.oci.digest import Digest
from cypd.oci.errors import Code, OCIError
from cypd.oci.manifest import Manifest
from cypd.oci.names import Tag
from cypd.projects.ports import Changes
from cypd.projects.tag_rules import TagRules
from cypd.registry.inventory_ports import Window
from tests.metadata.recount import check_counters
from tests.samples import ACT, create_projects, image, index, name, parsed, project

Metadata = MemoryMetadata | LmdbMetadata

APP, FOREIGN = name("library/app"), name("other/app")
ONE, TWO = parsed(image(b"one")), parsed(image(b"two"))
INDEX = parsed(index(image(b"one")), "")
SIGNATURE = parsed(image(b"three", subject=ONE.digest))
V1, LATEST = Tag("v1"), Tag("latest")
RULES = TagRules(immutable=("v*",))


@pytest.fixture(params=["memory", "lmdb"])
def metadata(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Metadata]:
    """Each engine, with two projects."""
    if request.param == "memory":
        model = MemoryMetadata()
        create_projects(model.projects, "library", "other")
        yield model
        return
    store = LmdbMetadata(tmp_path / "metadata", 16 << 20)
    create_projects(store.projects, "library", "other")
    yield store
    store.close()


async def protect(metadata: Metadata) -> None:
    """Make tags of one project immutable that begin with a v."""
    await metadata.projects.change_project(
        project("library").id, Changes(updated_at=2.0, tag_rules=RULES)
    )


async def put(
    metadata: Metadata, manifest: Manifest, *tags: Tag, at: float = 1.0, repository: str = APP
) -> None:
    """Push a manifest whose references need not be there."""
    await metadata.registry.put_manifest(
        name(repository), manifest, tags, inline=True, allow_sparse=True, act=Act(at)
    )


async def expire(metadata: Metadata, tag: Tag, pushed_at: float = 1.0) -> bool:
    """Let a tag expire."""
    return await metadata.registry.expire_tag(APP, tag, pushed_at=pushed_at, act=ACT)


def digest_at(metadata: Metadata, tag: Tag) -> Digest | None:
    """Return what a tag points at."""
    found = metadata.registry.manifest(APP, tag)
    return found and found.digest


def digests(metadata: Metadata) -> set[Digest]:
    """Return the manifests that are there."""
    return {it.digest for it in metadata.inventory.list_manifests(APP, Window(0, 9)).items}


async def immutable(write: Awaitable[object], tag: str = "v1") -> None:
    """Assert that a write is refused because a tag is immutable."""
    with pytest.raises(OCIError) as refusal:
        await write
    error = refusal.value
    assert (Code.DENIED, 409, {"tag": tag}) == (error.code, error.status, error.detail)


async def test_the_rules_are_kept_with_the_project(metadata: Metadata) -> None:
    """A project has none at first, and afterwards those that it was given."""
    assert project("library") == metadata.projects.project(project("library").id)
    await protect(metadata)
    found = metadata.projects.standing("library", "")

    assert found is not None
    assert RULES == found.project.tag_rules


async def test_an_immutable_tag_is_not_moved(metadata: Metadata) -> None:
    """A push that would point it elsewhere changes nothing, its other tags and itself included."""
    await put(metadata, ONE, V1, LATEST)
    await protect(metadata)
    await immutable(put(metadata, TWO, LATEST, V1, Tag("new")))

    assert {ONE.digest} == digests(metadata)
    assert [LATEST, V1] == list(metadata.registry.tags(APP, after="", limit=9))
    assert ONE.digest == digest_at(metadata, LATEST)
    check_counters(metadata, [ONE.digest, TWO.digest])


async def test_an_immutable_tag_may_be_made_and_pushed_again(metadata: Metadata) -> None:
    """The first push of it and each of the same digest are as ever, and so are all other tags."""
    await protect(metadata)
    await put(metadata, ONE, V1, LATEST)
    await put(metadata, ONE, V1)
    await put(metadata, TWO, LATEST, Tag("v2"))

    assert [ONE.digest, TWO.digest] == [digest_at(metadata, tag) for tag in (V1, LATEST)]


async def test_an_immutable_tag_is_not_deleted(metadata: Metadata) -> None:
    """Neither by its name nor with its manifest; another tag of the same manifest is."""
    await put(metadata, ONE, V1, LATEST)
    await protect(metadata)
    await immutable(metadata.registry.delete_tag(APP, V1, act=ACT))
    await immutable(metadata.registry.delete_manifest(APP, ONE.digest, act=ACT))
    await metadata.registry.delete_tag(APP, LATEST, act=ACT)

    assert ONE.digest == digest_at(metadata, V1)
    assert [V1] == list(metadata.registry.tags(APP, after="", limit=9))


async def test_the_rules_of_a_project_are_its_own(metadata: Metadata) -> None:
    """In another project the same tag is moved and deleted as ever."""
    await protect(metadata)
    await put(metadata, ONE, V1, repository=FOREIGN)
    await put(metadata, TWO, V1, repository=FOREIGN)
    await metadata.registry.delete_tag(FOREIGN, V1, act=ACT)

    assert not metadata.registry.tags(FOREIGN, after="", limit=9)


async def test_a_project_ends_with_its_immutable_tags(metadata: Metadata) -> None:
    """By force: who may end a project is not held up by its rules."""
    await put(metadata, ONE, V1)
    await protect(metadata)

    assert await metadata.projects.delete_project(project("library").id, force=True, limit=9)
    assert metadata.projects.project(project("library").id) is None


async def test_a_tag_expires_with_its_manifest(metadata: Metadata) -> None:
    """The last of a manifest's tags takes it along, any before leaves it."""
    await put(metadata, ONE, V1, LATEST)
    assert await expire(metadata, V1)
    assert ({ONE.digest}, None) == (digests(metadata), digest_at(metadata, V1))
    assert await expire(metadata, LATEST)

    assert set() == digests(metadata)
    check_counters(metadata, [ONE.digest])


async def test_what_others_need_outlives_its_tag(metadata: Metadata) -> None:
    """What an index lists and what has a subject stay; what others refer to goes."""
    await put(metadata, ONE, LATEST)
    await put(metadata, INDEX, Tag("index"))
    await put(metadata, SIGNATURE, Tag("signature"))
    for tag in (LATEST, Tag("signature")):
        assert await expire(metadata, tag)
    assert {ONE.digest, INDEX.digest, SIGNATURE.digest} == digests(metadata)
    assert await expire(metadata, Tag("index"))
    await put(metadata, ONE, LATEST)
    assert await expire(metadata, LATEST)

    assert {SIGNATURE.digest} == digests(metadata)


async def test_what_changed_meanwhile_does_not_expire(metadata: Metadata) -> None:
    """A tag that is gone, was pushed since, even the same, or has become immutable stays."""
    await put(metadata, ONE, V1, LATEST)
    await put(metadata, ONE, LATEST, at=2.0)
    await protect(metadata)
    found = [await expire(metadata, tag) for tag in (LATEST, V1, Tag("absent"))]
    absent = await metadata.registry.expire_tag(FOREIGN, V1, pushed_at=1.0, act=ACT)

    assert [False, False, False, False] == [*found, absent]
    assert [LATEST, V1] == list(metadata.registry.tags(APP, after="", limit=9))


async def test_what_expires_is_an_event(tmp_path: Path) -> None:
    """Of the tag, and of the manifest, as when somebody deletes them, by the registry itself."""
    store = LmdbMetadata(tmp_path / "metadata", 16 << 20)
    await store.projects.create_project(project("library"))
    await put(store, ONE, LATEST)
    act = Act(5.0, name="retention")
    assert await store.registry.expire_tag(APP, LATEST, pushed_at=1.0, act=act)
    found = [it.event for it in store.events.events(after=1, limit=9)]
    store.close()

    assert [("delete", "latest"), ("delete", "")] == [(it.kind, it.tag) for it in found]
    assert {(ONE.digest, "", "retention")} == {(it.digest, it.user_id, it.username) for it in found}
