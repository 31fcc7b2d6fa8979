"""What only a store has: parts, pages, requests that are late, and outages. The store is real."""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from yarl import URL

from cypd.config import S3, ConfigError
from cypd.oci.digest import Digest
from cypd.registry.ports import (
    BlobMissing,
    DigestMismatch,
    Remote,
    StagedBlob,
    Unavailable,
    UploadBusy,
)
from cypd.storage.s3 import journal, open_s3, opening
from cypd.storage.s3 import storage as engine
from cypd.storage.s3.owner import ForeignKeys
from cypd.storage.s3.plain import PlainClient, UnknownLength
from cypd.storage.s3.shards import shard_of
from cypd.storage.s3.staged import part_bytes
from cypd.storage.s3.storage import S3Storage
from cypd.storage.s3.store import Object, Store, StoreRefused
from tests.authority import Authority
from tests.weed import Weed

PART = 5 << 20
CONTENT = os.urandom(12 << 20)  # three parts, the last one short
DIGEST = Digest.of(CONTENT)
FUTURE = time.time() + 1e6
LATER = 1e6

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
async def storage(tmp_path: Path, weed: Weed) -> AsyncIterator[S3Storage]:
    """An engine with nothing in it."""
    async with open_s3(weed.settings(part_size=PART), tmp_path) as remote:
        yield remote


def store_of(storage: S3Storage) -> Store:
    """Return what the engine stands on."""
    return storage._store


async def keys(storage: S3Storage, kind: str) -> list[str]:
    """Return the keys of ``blobs/`` or ``uploads/``, when nothing is under way any more."""
    if storage._chores:
        await asyncio.wait(storage._chores)
    pages = store_of(storage).objects(f"{storage._prefix}{kind}")
    return [it.key async for page in pages for it in page]


async def write(staged: StagedBlob, content: bytes, step: int = 1 << 20) -> None:
    """Write content in pieces."""
    for start in range(0, len(content), step):
        await staged.write(content[start : start + step])


async def store(storage: S3Storage, content: bytes = CONTENT) -> Digest:
    """Store a blob by an upload of its own."""
    digest = Digest.of(content)
    async with storage.stage(f"of-{digest.hex[:8]}", "sha256") as staged:
        await write(staged, content)
        async with storage.place(staged, digest):
            pass
    return digest


async def read(storage: S3Storage, digest: Digest, size: int, start: int = 0) -> bytes:
    """Read a blob, or the end of it."""
    content = await storage.open(digest, size)
    assert isinstance(content, Remote)
    return b"".join([piece async for piece in content.read(start, size - start)])


# --- pushing ------------------------------------------------------------------------------------


@settings(max_examples=10)
@given(
    st.lists(st.integers(0, len(CONTENT)), max_size=6), st.sampled_from([65536, 1 << 20, 7 << 20])
)
async def test_any_cuts_make_the_same_blob(storage: S3Storage, cuts: list[int], step: int) -> None:
    """However an upload is cut into requests and pieces, the store puts the very bytes together."""
    edges = [0, *sorted(cuts), len(CONTENT)]
    upload_id = f"cut-{time.monotonic_ns()}"
    for start, stop in pairwise(edges):
        async with storage.stage(upload_id, "sha256") as staged:
            assert staged.size == start
            await write(staged, CONTENT[start:stop], step)
    async with storage.stage(upload_id, "sha256") as staged, storage.place(staged, DIGEST):
        pass

    assert await read(storage, DIGEST, len(CONTENT)) == CONTENT
    assert not await keys(storage, "uploads/")


async def test_a_small_blob_is_one_request(storage: S3Storage) -> None:
    """What fits a part is put where it belongs at once, and leaves nothing to clean."""
    digest = await store(storage, CONTENT[: PART - 1])

    assert await keys(storage, "blobs/") == [storage._key(digest)]
    assert not storage._chores


async def test_the_file_of_an_upload_takes_little_room(storage: S3Storage, tmp_path: Path) -> None:
    """What has arrived at the store is cut out of it, however long the upload is."""
    async with storage.stage("an-upload", "sha256") as staged:
        await write(staged, CONTENT)
    found = (tmp_path / "uploads" / "an-upload").stat()

    assert found.st_size == len(CONTENT)
    assert found.st_blocks * 512 < len(CONTENT) - PART
    assert len(await keys(storage, "uploads/")) == 2


