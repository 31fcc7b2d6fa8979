"""The contract of ``MetadataStore``, clause by clause, for every engine."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cypd.metadata.lmdb import LmdbMetadata
from cypd.metadata.lmdb.registry import LmdbRegistry
from cypd.metadata.memory import MemoryMetadata
from cypd.metadata.memory.registry import MemoryRegistry
from cypd.oci.digest import ALGORITHMS, Digest
from cypd.oci.errors import Code, OCIError
from cypd.oci.names import RepositoryName, Tag
from cypd.registry.ports import Upload
from tests.samples import ACT, EMPTY, create_projects, image, index, name, parsed

Store = MemoryRegistry | LmdbRegistry

APP, OTHER = name("library/app"), name("library/other")
LATEST = Tag.parse("latest")
CONFIG = Digest.of(EMPTY)
PROJECTS = ("library", "a", "b", "c")


@pytest.fixture(params=["memory", "lmdb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Each engine, with projects that hold nothing."""
    if request.param == "memory":
        model = MemoryMetadata()
        create_projects(model.projects, *PROJECTS)
        yield model.registry
        return
    metadata = LmdbMetadata(tmp_path / "metadata", 16 << 20)
    create_projects(metadata.projects, *PROJECTS)
    yield metadata.registry
    metadata.close()


def upload(number: int = 0, owner: str = "someone", started_at: float = 1.0) -> Upload:
    """Return a session."""
    return Upload(f"id-{number}", APP, owner, "sha256", started_at)


def size(store: Store, repository: RepositoryName, digest: Digest) -> int | None:
    """Return how large a blob is that the repository links."""
    blob = store.blob(repository, digest)
    return blob.size if blob else None


def loose_since(store: Store, repository: RepositoryName, digest: Digest) -> float | None:
    """Return since when no manifest lists a blob that the repository links."""
    blob = store.blob(repository, digest)
    return blob.loose_since if blob else None


async def put(store: Store, content: bytes, *tags: Tag, media_type: str = "") -> Digest:
    """Put a manifest whose references need not be there."""
    manifest = parsed(content, media_type)
    await store.put_manifest(APP, manifest, tags, inline=True, allow_sparse=True, act=ACT)
    return manifest.digest


async def refused(code: Code, write: object) -> None:
    """Assert that a write is refused with that code."""
    assert asyncio.iscoroutine(write)
    with pytest.raises(OCIError) as refusal:
        await write
    assert code is refusal.value.code


async def test_a_new_store_is_empty(store: Store) -> None:
    """Every read of what is not there is empty, none fails."""
    assert not store.repository_exists(APP)
    assert not store.repositories(after="", limit=10)
    assert store.manifest(APP, LATEST) is None
    assert store.manifest(APP, CONFIG) is None
    assert not store.tags(APP, after="", limit=10)
    assert not store.referrers(APP, CONFIG, after="", limit=10)
    assert size(store, APP, CONFIG) is None
    assert not store.repositories_with(CONFIG)
    assert not store.is_held(CONFIG)
    assert store.upload("id-0") is None
    assert not store.uploads(started_before=10.0)


async def test_a_link_makes_a_blob_readable_and_held(store: Store) -> None:
    """The blob is in that repository alone, and the session it came by is closed."""
    await store.open_upload(upload(), limit=1)
    await store.link_blob(APP, CONFIG, 2, upload_id="id-0")
    await store.link_blob(APP, CONFIG, 2, upload_id="id-0")

    assert (2, None) == (size(store, APP, CONFIG), size(store, OTHER, CONFIG))
    assert [APP] == list(store.repositories_with(CONFIG))
    assert store.is_held(CONFIG)
    assert store.upload("id-0") is None
    await store.open_upload(upload(1), limit=1)  # closed once, counted once


