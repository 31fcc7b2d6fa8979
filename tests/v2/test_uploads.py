"""Pushing blobs: in one request, in a stream, in chunks, cut, resumed, mounted, refused."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cypd.metadata.memory import MemoryMetadata
from cypd.oci.digest import Digest, parse_algorithm
from cypd.storage.memory import MemoryStorage
from tests.v2.client import Client, Cut, Response
from tests.v2.conftest import Registry, build

CONTENT = bytes(range(256)) * 1000
UPLOADS = "/v2/library/app/blobs/uploads/"


async def start(client: Client, url: str = UPLOADS) -> str:
    """Open a session and return where it is."""
    response = await client.request("POST", url)

    assert response.status == 202
    assert response.headers["range"] == "0-0"
    return response.headers["location"]


async def finish(client: Client, location: str, content: bytes, body: bytes = b"") -> Response:
    """Close a session, saying that it holds ``content``."""
    return await client.request("PUT", f"{location}?digest={Digest.of(content)}", body)


async def pulled(registry: Registry, content: bytes, repository: str = "library/app") -> bytes:
    """Pull what should be ``content``."""
    url = f"/v2/{repository}/blobs/{Digest.of(content)}"
    response = await registry.admin.request("GET", url)

    assert response.status == 200
    return response.body


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_one_post_with_the_body(registry: Registry, algorithm: str) -> None:
    """POST with digest and body stores the blob at once."""
    digest = Digest.of(CONTENT, parse_algorithm(algorithm))
    response = await registry.admin.request("POST", f"{UPLOADS}?digest={digest}", CONTENT)

    assert response.status == 201
    assert response.headers["location"] == f"/v2/library/app/blobs/{digest}"
    assert digest == response.headers["docker-content-digest"]
    got = await registry.admin.request("GET", response.headers["location"])
    assert got.body == CONTENT


async def test_post_then_put(registry: Registry) -> None:
    """A session whose closing PUT brings the whole body."""
    location = await start(registry.admin)
    response = await finish(registry.admin, location, CONTENT, CONTENT)

    assert response.status == 201
    assert CONTENT == await pulled(registry, CONTENT)


async def test_a_stream_of_unknown_length(registry: Registry) -> None:
    """One PATCH without Content-Range or Content-Length, as docker pushes."""
    location = await start(registry.admin)
    pieces = [CONTENT[i : i + 1000] for i in range(0, len(CONTENT), 1000)]
    patched = await registry.admin.request("PATCH", location, pieces)

    assert patched.status == 202
    assert f"0-{len(CONTENT) - 1}" == patched.headers["range"]
    assert (await finish(registry.admin, location, CONTENT)).status == 201
    assert CONTENT == await pulled(registry, CONTENT)


@pytest.mark.parametrize("asked", ["sha256", "sha512"])
async def test_a_session_may_name_its_algorithm(registry: Registry, asked: str) -> None:
    """``digest-algorithm`` is a promise about the closing digest; another one works as well."""
    location = await start(registry.admin, f"{UPLOADS}?digest-algorithm={asked}")
    await registry.admin.request("PATCH", location, CONTENT)
    digest = Digest.of(CONTENT, "sha512")
    response = await registry.admin.request("PUT", f"{location}?digest={digest}")

    assert response.status == 201
    refused = await registry.admin.request("POST", f"{UPLOADS}?digest-algorithm=md5")
    assert (400, "DIGEST_INVALID") == (refused.status, refused.code)


async def test_chunks_in_order(registry: Registry) -> None:
    """Chunks with their windows add up, the last one in the closing PUT."""
    location = await start(registry.admin)
    half = len(CONTENT) // 2
    first = {"Content-Range": f"0-{half - 1}"}
    last = {"Content-Range": f"{half}-{len(CONTENT) - 1}"}
    patched = await registry.admin.request("PATCH", location, CONTENT[:half], first)
    put = await registry.admin.request(
        "PUT", f"{location}?digest={Digest.of(CONTENT)}", CONTENT[half:], last
    )

    assert (202, 201) == (patched.status, put.status)
    assert CONTENT == await pulled(registry, CONTENT)


@pytest.mark.parametrize(
    "window", ["0-9", "2-11", "11-20", "4-3", "bytes=10-19", "-5", "10", "", "10-" + "9" * 30]
)
async def test_a_chunk_out_of_order_is_416_and_loses_nothing(
    registry: Registry, window: str
) -> None:
    """Gap, overlap and nonsense are refused; the session goes on where it was."""
    location = await start(registry.admin)
    await registry.admin.request("PATCH", location, b"0123456789")
    for method, url in (("PATCH", location), ("PUT", f"{location}?digest={Digest.of(b'x')}")):
        refused = await registry.admin.request(
            method, url, b"abcdefghij", {"Content-Range": window}
        )
        assert refused.status in (416, 400)
        assert refused.status == 416 or window == "10-" + "9" * 30
    status = await registry.admin.request("GET", location)

    assert (204, "0-9") == (status.status, status.headers["range"])
    assert location == status.headers["location"]
    assert (await finish(registry.admin, location, b"0123456789")).status == 201


async def test_a_chunk_must_be_as_long_as_it_says(registry: Registry) -> None:
    """A window that the body does not fill, or overfills, is refused and forgotten."""
    location = await start(registry.admin)
    window = {"Content-Range": "0-9"}
    short = await registry.admin.request("PATCH", location, [b"012"], window)
    long = await registry.admin.request("PATCH", location, [b"0123456789", b"x"], window)
    lying = await registry.admin.request("PATCH", location, b"012", window)

    assert (400, 400, 400) == (short.status, long.status, lying.status)
    status = await registry.admin.request("GET", location)
    assert status.headers["range"] == "0-0"
    assert (await finish(registry.admin, location, b"0123456789", b"0123456789")).status == 201


async def test_a_cut_upload_goes_on_where_it_broke_off(registry: Registry) -> None:
    """What arrived before the connection went is kept, and the status tells how much."""
    location = await start(registry.admin)
    await registry.admin.request("PATCH", location, [CONTENT[:100_000], Cut()])
    status = await registry.admin.request("GET", location)

    assert status.headers["range"] == "0-99999"
    window = {"Content-Range": f"100000-{len(CONTENT) - 1}"}
    await registry.admin.request("PATCH", location, CONTENT[100_000:], window)
    assert (await finish(registry.admin, location, CONTENT)).status == 201
    assert CONTENT == await pulled(registry, CONTENT)


@given(st.lists(st.integers(0, 3000), max_size=6), st.lists(st.booleans(), min_size=7, max_size=7))
@settings(max_examples=40)
async def test_cut_anywhere_it_ends_in_the_same_blob(cuts: list[int], ends: list[bool]) -> None:
    """However an upload is split, and wherever connections break, the blob is the same."""
    registry = build(MemoryMetadata(), MemoryStorage())
    content = bytes(i * 7 % 251 for i in range(3000))
    location = await start(registry.admin)
    bounds = sorted({0, *cuts, len(content)})
    for first, last, is_cut in zip(bounds, bounds[1:], ends, strict=False):
        pieces: list[bytes | Cut] = [content[first:last], *([Cut()] if is_cut else [])]
        await registry.admin.request("PATCH", location, pieces)
    assert (await finish(registry.admin, location, content)).status == 201
    assert content == await pulled(registry, content)


async def test_a_wrong_digest_makes_nothing_visible(registry: Registry) -> None:
    """The blob exists under neither digest, and the session can be closed with the right one."""
    location = await start(registry.admin)
    await registry.admin.request("PATCH", location, b"0123")
    refused = await registry.admin.request(
        "PUT", f"{location}?digest={Digest.of(b'other')}", b"4567"
    )

    assert (400, "DIGEST_INVALID") == (refused.status, refused.code)
    for content in (b"other", b"01234567"):
        got = await registry.admin.request("HEAD", f"/v2/library/app/blobs/{Digest.of(content)}")
        assert got.status == 404
    assert (await finish(registry.admin, location, b"01234567", b"4567")).status == 201


async def test_a_known_digest_is_not_enough(registry: Registry) -> None:
    """An empty body can't claim a blob that exists elsewhere (CVE-2024-39897)."""
    digest = await registry.push(b"secret", "private/app")
    refused = await registry.other.request("POST", f"/v2/other/x/blobs/uploads/?digest={digest}")

    assert refused.status == 400
    got = await registry.other.request("GET", f"/v2/other/x/blobs/{digest}")
    assert got.status == 404