def test_parts_grow_with_the_upload() -> None:
    """100 GB, and as much as an object can have, fit 10,000 parts, none larger than S3 copies."""
    for first in (5 << 20, 16 << 20, 5 << 30):
        sizes = [part_bytes(number, first) for number in range(10_000)]
        assert sum(sizes) > 5e12
        assert max(sizes) <= 5 << 30
        assert sizes == sorted(sizes)
    assert sum(part_bytes(number, 16 << 20) for number in range(3_000)) > 100e9


async def test_a_wrong_digest_keeps_what_was_there_before(storage: S3Storage) -> None:
    """Parts that left with a chunk that is called back count for nothing."""
    async with storage.stage("an-upload", "sha256") as staged:
        await write(staged, CONTENT[: 3 << 20])
    async with storage.stage("an-upload", "sha256") as staged:
        await write(staged, bytes(9 << 20))
        with pytest.raises(DigestMismatch):
            async with storage.place(staged, DIGEST):
                pytest.fail("placed")
        await staged.rollback()
        assert staged.size == 3 << 20
    async with storage.stage("an-upload", "sha256") as staged:
        assert staged.size == 3 << 20
        await write(staged, CONTENT[3 << 20 :])
        async with storage.place(staged, DIGEST):
            pass

    assert await read(storage, DIGEST, len(CONTENT)) == CONTENT
    assert not await keys(storage, "uploads/")


@pytest.mark.parametrize("boot", ["the same", "another", "told by the manager", "unknown"])
async def test_another_process_goes_on(
    tmp_path: Path, weed: Weed, monkeypatch: pytest.MonkeyPatch, boot: str
) -> None:
    """With the hash as it was; where it may be another boot it is made anew of the parts."""
    is_lost = boot in ("another", "unknown")
    if boot in ("told by the manager", "unknown"):
        monkeypatch.setattr(journal, "_BOOT_ID", tmp_path / "hidden")  # ProcSubset=pid
        monkeypatch.setenv("BOOT_ID", "" if is_lost else "a boot")
        monkeypatch.setattr(journal, "_boot_id", journal._boot_id.__wrapped__)
    there = weed.settings(part_size=PART)
    reads: list[str] = []
    real = Store.read

    def spy(self: Store, key: str, start: int, count: int) -> Any:
        reads.extend([key] if "/uploads/" in key else [])
        return real(self, key, start, count)

    async with open_s3(there, tmp_path) as first, first.stage("an-upload", "sha256") as staged:
        await write(staged, CONTENT[: 11 << 20])
    if boot == "another":
        monkeypatch.setattr(journal, "_boot_id", lambda: "another")
    monkeypatch.setattr(Store, "read", spy)
    async with open_s3(there, tmp_path) as second:
        assert await second.staged_size("an-upload") == 11 << 20
        async with second.stage("an-upload", "sha256") as staged:
            assert len(reads) == (2 if is_lost else 0)
            await write(staged, CONTENT[11 << 20 :])
            async with second.place(staged, DIGEST):
                pass
        assert await read(second, DIGEST, len(CONTENT)) == CONTENT


async def test_the_algorithm_may_change_although_parts_have_left(storage: S3Storage) -> None:
    """They are read again then, from the store."""
    async with storage.stage("an-upload", "sha256") as staged:
        await write(staged, CONTENT)
    digest = Digest.of(CONTENT, "sha512")
    async with storage.stage("an-upload", "sha512") as staged, storage.place(staged, digest):
        pass

    assert await read(storage, digest, len(CONTENT)) == CONTENT


async def test_a_cut_journal_loses_no_byte(storage: S3Storage, tmp_path: Path) -> None:
    """A line that a crash has cut off counts for nothing, and the next one starts anew."""
    async with storage.stage("an-upload", "sha256") as staged:
        await write(staged, CONTENT[: 11 << 20])
    with (tmp_path / "uploads" / "an-upload.parts").open("ab") as file:
        file.write(b'{"type":"part","number":')
    async with storage.stage("an-upload", "sha256") as staged:
        await write(staged, CONTENT[11 << 20 :])
        async with storage.place(staged, DIGEST):
            pass

    assert await read(storage, DIGEST, len(CONTENT)) == CONTENT