async def test_a_mount_needs_a_link_at_the_source(store: Store) -> None:
    """False and nothing changed without one."""
    assert not await store.mount_blob(OTHER, CONFIG, source=APP)
    assert not store.repository_exists(OTHER)
    await store.link_blob(APP, CONFIG, 2, upload_id=None)
    assert await store.mount_blob(OTHER, CONFIG, source=APP)

    assert size(store, OTHER, CONFIG) == 2
    assert [APP, OTHER] == list(store.repositories_with(CONFIG))


async def test_an_unlinked_blob_is_held_until_the_last(store: Store) -> None:
    """Each repository lets go of its own link only."""
    await store.link_blob(APP, CONFIG, 2, upload_id=None)
    await store.mount_blob(OTHER, CONFIG, source=APP)
    await store.unlink_blob(APP, CONFIG)

    assert size(store, APP, CONFIG) is None
    assert store.is_held(CONFIG)
    await refused(Code.BLOB_UNKNOWN, store.unlink_blob(APP, CONFIG))
    await store.unlink_blob(OTHER, CONFIG)
    assert not store.is_held(CONFIG)


async def test_what_is_held_is_told_in_pages(store: Store) -> None:
    """Each digest that needs a file comes once, with its size, in order, and none is left out."""
    manifest = parsed(image())
    small = parsed(image(b"layer"))
    sizes = {Digest.of(b"%d" % n, algorithm): n for n in range(5) for algorithm in ALGORITHMS}
    for digest, size in sizes.items():
        for repository in (APP, OTHER, name("a/b")):
            await store.link_blob(repository, digest, size, upload_id=None)
    for it, inline in ((manifest, False), (small, True)):
        await store.put_manifest(APP, it, [], inline=inline, allow_sparse=True, act=ACT)
    held = sorted((sizes | {manifest.digest: len(manifest.content)}).items())

    for step in (1, 3, 20):
        found: list[tuple[Digest, int]] = []
        while page := store.held(after=found[-1][0] if found else "", limit=step):
            assert len(page) <= step
            found += page
        assert found == held
    for repository in (APP, OTHER, name("a/b")):
        await store.unlink_blob(repository, held[0][0])
    assert list(store.held(after="", limit=1)) == held[1:2]


async def test_a_manifest_needs_what_it_lists(store: Store) -> None:
    """What lacks is named, in the refusal, and nothing is written."""
    manifest = parsed(image(b"layer"))
    with pytest.raises(OCIError) as refusal:
        await store.put_manifest(APP, manifest, [LATEST], inline=True, allow_sparse=False, act=ACT)

    assert {"missing": [Digest.of(b"layer"), CONFIG]} == refusal.value.detail
    assert not store.repository_exists(APP)
    await store.link_blob(APP, CONFIG, 2, upload_id=None)
    await store.link_blob(APP, Digest.of(b"layer"), 5, upload_id=None)
    await store.put_manifest(APP, manifest, [LATEST], inline=True, allow_sparse=False, act=ACT)
    found = store.manifest(APP, LATEST)
    assert found == store.manifest(APP, manifest.digest)
    assert found is not None
    assert (manifest.digest, manifest.content) == (found.digest, found.content)


async def test_a_large_manifest_is_a_file_that_is_held(store: Store) -> None:
    """Not inline: the content is elsewhere, and held until the manifest goes."""
    manifest = parsed(image())
    await store.put_manifest(APP, manifest, [], inline=False, allow_sparse=True, act=ACT)
    found = store.manifest(APP, manifest.digest)

    assert found is not None
    assert (None, len(manifest.content)) == (found.content, found.size)
    assert store.is_held(manifest.digest)
    await store.link_blob(APP, manifest.digest, found.size, upload_id=None)
    await store.delete_manifest(APP, manifest.digest, act=ACT)
    assert store.is_held(manifest.digest)  # it is a blob as well
    await store.unlink_blob(APP, manifest.digest)
    assert not store.is_held(manifest.digest)


