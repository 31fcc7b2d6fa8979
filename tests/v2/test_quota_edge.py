"""Quotas under many clients at once, over LMDB and files: never a byte too much, at any commit."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from cypd.metadata.lmdb import LmdbMetadata
from cypd.oci.digest import Digest
from cypd.registry.room import UNRESERVED_BYTES
from cypd.storage.filesystem import FilesystemStorage
from tests.metadata.recount import check_counters
from tests.samples import image
from tests.v2.client import Cut, Response
from tests.v2.conftest import Registry, build

CLIENTS = 64
STEPS = 8
QUOTA = 3 * UNRESERVED_BYTES
_LARGE = UNRESERVED_BYTES + 100_000
# Few contents for many clients, so that they meet at the same ones.
CONTENTS = [b"%d" % n * size for n in range(4) for size in (1, 5_000, 200_000, _LARGE)]
MANIFESTS = [image(b"layer", note=f"{n}" * 40_000 * (n % 3)) for n in range(12)]
DIGESTS = [Digest.of(content) for content in (*CONTENTS, *MANIFESTS)]


@pytest.fixture
def metadata(tmp_path: Path) -> Iterator[LmdbMetadata]:
    """The metadata of a registry on disk."""
    metadata = LmdbMetadata(tmp_path / "metadata", 64 << 20)
    yield metadata
    metadata.close()


@pytest.fixture
def registry(tmp_path: Path, metadata: LmdbMetadata) -> Iterator[Registry]:
    """A registry on disk where a project holds two large blobs."""
    storage = FilesystemStorage(tmp_path)
    yield build(
        metadata, storage, allow_sparse=True, default_quota=QUOTA, max_sessions_per_user=1000
    )
    storage.close()


async def test_as_many_are_taken_as_fit(registry: Registry, metadata: LmdbMetadata) -> None:
    """Of 64 pushes of equal size at the same moment exactly those that the quota holds."""
    size = QUOTA // 20
    blobs = [number.to_bytes(2, "big") * (size // 2) for number in range(CLIENTS)]

    async def push(blob: bytes) -> int:
        url = f"/v2/library/app/blobs/uploads/?digest={Digest.of(blob)}"
        return (await registry.admin.request("POST", url, blob)).status

    statuses = await asyncio.gather(*map(push, blobs))
    assert (statuses.count(201), statuses.count(403)) == (20, CLIENTS - 20)
    check_counters(metadata, map(Digest.of, blobs))


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_clients_do_the_counters_are_right(
    registry: Registry, metadata: LmdbMetadata, seed: int
) -> None:
    """Uploads, cut and cancelled ones, mounts, manifests that lie, deletes: as a recount says."""
    for content in CONTENTS[:8]:
        await registry.push(content, "source/app")
    await registry.push(CONTENTS[0])
    clients = [_Client(registry, Random(seed * CLIENTS + number)) for number in range(CLIENTS)]
    await asyncio.gather(*(client.run() for client in clients))
    assert sum(client.refused for client in clients) > CLIENTS // 4  # it was the edge indeed

    check_counters(metadata, DIGESTS)
    for upload in metadata.registry.uploads(started_before=float("inf")):
        await metadata.registry.close_upload(upload.id)
    check_counters(metadata, DIGESTS)
    standing = metadata.projects.standing("library", "")
    assert standing is not None
    assert metadata.projects.usage(standing.project.id).reserved == 0


class _Client:
    """Somebody who does one thing after the other, in one of two repositories."""

    def __init__(self, registry: Registry, random: Random) -> None:
        self._registry = registry
        self._random = random
        self._send = registry.admin.request
        self.refused = 0
        self._base = f"/v2/library/{random.choice(['one', 'two'])}"

    async def run(self) -> None:
        actions: list[Callable[[], Awaitable[None]]] = [
            self._push, self._stream, self._session, self._session, self._mount, self._put,
            self._put, self._delete, self._delete,
        ]  # fmt: skip
        for action in self._random.choices(actions, k=STEPS):
            await action()
            self._check_used()

    def _check_used(self) -> None:
        for project in self._registry.projects.projects(after="", limit=9):
            usage = self._registry.projects.usage(project.id)
            assert 0 <= usage.physical <= usage.used
            assert 0 <= usage.reserved
            assert usage.used + usage.reserved <= QUOTA

    def _content(self) -> tuple[bytes, Digest]:
        content = self._random.choice(CONTENTS)
        return content, Digest.of(content)

    async def _push(self) -> None:
        content, digest = self._content()
        self._expect(
            await self._send("POST", f"{self._base}/blobs/uploads/?digest={digest}", content), 201
        )

    async def _stream(self) -> None:
        content, digest = self._content()
        url = f"{self._base}/blobs/uploads/?digest={digest}"
        self._expect(await self._send("POST", url, self._pieces(content)), 201, 400)

    def _pieces(self, content: bytes) -> list[bytes | Cut]:
        size = max(1, len(content) // 3)
        pieces: list[bytes | Cut] = [content[at : at + size] for at in range(0, len(content), size)]
        if self._random.random() < 0.3:
            pieces.insert(self._random.randint(0, len(pieces)), Cut())
        return pieces

    async def _session(self) -> None:
        content, digest = self._content()
        start = await self._send("POST", f"{self._base}/blobs/uploads/")
        assert start.status == 202
        location = start.headers["location"]
        half = len(content) // 2
        first = self._pieces(content[:half]) if self._random.random() < 0.5 else content[:half]
        sent = self._expect(await self._send("PATCH", location, first), 202, 400)
        ending = self._random.random()
        if ending < 0.2:
            return  # and never comes back
        if ending < 0.4 or sent != 202:
            self._expect(await self._send("DELETE", location), 204)
            return
        self._expect(await self._send("PUT", f"{location}?digest={digest}", content[half:]), 201)

    async def _mount(self) -> None:
        content = self._random.choice(CONTENTS[:8])
        query = f"?mount={Digest.of(content)}&from=source/app"
        self._expect(await self._send("POST", f"{self._base}/blobs/uploads/{query}"), 201)

    async def _put(self) -> None:
        manifest = self._random.choice(MANIFESTS)
        tag = self._random.choice("abc")
        self._expect(await self._send("PUT", f"{self._base}/manifests/{tag}", manifest), 201)

    async def _delete(self) -> None:
        blob, manifest = self._content()[1], Digest.of(self._random.choice(MANIFESTS))
        tag = self._random.choice("abc")
        path = self._random.choice([f"blobs/{blob}", f"manifests/{manifest}", f"manifests/{tag}"])
        self._expect(await self._send("DELETE", f"{self._base}/{path}"), 202, 404, 405)

    def _expect(self, response: Response, *statuses: int) -> int:
        """Assert that it is one of these, or a refusal that says what is left, and return it."""
        assert response.status in (*statuses, 403), response
        if response.status == 403:
            self.refused += 1
            detail = response.json()["errors"][0]["detail"]
            assert detail["requested"] > detail["left"]
            assert detail["used"] <= detail["quota"] == QUOTA
        return response.status
