"""Quotas as clients meet them: refused to the byte, and before the bytes where that can be told."""

import pytest

from cypd.oci.digest import Digest
from cypd.projects.ports import Usage
from cypd.registry.room import UNRESERVED_BYTES
from tests.samples import EMPTY, image
from tests.v2.client import Cut, Response
from tests.v2.conftest import Engines, Registry, build

MIB = 1 << 20
QUOTA = 8 * MIB
UPLOADS = "/v2/library/app/blobs/uploads/"


@pytest.fixture
def registry(engines: Engines) -> Registry:
    """A registry whose projects hold 8 MiB."""
    return build(*engines, default_quota=QUOTA)


def usage(registry: Registry) -> Usage:
    """Return what the project takes."""
    standing = registry.projects.standing("library", "")
    assert standing is not None
    return registry.projects.usage(standing.project.id)


def refused(response: Response) -> dict[str, int]:
    """Assert that it is a refusal for want of room, and return what it says."""
    assert (response.status, response.code) == (403, "DENIED")
    detail: dict[str, int] = response.json()["errors"][0]["detail"]
    return detail


async def fill(registry: Registry, size: int) -> bytes:
    """Push a blob of that size."""
    content = b"f" * size
    await registry.push(content)
    return content


async def session(registry: Registry) -> str:
    """Open a session."""
    return (await registry.admin.request("POST", UPLOADS)).headers["location"]


def length(size: int) -> dict[str, str]:
    """Return the header of a body that comes in pieces."""
    return {"Content-Length": str(size)}


@pytest.mark.parametrize("size", [10, UNRESERVED_BYTES, UNRESERVED_BYTES + 1, 3 * MIB])
async def test_a_push_that_does_not_fit_is_refused_unread(registry: Registry, size: int) -> None:
    """403 with quota, used, requested and left, before a byte of the body; nothing is kept."""
    await fill(registry, QUOTA - size + 1)
    before = usage(registry)
    content = b"x" * size
    url = f"{UPLOADS}?digest={Digest.of(content)}"
    whole = await registry.admin.request("POST", url, [content], length(size))
    location = await session(registry)
    chunk = await registry.admin.request("PATCH", location, [content], length(size))
    last = await registry.admin.request(
        "PUT", f"{location}?digest={Digest.of(content)}", [content], length(size)
    )

    window = {"Content-Range": f"0-{size - 1}"}
    ranged = await registry.admin.request("PATCH", location, [content], window)
    for response in (whole, chunk, last, ranged):
        expected = {"quota": QUOTA, "used": QUOTA - size + 1, "requested": size, "left": size - 1}
        assert refused(response) == expected
        assert response.pieces_read == 0
    assert usage(registry) == before
    assert (await registry.admin.request("GET", location)).headers["range"] == "0-0"


async def test_a_window_of_any_size_is_refused(registry: Registry) -> None:
    """Also one that no integer of a machine holds is 403, and not our fault."""
    location = await session(registry)
    window = {"Content-Range": f"0-{10**19 - 1}"}

    assert refused(await registry.admin.request("PATCH", location, [b"x"], window))["used"] == 0


@pytest.mark.parametrize("size", [10, UNRESERVED_BYTES, 3 * MIB])
async def test_what_fits_exactly_is_taken(registry: Registry, size: int) -> None:
    """To the last byte of the quota, in one request or by a session; then not a byte more."""
    await fill(registry, QUOTA - 2 * size)
    await registry.push(b"x" * size)
    location = await session(registry)
    assert (await registry.admin.request("PATCH", location, b"y" * size)).status == 202
    digest = Digest.of(b"y" * size)
    assert (await registry.admin.request("PUT", f"{location}?digest={digest}")).status == 201
    assert usage(registry) == Usage(QUOTA, 0, QUOTA, 0)

    location = await session(registry)
    refused(await registry.admin.request("PATCH", location, b"z"))


async def test_what_is_there_is_taken_again(registry: Registry) -> None:
    """A full project takes a push of content that it has, of any size, and mounts of it."""
    content = await fill(registry, QUOTA)
    url = f"/v2/library/other/blobs/uploads/?digest={Digest.of(content)}"
    assert (await registry.admin.request("POST", url, content)).status == 201
    mount = f"/v2/library/third/blobs/uploads/?mount={Digest.of(content)}"
    assert (await registry.admin.request("POST", mount)).status == 201
    location = await session(registry)
    url = f"{location}?digest={Digest.of(content)}"
    assert (await registry.admin.request("PUT", url, content)).status == 201

    assert usage(registry) == Usage(QUOTA, 0, QUOTA, 0)


async def test_a_mount_needs_room(registry: Registry) -> None:
    """Content of another project counts in this one too, and is refused where it does not fit."""
    digest = await registry.push(b"x" * 100, "other/app")
    await fill(registry, QUOTA - 99)
    url = f"{UPLOADS}?mount={digest}&from=other/app"

    assert refused(await registry.admin.request("POST", url))["requested"] == 100
    got = await registry.admin.request("GET", f"/v2/library/app/blobs/{digest}")
    assert got.status == 404