async def test_a_tag_points_at_one_manifest(store: Store) -> None:
    """The last push wins; a manifest that lost its tag takes none along."""
    before = await put(store, image(note="1"), LATEST, Tag.parse("old"))
    after = await put(store, image(note="2"), LATEST)
    await store.delete_manifest(APP, before, act=ACT)

    assert ["latest"] == list(store.tags(APP, after="", limit=10))
    found = store.manifest(APP, LATEST)
    assert found is not None
    assert after == found.digest
    await store.delete_tag(APP, LATEST, act=ACT)
    await refused(Code.MANIFEST_UNKNOWN, store.delete_tag(APP, LATEST, act=ACT))
    await refused(Code.MANIFEST_UNKNOWN, store.delete_manifest(APP, before, act=ACT))
    assert store.manifest(APP, after) is not None


async def test_what_is_listed_stays(store: Store) -> None:
    """A blob or manifest that a manifest lists can't be deleted before it."""
    await store.link_blob(APP, CONFIG, 2, upload_id=None)
    child = await put(store, image())
    parent = await put(store, index(image()))

    await refused(Code.DENIED, store.unlink_blob(APP, CONFIG))
    await refused(Code.DENIED, store.delete_manifest(APP, child, act=ACT))
    await store.delete_manifest(APP, parent, act=ACT)
    await store.delete_manifest(APP, child, act=ACT)
    await store.unlink_blob(APP, CONFIG)


async def test_lists_come_in_pages_in_byte_order(store: Store) -> None:
    """``after`` is exclusive and need not exist; the limit holds."""
    tags = [Tag.parse(text) for text in ("b", "B", "a", "_", "1", "a-")]
    await put(store, image(), *tags)
    for text in ("b/x", "a/x", "a/x-y", "c"):
        await store.link_blob(name(text), CONFIG, 2, upload_id=None)

    assert ["1", "B", "_", "a", "a-", "b"] == list(store.tags(APP, after="", limit=10))
    assert ["a-", "b"] == list(store.tags(APP, after="a", limit=10))
    assert ["_", "a"] == list(store.tags(APP, after="C", limit=2))
    assert not store.tags(APP, after="b", limit=10)
    assert not store.tags(APP, after="", limit=0)
    assert not store.tags(APP, after="ü" * 1000, limit=10)
    assert ["a/x", "a/x-y", "b/x"] == list(store.repositories(after="", limit=3))
    assert ["c", "library/app"] == list(store.repositories(after="b/x", limit=3))


async def test_referrers_are_by_subject_and_page(store: Store) -> None:
    """Ascending by digest, each once, gone with the manifest."""
    subject = Digest.of(b"subject")
    digests = sorted([await put(store, image(subject=subject, note=str(i))) for i in range(5)])
    await put(store, image(subject=Digest.of(b"other")))

    def page(after: str, limit: int) -> list[bytes]:
        return list(store.referrers(APP, subject, after=after, limit=limit))

    assert [d in raw.decode() for d, raw in zip(digests, page("", 9), strict=True)] == [True] * 5
    assert page("", 9)[2:4] == page(digests[1], 2)
    await store.delete_manifest(APP, digests[0], act=ACT)
    assert len(page("", 9)) == 4


async def test_what_is_to_end_with_its_subject_does(store: Store) -> None:
    """Referrers that say so, but none that has a tag or is listed, and no other."""

    def referrer(number: int, *, ends: bool = True) -> bytes:
        note = str(number)
        content = image(EMPTY, subject=subject, artifact_type="a/b", note=note)
        mark = b'"annotations": {"cypd.ends-with-subject": "true", '
        return content.replace(b'"annotations": {', mark) if ends else content

    subject = await put(store, image(EMPTY), LATEST)
    ending = await put(store, referrer(1))
    kept = [await put(store, referrer(2, ends=False)), await put(store, referrer(3), Tag("t"))]
    listed = referrer(4)
    kept.append(await put(store, listed))
    await put(store, index(listed), media_type="application/vnd.oci.image.index.v1+json")
    await store.delete_manifest(APP, subject, act=ACT)

    assert store.manifest(APP, subject) is None
    assert store.manifest(APP, ending) is None
    assert [True] * 3 == [store.manifest(APP, it) is not None for it in kept]