@pytest.mark.parametrize(
    "query",
    ["", "?digest=", "?digest=md5:1", f"?digest={'sha256:' + 'A' * 64}",
     f"?digest={Digest.of(b'')}&digest={Digest.of(b'')}", "?digest=%ff"],
)  # fmt: skip
async def test_a_closing_put_needs_one_good_digest(registry: Registry, query: str) -> None:
    """Without one, with two, or with another form of one the session stays open."""
    location = await start(registry.admin)
    refused = await registry.admin.request("PUT", location + query, b"")

    assert refused.status == 400
    assert (await finish(registry.admin, location, b"")).status == 201


async def test_a_session_belongs_to_who_opened_it(registry: Registry) -> None:
    """To another user, or through another repository, it does not exist (CVE-2026-32589)."""
    location = await start(registry.other, "/v2/other/x/blobs/uploads/")
    session = location.rsplit("/", 1)[1]
    digest = Digest.of(b"")
    for client, repository in (
        (registry.admin, "other/x"),
        (registry.admin, "library/app"),
        (registry.other, "other/y"),
    ):
        url = f"/v2/{repository}/blobs/uploads/{session}"
        for method in ("GET", "PATCH", "DELETE", "PUT"):
            query = f"?digest={digest}" if method == "PUT" else ""
            refused = await client.request(method, url + query, b"stolen")
            assert (404, "BLOB_UPLOAD_UNKNOWN") == (refused.status, refused.code)
    status = await registry.other.request("GET", location)
    assert status.headers["range"] == "0-0"


