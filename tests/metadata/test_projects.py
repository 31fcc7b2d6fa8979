"""The contract of ``ProjectStore`` and of quotas, clause by clause, for every engine."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cypd.metadata.lmdb import LmdbMetadata
from cypd.metadata.memory import MemoryMetadata
from cypd.oci import errors
from cypd.oci.digest import Digest
from cypd.oci.errors import OCIError
from cypd.oci.names import Tag
from cypd.projects.ports import Changes, Member, Role, Standing, Totals, Usage
from cypd.refusals import Code, Refusal
from cypd.registry.ports import Upload
from tests.metadata.recount import check_counters
from tests.samples import ACT, image, name, parsed, project

Store = MemoryMetadata | LmdbMetadata
LIBRARY, OTHER = project("library", 100), project("other", owner="somebody", created_at=2.0)
APP, BASE, FOREIGN = name("library/app"), name("library/base"), name("other/app")
TEN, HUNDRED = Digest.of(b"x" * 10), Digest.of(b"x" * 100)
NOTHING = Usage(0, 0, 0, 0)


@pytest.fixture(params=["memory", "lmdb"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:  # type: ignore[misc]
    """Each engine, with a project of 100 bytes and one without bounds."""
    store: Store
    if request.param == "memory":
        store = MemoryMetadata()
    else:
        store = LmdbMetadata(tmp_path / "metadata", 16 << 20)
    await store.projects.create_project(LIBRARY)
    await store.projects.create_project(OTHER)
    yield store
    if isinstance(store, LmdbMetadata):
        store.close()


async def test_holdings_are_what_usage_and_quota_say(store: Store) -> None:
    """Of all projects by id, in parts: what each may hold, holds, and keeps for uploads."""
    await store.registry.link_blob(APP, TEN, 10, upload_id=None)
    upload = Upload("id-0", APP, "ada", "sha256", 1.0, reserved=30)
    await store.registry.open_upload(upload, limit=1)
    first, second = sorted(
        [(LIBRARY.id, "library", 100, 10, 30), (OTHER.id, "other", OTHER.storage_quota, 0, 0)]
    )

    assert store.projects.holdings(after="", limit=9) == [first, second]
    assert store.projects.holdings(after="", limit=1) == [first]
    assert store.projects.holdings(after=first[0], limit=1) == [second]
    assert store.projects.holdings(after=second[0], limit=9) == []


async def refused(code: Code, write: object) -> None:
    """Assert that a write is refused with that code."""
    with pytest.raises(Refusal) as refusal:
        await write  # type: ignore[misc]
    assert code is refusal.value.code


async def over_quota(write: object) -> dict[str, int]:
    """Assert that a write is refused for want of room, and return what it says."""
    with pytest.raises(OCIError) as refusal:
        await write  # type: ignore[misc]
    assert refusal.value.code is errors.Code.DENIED
    detail: dict[str, int] = refusal.value.detail
    return detail


def changes(**fields: Any) -> Changes:
    """Return changes of some fields."""
    return Changes(updated_at=5.0, **fields)


def upload(number: int = 0, reserved: int = 0) -> Upload:
    """Return a session."""
    return Upload(f"id-{number}", APP, "someone", "sha256", 1.0, reserved)


async def test_a_project_is_found_by_id_and_name(store: Store) -> None:
    """With the role of who asks; what is not there is ``None``."""
    assert LIBRARY == store.projects.project(LIBRARY.id)
    assert Standing(LIBRARY, Role.OWNER) == store.projects.standing("library", "admin")
    assert Standing(LIBRARY, None) == store.projects.standing("library", "somebody")
    assert Standing(LIBRARY, None) == store.projects.standing("library", "")
    assert store.projects.standing("librar", "admin") is None
    assert [LIBRARY, OTHER] == list(store.projects.projects(after="", limit=9))
    assert [OTHER] == list(store.projects.projects(after="library", limit=9))
    assert [LIBRARY] == list(store.projects.projects(after="", limit=1))


@pytest.mark.parametrize("text", ["", "x" * 1000, "é", "\0", "../x", "0" * 32])
async def test_any_text_may_be_asked_for(store: Store, text: str) -> None:
    """What came from a request as an id or a name is looked up, never a fault."""
    assert store.projects.project(text) is None
    assert store.projects.standing(text, text) is None
    assert store.projects.standing("library", text) == Standing(LIBRARY, None)
    assert store.projects.member(text, text) is None
    assert store.projects.member(LIBRARY.id, text) is None
    assert not store.projects.members(text)
    assert store.projects.usage(text) == NOTHING
    store.projects.projects(after=text, limit=1)
    await refused(Code.PROJECT_NOT_FOUND, store.projects.remove_member(text, text, act=ACT))
    await refused(Code.MEMBER_NOT_FOUND, store.projects.remove_member(LIBRARY.id, text, act=ACT))
    await refused(Code.PROJECT_NOT_FOUND, store.projects.delete_project(text, force=True, limit=1))


async def test_a_name_is_one_project_s(store: Store) -> None:
    """Neither a new project nor a changed one takes a name in use."""
    again = msgspec.structs.replace(project("third"), name="library")
    await refused(Code.PROJECT_EXISTS, store.projects.create_project(again))
    change = store.projects.change_project
    await refused(Code.PROJECT_EXISTS, change(OTHER.id, changes(name="library")))
    await refused(Code.PROJECT_NOT_FOUND, change(project("third").id, changes(name="third")))

    assert [LIBRARY, OTHER] == list(store.projects.projects(after="", limit=9))


async def test_a_project_that_holds_something_keeps_its_name(store: Store) -> None:
    """A blob, or an open upload, is enough; all else may change."""
    rename = changes(name="books", description="x")
    change = store.projects.change_project
    await store.registry.open_upload(upload(), limit=1)
    await refused(Code.NOT_IN_THIS_STATE, change(LIBRARY.id, rename))
    await store.registry.link_blob(APP, TEN, 10, upload_id="id-0")
    await refused(Code.NOT_IN_THIS_STATE, change(LIBRARY.id, rename))
    public = await change(LIBRARY.id, changes(is_public=True))
    assert public == msgspec.structs.replace(LIBRARY, is_public=True, updated_at=5.0)
    assert public == store.projects.project(LIBRARY.id)

    await store.registry.unlink_blob(APP, TEN)
    renamed = await change(LIBRARY.id, rename)
    assert ("books", "x", True) == (renamed.name, renamed.description, renamed.is_public)
    assert Standing(renamed, Role.OWNER) == store.projects.standing("books", "admin")
    assert store.projects.standing("library", "admin") is None
    assert not store.registry.repository_exists(APP)


async def test_members_come_change_and_go(store: Store) -> None:
    """Each user once, with one role."""
    member = Member("somebody", Role.GUEST, 3.0)
    await store.projects.add_member(LIBRARY.id, member, act=ACT)
    await refused(Code.NOT_IN_THIS_STATE, store.projects.add_member(LIBRARY.id, member, act=ACT))
    developer = await store.projects.set_role(LIBRARY.id, "somebody", Role.DEVELOPER, act=ACT)

    assert Member("somebody", Role.DEVELOPER, 3.0) == developer
    assert [Member("admin", Role.OWNER, 1.0), developer] == list(store.projects.members(LIBRARY.id))
    assert [Member("somebody", Role.OWNER, 2.0)] == list(store.projects.members(OTHER.id))
    await store.projects.remove_member(LIBRARY.id, "somebody", act=ACT)
    await refused(
        Code.MEMBER_NOT_FOUND, store.projects.set_role(LIBRARY.id, "somebody", Role.GUEST, act=ACT)
    )
    assert store.projects.member(LIBRARY.id, "somebody") is None


async def test_the_last_owner_stays(store: Store) -> None:
    """Neither removed nor demoted; with another owner the first of them takes the place."""
    for leave in (
        store.projects.remove_member(LIBRARY.id, "admin", act=ACT),
        store.projects.set_role(LIBRARY.id, "admin", Role.MAINTAINER, act=ACT),
    ):
        await refused(Code.NOT_IN_THIS_STATE, leave)
    for user, at in (("late", 4.0), ("early", 3.0)):
        await store.projects.add_member(LIBRARY.id, Member(user, Role.OWNER, at), act=ACT)
    await store.projects.set_role(LIBRARY.id, "admin", Role.MAINTAINER, act=ACT)

    found = store.projects.project(LIBRARY.id)
    assert found is not None
    assert found.owner_id == "early"
    await store.projects.remove_member(LIBRARY.id, "early", act=ACT)
    await refused(Code.NOT_IN_THIS_STATE, store.projects.remove_member(LIBRARY.id, "late", act=ACT))


async def test_nothing_goes_where_no_project_is(store: Store) -> None:
    """NAME_UNKNOWN for an upload, a link, a mount, a manifest, and a question of room."""
    nowhere = name("nowhere/app")
    await store.registry.link_blob(APP, TEN, 10, upload_id=None)
    manifest = parsed(image())
    writes = [
        store.registry.open_upload(Upload("u", nowhere, "x", "sha256", 1.0), limit=1),
        store.registry.link_blob(nowhere, TEN, 10, upload_id=None),
        store.registry.mount_blob(nowhere, TEN, source=APP),
        store.registry.put_manifest(nowhere, manifest, [], inline=True, allow_sparse=True, act=ACT),
    ]
    for write in writes:
        with pytest.raises(OCIError) as refusal:
            await write
        assert refusal.value.code is errors.Code.NAME_UNKNOWN
    with pytest.raises(OCIError):
        store.registry.require_room(nowhere, 0)
    assert store.registry.held_size(nowhere, TEN) is None
    assert not store.registry.repository_exists(nowhere)


async def test_content_counts_once_a_project(store: Store) -> None:
    """However many repositories hold it, as blob or as manifest, until the last lets go."""
    await store.registry.link_blob(APP, TEN, 10, upload_id=None)
    await store.registry.link_blob(APP, TEN, 10, upload_id=None)
    await store.registry.mount_blob(BASE, TEN, source=APP)
    assert Usage(10, 0, 10, 0) == store.projects.usage(LIBRARY.id)
    assert (10, None) == (
        store.registry.held_size(BASE, TEN), store.registry.held_size(FOREIGN, TEN),
    )  # fmt: skip
    await store.registry.mount_blob(FOREIGN, TEN, source=APP)
    assert Usage(10, 0, 0, 0) == store.projects.usage(LIBRARY.id)
    assert Usage(10, 0, 0, 0) == store.projects.usage(OTHER.id)
    assert Totals(20, 10) == store.projects.totals()
    check_counters(store, [TEN])

    await store.registry.unlink_blob(APP, TEN)
    assert Usage(10, 0, 0, 0) == store.projects.usage(LIBRARY.id)
    await store.registry.unlink_blob(BASE, TEN)
    assert NOTHING == store.projects.usage(LIBRARY.id)
    assert Usage(10, 0, 10, 0) == store.projects.usage(OTHER.id)
    assert Totals(10, 10) == store.projects.totals()


async def test_an_image_is_a_manifest_with_a_tag(store: Store) -> None:
    """Two tags are one image; a tag that moves, or goes, takes the count along."""
    one, two = parsed(image(note="1")), parsed(image(note="2"))
    tags = [Tag("a"), Tag("b")]
    put = store.registry.put_manifest

    def images() -> int:
        return store.projects.usage(OTHER.id).image_count

    await put(FOREIGN, one, [], inline=True, allow_sparse=True, act=ACT)
    assert images() == 0
    await put(FOREIGN, one, tags, inline=True, allow_sparse=True, act=ACT)
    await put(FOREIGN, one, tags, inline=True, allow_sparse=True, act=ACT)
    assert images() == 1
    await put(FOREIGN, two, tags[:1], inline=True, allow_sparse=True, act=ACT)
    assert images() == 2
    await store.registry.delete_tag(FOREIGN, tags[1], act=ACT)
    assert images() == 1
    await store.registry.delete_manifest(FOREIGN, two.digest, act=ACT)
    assert images() == 0
    check_counters(store, [one.digest, two.digest])


async def test_a_quota_is_kept_to_the_byte(store: Store) -> None:
    """What fits exactly is taken, a byte more is not, and what is there already always is."""
    await store.registry.link_blob(APP, TEN, 90, upload_id=None)
    refusal = await over_quota(store.registry.link_blob(APP, HUNDRED, 11, upload_id=None))
    assert refusal == {"quota": 100, "used": 90, "requested": 11, "left": 10}
    manifest = parsed(image())
    put = store.registry.put_manifest(
        APP, manifest, [Tag("a")], inline=True, allow_sparse=True, act=ACT
    )
    assert (await over_quota(put))["requested"] == len(manifest.content)
    await store.registry.link_blob(FOREIGN, HUNDRED, 11, upload_id=None)
    await over_quota(store.registry.mount_blob(APP, HUNDRED, source=FOREIGN))
    assert store.registry.blob(APP, HUNDRED) is None
    assert store.registry.manifest(APP, Tag("a")) is None

    await store.registry.link_blob(APP, Digest.of(b"y"), 10, upload_id=None)
    await over_quota(store.registry.link_blob(APP, Digest.of(b"z"), 1, upload_id=None))
    await store.registry.link_blob(BASE, TEN, 90, upload_id=None)
    await store.registry.link_blob(APP, Digest.of(b""), 0, upload_id=None)
    assert store.projects.usage(LIBRARY.id).used == 100


async def test_a_quota_below_what_is_there_takes_nothing_away(store: Store) -> None:
    """It only lets nothing new in."""
    await store.registry.link_blob(APP, TEN, 90, upload_id=None)
    await store.projects.change_project(LIBRARY.id, changes(storage_quota=50))
    refusal = await over_quota(store.registry.link_blob(APP, HUNDRED, 1, upload_id=None))

    assert refusal == {"quota": 50, "used": 90, "requested": 1, "left": 0}
    await store.registry.link_blob(BASE, TEN, 90, upload_id=None)


async def test_a_reservation_is_room_for_its_upload_alone(store: Store) -> None:
    """Others find it taken; its own link finds it free, and gives back what it does not need."""
    await store.registry.open_upload(upload(0, reserved=60), limit=9)
    refusal = await over_quota(store.registry.link_blob(APP, HUNDRED, 41, upload_id=None))
    assert refusal == {"quota": 100, "used": 0, "requested": 41, "left": 40}
    await over_quota(store.registry.open_upload(upload(1, reserved=41), limit=9))
    assert store.registry.upload("id-1") is None
    store.registry.require_room(APP, 40)
    store.registry.require_room(APP, 100, upload_id="id-0")
    with pytest.raises(OCIError):
        store.registry.require_room(APP, 41)
    assert Usage(0, 60, 0, 0) == store.projects.usage(LIBRARY.id)

    await store.registry.link_blob(APP, TEN, 50, upload_id="id-0")
    assert Usage(50, 0, 50, 0) == store.projects.usage(LIBRARY.id)


async def test_a_reservation_grows_and_shrinks(store: Store) -> None:
    """To what is wanted, else to the least, else not at all; and goes with its session."""
    await store.registry.open_upload(upload(), limit=9)
    reserve = store.registry.reserve
    assert await reserve("id-0", least=10, wanted=100) == 100
    assert await reserve("id-0", least=20, wanted=20) == 20
    await store.registry.link_blob(APP, TEN, 60, upload_id=None)
    assert await reserve("id-0", least=40, wanted=41) == 40
    refusal = await over_quota(reserve("id-0", least=41, wanted=80))
    assert refusal == {"quota": 100, "used": 60, "requested": 41, "left": 40}
    assert Usage(60, 40, 60, 0) == store.projects.usage(LIBRARY.id)

    await store.projects.change_project(LIBRARY.id, changes(storage_quota=0))
    assert await reserve("id-0", least=5, wanted=5) == 5
    await store.registry.close_upload("id-0")
    assert Usage(60, 0, 60, 0) == store.projects.usage(LIBRARY.id)
    with pytest.raises(OCIError) as gone:
        await reserve("id-0", least=0, wanted=0)
    assert gone.value.code is errors.Code.BLOB_UPLOAD_UNKNOWN


async def test_what_nobody_has_fits_into_no_project(store: Store) -> None:
    """Uploads of absurd lengths are refused before their sum is too large to be counted."""
    most = 1 << 62
    await store.registry.open_upload(
        Upload("u", FOREIGN, "x", "sha256", 1.0, reserved=most), limit=9
    )
    again = store.registry.open_upload(Upload("v", FOREIGN, "x", "sha256", 1.0, most), limit=9)
    assert (await over_quota(again))["left"] == 0
    assert Usage(0, most, 0, 0) == store.projects.usage(OTHER.id)


async def test_a_project_is_deleted_piece_by_piece(store: Store) -> None:
    """Each call takes at most so much; what others share stays theirs, and the name is free."""
    manifests = [parsed(image(note=str(number))) for number in range(3)]
    for manifest in manifests:
        await store.registry.put_manifest(
            FOREIGN, manifest, [Tag("a")], inline=True, allow_sparse=True, act=ACT
        )
    await store.registry.open_upload(
        Upload("u", name("other"), "x", "sha256", 1.0, reserved=5), limit=9
    )
    await store.registry.link_blob(name("other"), TEN, 10, upload_id=None)
    await store.registry.mount_blob(APP, TEN, source=name("other"))
    await store.registry.link_blob(name("other"), HUNDRED, 7, upload_id=None)
    await refused(
        Code.NOT_IN_THIS_STATE, store.projects.delete_project(OTHER.id, force=False, limit=9)
    )

    calls = 1
    while not await store.projects.delete_project(OTHER.id, force=True, limit=2):
        calls += 1
    assert calls == 4
    assert store.projects.project(OTHER.id) is None
    assert not store.projects.members(OTHER.id)
    assert store.registry.upload("u") is None
    assert [APP] == list(store.registry.repositories(after="", limit=9))
    assert Usage(10, 0, 10, 0) == store.projects.usage(LIBRARY.id)
    assert Totals(10, 10) == store.projects.totals()
    await store.projects.create_project(OTHER)
    assert NOTHING == store.projects.usage(OTHER.id)
    assert store.registry.manifest(FOREIGN, manifests[0].digest) is None
    check_counters(store, [TEN, HUNDRED, *(manifest.digest for manifest in manifests)])


async def test_an_unforced_delete_takes_what_is_no_image(store: Store) -> None:
    """Blobs and manifests without a tag do not keep a project."""
    await store.registry.put_manifest(
        FOREIGN, parsed(image()), [], inline=False, allow_sparse=True, act=ACT
    )
    await store.registry.link_blob(FOREIGN, TEN, 10, upload_id=None)

    assert await store.projects.delete_project(OTHER.id, force=False, limit=9)
    assert not store.registry.is_held(TEN)
    assert not store.registry.is_held(parsed(image()).digest)