async def test_a_manifest_counts_with_its_own_bytes(registry: Registry) -> None:
    """Not with what it says of its layers; and a large one leaves nothing behind if refused."""
    for blob in (EMPTY, b"layer"):
        await registry.push(blob)
    lying = image(b"layer").replace(b'"size": 5', b'"size": 9999999999')
    assert (await registry.put(lying, "lying")).status == 201
    assert usage(registry) == Usage(len(lying) + 7, 0, len(lying) + 7, 1)

    await fill(registry, QUOTA - len(lying) - 7 - 100_000)
    large = image(b"layer", note="x" * 100_000)
    assert refused(await registry.put(large, "large"))["requested"] == len(large)
    assert (await registry.put(lying, "again")).status == 201
    assert usage(registry).image_count == 1


@pytest.mark.parametrize("pieces", [4, 40])
async def test_a_stream_is_refused_where_it_goes_too_far(registry: Registry, pieces: int) -> None:
    """The chunk is forgotten, what was there before it stays, and the session goes on."""
    await fill(registry, 4 * MIB)
    location = await session(registry)
    before = b"b" * (2 * MIB)
    assert (await registry.admin.request("PATCH", location, [before])).status == 202
    assert usage(registry).reserved == 2 * MIB
    piece = b"p" * (4 * MIB // pieces)
    response = await registry.admin.request("PATCH", location, [piece] * pieces)
    assert refused(response)["quota"] == QUOTA
    assert response.pieces_read < pieces

    status = await registry.admin.request("GET", location)
    assert status.headers["range"] == f"0-{2 * MIB - 1}"
    assert usage(registry).reserved == 2 * MIB
    rest = b"r" * (2 * MIB)
    digest = Digest.of(before + rest)
    done = await registry.admin.request("PUT", f"{location}?digest={digest}", [rest])
    assert done.status == 201
    assert usage(registry) == Usage(QUOTA, 0, QUOTA, 0)


async def test_a_stream_in_one_request_is_refused_too(registry: Registry) -> None:
    """A whole blob without a length: nothing of it is left, neither bytes nor reservation."""
    await fill(registry, 4 * MIB)
    content = b"s" * (5 * MIB)
    url = f"{UPLOADS}?digest={Digest.of(content)}"
    pieces = [content[start : start + MIB] for start in range(0, len(content), MIB)]

    refused(await registry.admin.request("POST", url, pieces))
    assert usage(registry) == Usage(4 * MIB, 0, 4 * MIB, 0)
    assert not registry.metadata.uploads(started_before=float("inf"))
    digest = Digest.of(content[: 4 * MIB])
    done = await registry.admin.request("POST", f"{UPLOADS}?digest={digest}", pieces[:4])
    assert done.status == 201


async def test_a_reservation_is_as_long_as_its_upload(registry: Registry) -> None:
    """It follows what is there, whatever ends a request, and goes when the upload goes."""
    location = await session(registry)
    chunk = b"c" * (2 * MIB)
    assert (await registry.admin.request("PATCH", location, chunk)).status == 202
    assert usage(registry).reserved == 2 * MIB
    cut: list[bytes | Cut] = [chunk[:MIB], Cut()]
    assert (await registry.admin.request("PATCH", location, cut, length(2 * MIB))).status == 400
    assert usage(registry).reserved == 3 * MIB
    wrong = f"{location}?digest={Digest.of(b'something else')}"
    assert (await registry.admin.request("PUT", wrong, chunk)).status == 400
    assert usage(registry).reserved == 3 * MIB
    refused(await registry.admin.request("PATCH", location, [chunk] * 3, length(6 * MIB)))
    assert usage(registry).reserved == 3 * MIB

    assert (await registry.admin.request("DELETE", location)).status == 204
    assert usage(registry) == Usage(0, 0, 0, 0)


async def test_a_stream_gives_back_what_it_did_not_need(registry: Registry) -> None:
    """It reserves ahead of its bytes while they come, and has just theirs when they have come."""
    location = await session(registry)
    pieces = [b"p" * MIB] * 2
    assert (await registry.admin.request("PATCH", location, pieces)).status == 202
    assert usage(registry).reserved == 2 * MIB


async def test_others_find_reserved_room_taken(registry: Registry) -> None:
    """Two uploads that fit each by itself do not fit together; the first keeps its room."""
    first = await session(registry)
    content = b"1" * (6 * MIB)
    assert (await registry.admin.request("PATCH", first, content)).status == 202
    other = b"2" * (3 * MIB)
    url = f"{UPLOADS}?digest={Digest.of(other)}"
    assert refused(await registry.admin.request("POST", url, other)) == {
        "quota": QUOTA, "used": 0, "requested": 3 * MIB, "left": 2 * MIB,
    }  # fmt: skip
    done = await registry.admin.request("PUT", f"{first}?digest={Digest.of(content)}")

    assert done.status == 201