async def test_a_part_with_a_gap_before_it_stays_here(
    storage: S3Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes leave the file only when all before them have arrived."""
    real = Store.put
    failed = False

    async def put(self: Store, key: str, size: int, body: Any) -> None:
        nonlocal failed
        if "/00000-" in key and not failed:
            await asyncio.sleep(0.5)
            failed = True
            raise Unavailable("for once")
        await real(self, key, size, body)

    monkeypatch.setattr(Store, "put", put)
    async with storage.stage("an-upload", "sha256") as staged:
        await write(staged, CONTENT[: 11 << 20])
    assert failed
    async with storage.stage("an-upload", "sha256") as staged:
        await write(staged, CONTENT[11 << 20 :])
        async with storage.place(staged, DIGEST):
            pass

    assert await read(storage, DIGEST, len(CONTENT)) == CONTENT


async def test_what_is_discarded_leaves_nothing_in_the_store(storage: S3Storage) -> None:
    """Its parts go with it."""
    async with storage.stage("an-upload", "sha256") as staged:
        await write(staged, CONTENT)
    assert await keys(storage, "uploads/")
    await storage.discard("an-upload")

    assert not await keys(storage, "uploads/")
    assert not await storage.staged_uploads(idle_since=FUTURE)


async def test_an_upload_that_is_discarded_while_it_moves_is_not_placed(
    storage: S3Storage,
) -> None:
    """Although its parts have left."""
    async with storage.stage("an-upload", "sha256") as staged:
        await write(staged, CONTENT)
        await storage.discard("an-upload")
        with pytest.raises(UploadBusy):
            async with storage.place(staged, DIGEST):
                pytest.fail("placed")

    assert not await storage.has(DIGEST, len(CONTENT))


async def test_a_cancelled_push_leaves_what_arrived(storage: S3Storage) -> None:
    """A task that is cancelled while parts move ends soon, and the next request goes on."""
    written = asyncio.Event()

    async def push() -> None:
        async with storage.stage("an-upload", "sha256") as staged:
            await write(staged, CONTENT[: 11 << 20])
            await staged.flush()
            written.set()
            await asyncio.sleep(60)

    task = asyncio.ensure_future(push())
    await written.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with storage.stage("an-upload", "sha256") as staged:
        assert staged.size == 11 << 20
        await write(staged, CONTENT[11 << 20 :])
        async with storage.place(staged, DIGEST):
            pass

    assert await read(storage, DIGEST, len(CONTENT)) == CONTENT


# --- pulling ------------------------------------------------------------------------------------


async def test_any_part_of_a_blob_can_be_read(storage: S3Storage) -> None:
    """From any byte on, without what is before it."""
    await store(storage)
    for start in (0, 1, PART - 1, PART, len(CONTENT) - 1):
        assert await read(storage, DIGEST, len(CONTENT), start) == CONTENT[start:]


async def test_a_blob_that_was_cut_short_is_missing(storage: S3Storage) -> None:
    """What is of another size than the link says is not served."""
    await store(storage)
    with pytest.raises(BlobMissing):
        await storage.open(DIGEST, len(CONTENT) + 1)
    small = await store(storage, b"content")
    with pytest.raises(BlobMissing):
        await storage.open(small, 8)


async def test_a_store_whose_answers_have_no_length_is_read_as_well(
    storage: S3Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy may send chunks: the general client takes over, for good."""

    def odd(*_: object) -> None:
        raise UnknownLength

    await store(storage)
    assert store_of(storage)._plain
    monkeypatch.setattr(PlainClient, "get", odd)
    assert await read(storage, DIGEST, len(CONTENT)) == CONTENT
    assert store_of(storage)._plain is None
    with pytest.raises(BlobMissing):
        await read(storage, Digest.of(b"other"), PART)


async def test_an_upload_that_begins_anew_has_none_of_the_old_parts(
    storage: S3Storage, tmp_path: Path
) -> None:
    """What is noted of bytes that are not there counts for nothing."""
    async with storage.stage("an-upload", "sha256") as staged:
        await write(staged, bytes(11 << 20))
    (tmp_path / "uploads" / "an-upload").unlink()
    async with storage.stage("an-upload", "sha256") as staged:
        await write(staged, CONTENT)
        async with storage.place(staged, DIGEST):
            pass

    assert await read(storage, DIGEST, len(CONTENT)) == CONTENT


async def test_an_address_serves_clients_without_a_key(weed: Weed, tmp_path: Path) -> None:
    """A presigned address gives the blob and any range of it, and nothing else."""
    there = weed.settings(part_size=PART, redirect="on")
    async with open_s3(there, tmp_path) as storage:
        await store(storage)
        content = await storage.open(DIGEST, len(CONTENT))
        assert isinstance(content, Remote)
        address = await content.address("192.0.2.1")
        assert address
        async with aiohttp.ClientSession() as client:
            url = URL(address, encoded=True)
            async with client.get(url) as response:
                assert await response.read() == CONTENT
            async with client.get(url, headers={"Range": "bytes=1-9"}) as response:
                assert (response.status, await response.read()) == (206, CONTENT[1:10])
            async with client.delete(url) as response:
                assert response.status == 403
            other = url.with_path(url.path.replace("blobs/", "bloss/"))
            async with client.get(other) as response:
                assert response.status in (403, 404)


# --- collecting ---------------------------------------------------------------------------------


async def test_what_a_crash_left_is_collected(storage: S3Storage, tmp_path: Path) -> None:
    """Parts of uploads that are gone, and blobs that were being put together; nothing else."""
    async with storage.stage("alive", "sha256") as staged:
        await write(staged, CONTENT)
    async with storage.stage("dead", "sha256") as staged:
        await write(staged, CONTENT)
    (tmp_path / "uploads" / "dead").unlink()
    client = store_of(storage)._client
    target = {"Bucket": store_of(storage)._bucket, "Key": storage._key(DIGEST)}
    await client.create_multipart_upload(**target)
    await client.put_object(**target | {"Key": f"{storage._prefix}uploads/unknown/1"}, Body=b"x")

    await storage.collect(lambda _: True, placed_before=time.time() - 60)
    assert len(await keys(storage, "uploads/")) == 3, "the dead one's, and nothing that is young"
    await storage.collect(lambda _: True, placed_before=FUTURE)

    assert {key.split("/")[-2] for key in await keys(storage, "uploads/")} == {"alive"}
    assert not [it async for page in store_of(storage).unfinished(storage._prefix) for it in page]
    async with storage.stage("alive", "sha256") as staged, storage.place(staged, DIGEST):
        pass
    assert await read(storage, DIGEST, len(CONTENT)) == CONTENT


async def test_another_registrys_blobs_are_left_alone(
    storage: S3Storage, tmp_path: Path, weed: Weed
) -> None:
    """Two with one bucket and prefix are a mistake, of which the second hears at its start."""
    await store(storage, b"content")
    there = weed.settings(prefix=storage._prefix.rstrip("/"))
    with pytest.raises(ConfigError, match="another registry"):
        async with open_s3(there, tmp_path / "other"):
            pytest.fail("opened")
    own = storage._root
    storage._root, storage._is_ours = tmp_path / "other", False  # the store was down at its start
    with pytest.raises(ForeignKeys):
        await storage.collect(lambda _: False, placed_before=FUTURE)
    storage._root = own
    assert await storage.collect(lambda _: False, placed_before=FUTURE) == 1


async def test_what_is_being_put_together_is_not_aborted(
    storage: S3Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round of collection, however little grace it gives, breaks no push."""
    real = Store._do

    async def slow(self: Store, operation: str, **parameters: Any) -> Any:
        if operation == "complete_multipart_upload":
            await storage.collect(lambda _: False, placed_before=FUTURE)
        return await real(self, operation, **parameters)

    monkeypatch.setattr(Store, "_do", slow)
    await store(storage)

    assert await read(storage, DIGEST, len(CONTENT)) == CONTENT


async def test_listings_have_pages(storage: S3Storage) -> None:
    """More than a page is listed whole, objects and unfinished uploads alike."""
    store, prefix = store_of(storage), f"{storage._prefix}paged/"
    client, bucket = store._client, store._bucket
    for number in range(7):
        await client.put_object(Bucket=bucket, Key=f"{prefix}{number}", Body=b"content")
        await client.create_multipart_upload(Bucket=bucket, Key=f"{prefix}{number}")
    pages: list[list[Object]] = [page async for page in store.objects(prefix, page=3)]
    unfinished = [page async for page in store.unfinished(prefix, page=3)]

    assert [len(page) for page in pages] == [3, 3, 1]
    assert [it.key for page in pages for it in page] == [f"{prefix}{number}" for number in range(7)]
    assert sorted(it.key for page in unfinished for it in page) == [
        f"{prefix}{number}" for number in range(7)
    ]


async def test_many_pushes_and_a_collector_do_not_wait_for_each_other(
    storage: S3Storage,
) -> None:
    """More pushes of one digest than there are threads, while it is collected, all end."""
    digest = await store(storage, b"content")

    async def push(number: int) -> None:
        async with storage.stage(f"upload-{number}", "sha256") as staged:
            await staged.write(b"content")
            async with storage.place(staged, digest):
                pass

    async with storage._shards.collecting(shard_of(digest)) as deletions:
        assert deletions
        pushes = asyncio.gather(*map(push, range(40)))
        await asyncio.sleep(0.5)
        assert await asyncio.wait_for(storage._staging.offload(len, "a thread"), 30) == 8
        assert not pushes.done()
    await pushes
    assert await storage.has(digest, 7)


async def test_a_late_delete_is_outwaited(
    storage: S3Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A push waits until no request of a dead collector can take its blob away any more."""
    monkeypatch.setattr(engine, "_DOUBT_SECONDS", 1)
    digest = await store(storage, b"content")

    async def cut(*_: object, **__: object) -> None:
        raise Unavailable("nobody knows what came of it")

    begun = time.time()
    with monkeypatch.context() as patch:
        patch.setattr(Store, "delete", cut)
        patch.setattr(engine, "_DELETE_SECONDS", 2)
        with pytest.raises(Unavailable):
            await storage.collect(lambda _: False, placed_before=FUTURE)
    await store(storage, b"content")
    assert time.time() - begun > 2.5

    begun = time.time()
    assert await storage.collect(lambda _: False, placed_before=FUTURE) == 1
    assert not await storage.has(digest, 7)
    await store(storage, b"content")
    assert time.time() - begun < 10 or (tmp_path / "shards" / shard_of(digest)).read_text()


async def test_the_store_refuses_a_delete_that_is_too_late(storage: S3Storage) -> None:
    """What outwaiting stands on: a request that is older than it says takes nothing away."""
    digest = await store(storage, b"content")
    store_, key = store_of(storage), storage._key(digest)
    url = await store_._client.generate_presigned_url(
        "delete_object", Params={"Bucket": store_._bucket, "Key": key}, ExpiresIn=1
    )
    await asyncio.sleep(3)
    async with aiohttp.ClientSession() as client, client.delete(URL(url, encoded=True)) as response:
        assert response.status == 403
    assert await storage.has(digest, 7)


# --- outages ------------------------------------------------------------------------------------


@pytest.fixture
def own_weed(tmp_path: Path) -> Any:
    """A store that a test may stop."""
    with Weed(tmp_path / "own") as weed:
        yield weed


@asynccontextmanager
async def opened(weed: Weed, root: Path, **others: Any) -> AsyncIterator[S3Storage]:
    """Give an engine over a store."""
    async with open_s3(weed.settings(part_size=PART, **others), root) as storage:
        yield storage


async def test_an_upload_survives_an_outage(own_weed: Weed, tmp_path: Path) -> None:
    """While the store is down it is refused in time, then at once; then it goes on."""
    async with opened(own_weed, tmp_path) as storage:
        async with storage.stage("an-upload", "sha256") as staged:
            await write(staged, CONTENT[: 6 << 20])
        own_weed.kill()
        begun = time.monotonic()

        async def finish() -> None:
            async with storage.stage("an-upload", "sha256") as staged:
                await write(staged, CONTENT[6 << 20 :])
                async with storage.place(staged, DIGEST):
                    pass

        with pytest.raises(Unavailable):
            await finish()
        assert time.monotonic() - begun < 60
        for _ in range(6):
            with pytest.raises(Unavailable):
                await storage.has(DIGEST, 7)
        begun = time.monotonic()
        with pytest.raises(Unavailable):
            await storage.has(DIGEST, 7)
        assert time.monotonic() - begun < 5
        assert await storage.staged_size("an-upload") == len(CONTENT)

        own_weed.start()
        await asyncio.sleep(6)  # the longest time for which it is not even asked
        async with storage.stage("an-upload", "sha256") as staged, storage.place(staged, DIGEST):
            pass
        assert await read(storage, DIGEST, len(CONTENT)) == CONTENT
        assert not await keys(storage, "uploads/")


async def test_a_short_outage_is_waited_for(own_weed: Weed, tmp_path: Path) -> None:
    """A store that hangs for less time than two attempts have fails nobody."""
    async with opened(own_weed, tmp_path, read_timeout=6.0) as storage:
        await store(storage)
        own_weed.pause()
        looking = asyncio.ensure_future(storage.has(DIGEST, len(CONTENT)))
        await asyncio.sleep(7)
        assert not looking.done()
        own_weed.resume()
        assert await looking


async def test_a_read_goes_on_where_it_broke_off(own_weed: Weed, tmp_path: Path) -> None:
    """The client of a pull does not notice that the store restarted under it."""
    content = os.urandom(64 << 20)
    async with opened(own_weed, tmp_path) as storage:
        digest = await store(storage, content)
        blob = await storage.open(digest, len(content))
        assert isinstance(blob, Remote)
        pieces: list[bytes] = []
        async for piece in blob.read(0, len(content)):
            if not pieces:
                await asyncio.to_thread(own_weed.kill)
                await asyncio.to_thread(own_weed.start)
            pieces.append(piece)
        assert b"".join(pieces) == content


async def test_a_store_is_checked_before_it_is_trusted(tmp_path: Path) -> None:
    """By TLS it has to have a certificate of the configured authority; then all is as ever."""
    authority = Authority(tmp_path / "authority")
    with Weed(tmp_path / "own", tls=authority.files) as weed:
        async with opened(weed, tmp_path, connect_timeout=1.0, read_timeout=1.0) as storage:
            with pytest.raises(Unavailable):
                await store(storage, b"content")
        async with opened(weed, tmp_path, ca_file=str(authority.root)) as storage:
            await store(storage)
            assert await read(storage, DIGEST, len(CONTENT)) == CONTENT
            await storage.collect(lambda _: False, placed_before=FUTURE)
            assert not await storage.has(DIGEST, len(CONTENT))


async def test_a_store_that_hangs_delays_no_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What needs no blob is served soon, however long an answer of the store may take."""
    monkeypatch.setattr(opening, "_LOOK_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        there = S3(endpoint=endpoint, bucket="b", access_key="a", secret_key="b")
        async with asyncio.timeout(20), open_s3(there, tmp_path):
            pass

    assert "what needs a blob fails until then" in caplog.text


async def test_a_store_that_hangs_is_given_up(own_weed: Weed, tmp_path: Path) -> None:
    """It keeps its connections and answers nothing: the timeout counts."""
    async with opened(own_weed, tmp_path, read_timeout=3.0) as storage:
        await store(storage)
        own_weed.pause()
        try:
            with pytest.raises(Unavailable):
                await storage.has(DIGEST, len(CONTENT))
        finally:
            own_weed.resume()
        assert await asyncio.wait_for(storage.has(DIGEST, len(CONTENT)), 60)


async def test_a_start_without_a_store_succeeds(
    weed: Weed, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What needs no blob is served; the log says why the rest is not, and no secret."""
    there = weed.settings()
    for endpoint in ("http://127.0.0.1:1", weed.endpoint):
        broken = replace(there, endpoint=endpoint, secret_key="a-wrong-secret")
        async with open_s3(broken, tmp_path) as storage:
            with pytest.raises((Unavailable, StoreRefused)):
                await storage.has(DIGEST, 7)
    assert "what needs a blob fails" in caplog.text
    for secret in ("a-wrong-secret", "X-Amz-Signature"):
        assert secret not in caplog.text