async def test_sessions_are_counted_by_owner(store: Store) -> None:
    """The cap is each owner's own, and a closed session makes room, once."""
    await store.open_upload(upload(0), limit=2)
    await store.open_upload(upload(1, started_at=5.0), limit=2)
    await refused(Code.TOOMANYREQUESTS, store.open_upload(upload(2), limit=2))
    await store.open_upload(upload(3, owner="other"), limit=2)

    assert upload(0) == store.upload("id-0")
    assert [upload(0), upload(3, owner="other")] == sorted(
        store.uploads(started_before=5.0), key=lambda it: it.id
    )
    await store.close_upload("id-0")
    await store.close_upload("id-0")
    await store.open_upload(upload(4), limit=2)
    await refused(Code.TOOMANYREQUESTS, store.open_upload(upload(5), limit=2))


async def test_sessions_are_counted_by_project(store: Store) -> None:
    """A project's cap counts those of all its users, and a closed session makes room."""
    await store.open_upload(upload(0), limit=9, project_limit=2)
    await store.open_upload(upload(1, owner="other"), limit=9, project_limit=2)
    third = upload(2, owner="third")
    await refused(Code.TOOMANYREQUESTS, store.open_upload(third, limit=9, project_limit=2))
    await store.close_upload("id-0")
    await store.close_upload("id-0")
    await store.link_blob(APP, CONFIG, 2, upload_id="id-1")

    await store.open_upload(third, limit=9, project_limit=2)
    await store.open_upload(upload(3), limit=9, project_limit=2)
    await refused(Code.TOOMANYREQUESTS, store.open_upload(upload(4), limit=9, project_limit=2))
    await store.open_upload(upload(5), limit=9)


@pytest.mark.parametrize("text", ["", "x" * 1000, "é", "\0", "../x"])
async def test_any_text_may_be_asked_for(store: Store, text: str) -> None:
    """What came from a request as an id, a name or a start is looked up, never a fault."""
    assert store.upload(text) is None
    assert not store.tags(APP, after=text, limit=1)
    assert not store.repositories(after=text, limit=1)


async def test_a_blob_is_loose_while_no_manifest_lists_it(store: Store) -> None:
    """From its link to its manifest, and from the last manifest's end; a new link begins anew."""
    layer, plain = Digest.of(b"layer"), parsed(image(b"layer"), "")
    assert loose_since(store, APP, layer) is None
    await store.link_blob(APP, layer, 5, upload_id=None)
    first = loose_since(store, APP, layer)
    await asyncio.sleep(0.01)
    await store.link_blob(APP, layer, 5, upload_id=None)
    again = loose_since(store, APP, layer)
    assert first is not None
    assert again is not None
    assert first < again <= time.time()

    await put(store, plain.content)
    assert loose_since(store, APP, layer) is None
    await store.delete_manifest(APP, plain.digest, act=ACT)
    since = loose_since(store, APP, layer)
    assert since is not None
    assert again < since


async def test_links_that_no_manifest_needs_go_the_oldest_first(store: Store) -> None:
    """Those that became loose before a moment, at most as many as asked for; no others."""
    layers = [Digest.of(b"%d" % number) for number in range(3)]
    for layer in layers:
        await store.link_blob(APP, layer, 1, upload_id=None)
        await store.link_blob(OTHER, layer, 1, upload_id=None)
        await asyncio.sleep(0.01)
    await put(store, image(b"0"))
    moment = loose_since(store, APP, layers[2])
    assert moment is not None

    assert await store.unlink_loose(before=moment, limit=1) == 1
    assert await store.unlink_loose(before=moment, limit=9) == 2
    assert await store.unlink_loose(before=moment, limit=9) == 0
    assert [size(store, APP, it) for it in layers] == [1, None, 1]
    assert [size(store, OTHER, it) for it in layers] == [None, None, 1]
    assert [store.is_held(it) for it in layers] == [True, False, True]
