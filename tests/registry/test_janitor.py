"""The janitor: what it sweeps, and what it must not touch."""

import os
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from cypd.access import Principal
from cypd.metadata.lmdb import LmdbMetadata
from cypd.oci.digest import Digest
from cypd.oci.manifest import Manifest
from cypd.registry.janitor import Janitor
from cypd.registry.uploads import Body, Uploads
from cypd.storage.filesystem import FilesystemStorage
from tests.samples import ACT, EMPTY, create_projects, image, name, parsed

ADMIN = Principal("admin", "admin", is_admin=True)
DAY = 86400.0


class House:
    """A registry on disk, and a janitor with a day's patience."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.metadata = LmdbMetadata(root / "metadata", 16 << 20)
        create_projects(self.metadata.projects, "library")
        self.storage = FilesystemStorage(root)
        self.uploads = Uploads(self.metadata.registry, self.storage, max_sessions_per_user=10)
        self.janitor = Janitor(
            self.metadata.registry,
            self.storage,
            session_ttl=DAY,
            blob_grace=DAY,
            loose_grace=2 * DAY,
        )

    def close(self) -> None:
        """Close the engines."""
        self.storage.close()
        self.metadata.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """An empty house."""
    house = House(tmp_path)
    yield house
    house.close()


def body(content: bytes) -> Body:
    """Return a body."""

    async def pieces() -> AsyncIterator[bytes]:
        yield content

    return Body(pieces(), len(content))


async def test_a_round_tells_what_it_did_and_what_it_left(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sessions, links and blobs that went, and the unused blobs that are to go later."""
    content = b"content"
    upload = await house.uploads.start(name(), ADMIN, "sha256")
    await house.uploads.commit(upload, body(content), Digest.of(content))
    await house.metadata.registry.unlink_blob(name(), Digest.of(content))
    await house.uploads.start(name(), ADMIN, "sha256")

    assert await house.janitor.sweep() == (0, 0, 0, 1, len(content))
    later = time.time() + 2 * DAY
    monkeypatch.setattr(time, "time", lambda: later)
    assert await house.janitor.sweep() == (1, 0, 1, 0, 0)
    assert await house.janitor.sweep() == (0, 0, 0, 0, 0)


async def test_sessions_that_nobody_continues_go(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day after its last byte a session is gone with its bytes; one that moves stays."""
    empty = await house.uploads.start(name(), ADMIN, "sha256")
    idle = await house.uploads.start(name(), ADMIN, "sha256")
    moving = await house.uploads.start(name(), ADMIN, "sha256")
    for upload in (idle, moving):
        await house.uploads.append(upload, body(b"content"))
    await house.janitor.sweep()
    assert house.metadata.registry.upload(idle.id) == idle

    later = time.time() + 2 * DAY
    os.utime(house.root / "uploads" / moving.id, (later, later))
    monkeypatch.setattr(time, "time", lambda: later)
    await house.janitor.sweep()

    assert [None, None, moving] == [
        house.metadata.registry.upload(it.id) for it in (empty, idle, moving)
    ]
    assert [moving.id] == os.listdir(house.root / "uploads")


async def test_bytes_without_a_session_go(house: House) -> None:
    """What a crash left in the staging folder is removed when it is old enough."""
    for staged, age in (("old", 2 * DAY), ("young", 0.0)):
        path = house.root / "uploads" / staged
        path.write_bytes(b"content")
        os.utime(path, (time.time() - age,) * 2)
    await house.janitor.sweep()

    assert ["young"] == os.listdir(house.root / "uploads")


async def test_blobs_that_nobody_links_go(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deleted blob's bytes are reclaimed after the grace; a linked one's never."""
    kept, dropped = Digest.of(b"kept"), Digest.of(b"dropped")
    for content in (b"kept", b"dropped"):
        await house.uploads.push(name(), ADMIN, body(content), Digest.of(content))
    await house.metadata.registry.unlink_blob(name(), dropped)
    await house.janitor.sweep()
    assert await house.storage.has(dropped, 7)

    later = time.time() + 1.5 * DAY
    monkeypatch.setattr(time, "time", lambda: later)
    await house.janitor.sweep()

    assert not await house.storage.has(dropped, 7)
    assert await house.storage.has(kept, 4)


async def test_what_a_deleted_image_leaves_behind_goes(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blobs that no manifest lists any more are unlinked after the grace, then reclaimed."""
    contents = (EMPTY, b"only here", b"in both")
    for content in contents:
        await house.uploads.push(name(), ADMIN, body(content), Digest.of(content))
    both, other = parsed(image(b"only here", b"in both")), parsed(image(b"in both"))
    for manifest in (both, other):
        await put(house, manifest)
    await house.metadata.registry.delete_manifest(name(), both.digest, act=ACT)
    assert _left(house, contents) == [len(it) for it in contents]

    later = time.time() + 3 * DAY
    monkeypatch.setattr(time, "time", lambda: later)
    await house.janitor.sweep()

    assert _left(house, contents) == [len(EMPTY), None, len(b"in both")]
    there = [await house.storage.has(Digest.of(it), len(it)) for it in contents]
    assert there == [True, False, True]


def _left(house: House, contents: Sequence[bytes]) -> list[int | None]:
    """Return the sizes of blobs that are linked still."""
    blobs = [house.metadata.registry.blob(name(), Digest.of(it)) for it in contents]
    return [blob.size if blob else None for blob in blobs]


async def put(house: House, manifest: Manifest) -> None:
    """Push a manifest whose blobs are there."""
    await house.metadata.registry.put_manifest(
        name(), manifest, [], inline=True, allow_sparse=False, act=ACT
    )