async def test_sessions_that_are_over_or_never_were(registry: Registry) -> None:
    """Finished, cancelled and invented sessions are 404 to every method."""
    finished = await start(registry.admin)
    await finish(registry.admin, finished, b"x", b"x")
    cancelled = await start(registry.admin)
    assert (await registry.admin.request("DELETE", cancelled)).status == 204
    for url in (finished, cancelled, UPLOADS + "0" * 36, UPLOADS + "..", UPLOADS + "é" * 50):
        for method in ("GET", "PATCH", "DELETE", "PUT"):
            query = f"?digest={Digest.of(b'x')}" if method == "PUT" else ""
            refused = await registry.admin.request(method, url + query)
            assert (404, "BLOB_UPLOAD_UNKNOWN") == (refused.status, refused.code)


async def test_nobody_opens_sessions_without_end(registry: Registry) -> None:
    """Past the cap a user gets 429; a finished session makes room, and others are not hit."""
    sessions = [await start(registry.admin) for _ in range(10)]
    refused = await registry.admin.request("POST", UPLOADS)

    assert (429, "TOOMANYREQUESTS") == (refused.status, refused.code)
    await start(registry.other, "/v2/other/x/blobs/uploads/")
    await registry.admin.request("DELETE", sessions[0])
    await start(registry.admin)


async def test_a_mount_links_without_bytes(registry: Registry) -> None:
    """A blob the caller may pull from the source is linked at once, with or without ``from``."""
    digest = await registry.push(CONTENT, "library/base")
    for target, source in (("other/a", "&from=library/base"), ("other/b", "")):
        url = f"/v2/{target}/blobs/uploads/?mount={digest}{source}"
        mounted = await registry.other.request("POST", url)

        assert mounted.status == 201
        assert mounted.headers["location"] == f"/v2/{target}/blobs/{digest}"
        assert CONTENT == await pulled(registry, CONTENT, target)


async def test_a_mount_of_what_one_may_not_read_is_an_upload(registry: Registry) -> None:
    """Private, absent and malformed sources can't be told apart: each is a new session."""
    digest = await registry.push(b"secret", "private/app")
    answers = []
    for source in ("&from=private/app", "&from=nowhere/app", "&from=library/app", "", "&from=../x"):
        url = f"/v2/other/x/blobs/uploads/?mount={digest}{source}"
        answers.append(await registry.other.request("POST", url))

    assert {202} == {answer.status for answer in answers}
    assert 1 == len({tuple(answer.headers) for answer in answers})
    got = await registry.other.request("GET", f"/v2/other/x/blobs/{digest}")
    assert got.status == 404


async def test_a_busy_session_takes_one_writer(registry: Registry) -> None:
    """Of two requests at once one goes on, the other is 416, and the digest is right."""
    location = await start(registry.admin)
    upload = registry.metadata.upload(location.rsplit("/", 1)[1])
    assert upload is not None
    async with registry.storage.stage(upload.id, upload.algorithm) as staged:
        await staged.write(b"0123")
        for method, query in (("PATCH", ""), ("PUT", f"?digest={Digest.of(b'0123')}")):
            refused = await registry.admin.request(method, location + query, b"4567")
            assert refused.status == 416

    assert (await finish(registry.admin, location, b"0123")).status == 201


async def test_the_same_blob_from_many_at_once(registry: Registry) -> None:
    """Sixteen pushes of one blob all succeed, and it is right."""
    digest = Digest.of(CONTENT)
    pushes = [
        registry.admin.request("POST", f"{UPLOADS}?digest={digest}", CONTENT) for _ in range(16)
    ]
    answers = await asyncio.gather(*pushes)

    assert {201} == {answer.status for answer in answers}
    assert CONTENT == await pulled(registry, CONTENT)
