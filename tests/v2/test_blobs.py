"""Pulling blobs: whole, in ranges, not at all."""

from email import message_from_bytes
from pathlib import Path

import pytest

from cypd.doors.asgi import ZEROCOPY_SEND
from cypd.metadata.memory import MemoryMetadata
from cypd.oci.digest import Digest
from cypd.storage.filesystem import FilesystemStorage
from tests.v2.conftest import Registry, build

LARGE = bytes(range(256)) * 1024
SIZES = [b"", b"x", b"small" * 100, LARGE]


@pytest.mark.parametrize("content", SIZES, ids=len)
async def test_a_pull_gives_the_bytes_that_were_pushed(registry: Registry, content: bytes) -> None:
    """GET gives exactly the bytes, under their digest; HEAD says the same without them."""
    digest = await registry.push(content)
    got = await registry.anonymous.request("GET", f"/v2/library/app/blobs/{digest}")
    head = await registry.anonymous.request("HEAD", f"/v2/library/app/blobs/{digest}")

    assert (200, content) == (got.status, got.body)
    assert (200, b"") == (head.status, head.body)
    assert got.headers == head.headers
    assert str(len(content)) == got.headers["content-length"]
    assert digest == got.headers["docker-content-digest"]
    assert f'"{digest}"' == got.headers["etag"]
    assert "immutable" in got.headers["cache-control"]
    assert got.headers["accept-ranges"] == "bytes"


async def test_a_blob_is_never_a_page(registry: Registry) -> None:
    """Whatever was pushed comes as octet-stream, not to be sniffed, in a sandbox."""
    digest = await registry.push(b"<html><script>alert(1)</script>")
    got = await registry.anonymous.request("GET", f"/v2/library/app/blobs/{digest}")

    assert got.headers["content-type"] == "application/octet-stream"
    assert got.headers["x-content-type-options"] == "nosniff"
    assert got.headers["content-security-policy"] == "sandbox"


@pytest.mark.parametrize("content", [b"0123456789" * 10, LARGE], ids=len)
@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [("0-0", 0, 1), ("5-9", 5, 10), ("90-", 90, None), ("-7", -7, None), ("10-99999999", 10, None)],
)
async def test_one_range_is_sent_as_it_is(
    registry: Registry, content: bytes, header: str, start: int, stop: int | None
) -> None:
    """A range is 206 with exactly its bytes and where they are from."""
    digest = await registry.push(content)
    expected = content[start:stop]
    got = await registry.admin.request(
        "GET", f"/v2/library/app/blobs/{digest}", headers={"Range": f"bytes={header}"}
    )

    assert (206, expected) == (got.status, got.body)
    first = start % len(content)
    span = f"bytes {first}-{first + len(expected) - 1}/{len(content)}"
    assert span == got.headers["content-range"]
    assert str(len(expected)) == got.headers["content-length"]


@pytest.mark.parametrize("content", [b"0123456789" * 10, LARGE], ids=len)
async def test_several_ranges_come_as_parts(registry: Registry, content: bytes) -> None:
    """Several ranges are one multipart/byteranges answer, as RFC 9110 14.6 draws it."""
    digest = await registry.push(content)
    got = await registry.admin.request(
        "GET", f"/v2/library/app/blobs/{digest}", headers={"Range": "bytes=0-4,50-59,-3"}
    )
    message = message_from_bytes(
        b"content-type: " + got.headers["content-type"].encode() + b"\r\n\r\n" + got.body
    )
    parts = [part for part in message.walk() if not part.is_multipart()]

    assert got.status == 206
    assert str(len(got.body)) == got.headers["content-length"]
    assert [content[0:5], content[50:60], content[-3:]] == [
        part.get_payload(decode=True) for part in parts
    ]
    size = len(content)
    assert [f"bytes 0-4/{size}", f"bytes 50-59/{size}", f"bytes {size - 3}-{size - 1}/{size}"] == [
        part["content-range"] for part in parts
    ]


async def test_a_range_beyond_the_end_is_416(registry: Registry) -> None:
    """The answer says how long the blob is."""
    digest = await registry.push(b"0123456789")
    got = await registry.admin.request(
        "GET", f"/v2/library/app/blobs/{digest}", headers={"Range": "bytes=10-"}
    )

    assert got.status == 416
    assert got.headers["content-range"] == "bytes */10"


async def test_a_range_of_another_version_is_the_whole(registry: Registry) -> None:
    """If-Range with another entity gets the whole blob, with this one the range."""
    digest = await registry.push(b"0123456789")
    url = f"/v2/library/app/blobs/{digest}"
    other = {"Range": "bytes=1-2", "If-Range": '"sha256:other"'}
    same = {"Range": "bytes=1-2", "If-Range": f'"{digest}"'}

    assert (await registry.admin.request("GET", url, headers=other)).status == 200
    assert (await registry.admin.request("GET", url, headers=same)).status == 206


@pytest.mark.parametrize("condition", ['"{}"', 'W/"{}"', '"a", "{}"', "*"])
async def test_what_a_client_has_is_not_sent_again(registry: Registry, condition: str) -> None:
    """If-None-Match with the digest is 304 without a body."""
    digest = await registry.push(b"0123456789")
    headers = {"If-None-Match": condition.format(digest)}
    got = await registry.admin.request("GET", f"/v2/library/app/blobs/{digest}", headers=headers)

    assert (304, b"") == (got.status, got.body)
    assert f'"{digest}"' == got.headers["etag"]


async def test_a_blob_is_readable_only_through_its_repositories(registry: Registry) -> None:
    """Knowing a digest is not enough: without a link in the repository it is not there."""
    digest = await registry.push(b"secret", "private/app")
    for method in ("GET", "HEAD"):
        got = await registry.other.request(method, f"/v2/other/app/blobs/{digest}")
        assert got.status == 404


async def test_a_forbidden_repository_looks_absent(registry: Registry) -> None:
    """Private and absent give the same answer, byte for byte but for the name that was asked."""
    digest = await registry.push(b"secret", "private/app")
    private = await registry.other.request("GET", f"/v2/private/app/blobs/{digest}")
    absent = await registry.other.request("GET", f"/v2/nowhere/app/blobs/{digest}")

    assert private.status == absent.status == 404
    assert private.headers.keys() == absent.headers.keys()
    assert private.body.replace(b"private", b"nowhere") == absent.body


async def test_a_deleted_blob_is_gone_from_that_repository_alone(registry: Registry) -> None:
    """Delete unlinks: others keep theirs, and a new push really stores it again."""
    digest = await registry.push(b"shared", "library/one")
    await registry.push(b"shared", "library/two")
    first = await registry.admin.request("DELETE", f"/v2/library/one/blobs/{digest}")
    again = await registry.admin.request("DELETE", f"/v2/library/one/blobs/{digest}")
    gone = await registry.admin.request("HEAD", f"/v2/library/one/blobs/{digest}")
    kept = await registry.admin.request("GET", f"/v2/library/two/blobs/{digest}")

    assert (202, 404, 404) == (first.status, again.status, gone.status)
    assert kept.body == b"shared"
    await registry.push(b"shared", "library/one")
    back = await registry.admin.request("GET", f"/v2/library/one/blobs/{digest}")
    assert back.body == b"shared"


async def test_what_a_manifest_lists_can_not_be_deleted(registry: Registry) -> None:
    """Deleting a layer of an image is refused, with what to do; after the manifest it works."""
    manifest = await registry.push_image(b"layer")
    url = f"/v2/library/app/blobs/{Digest.of(b'layer')}"
    refused = await registry.admin.request("DELETE", url)

    assert (405, "DENIED") == (refused.status, refused.code)
    assert "delete that manifest first" in refused.body.decode()
    await registry.admin.request("DELETE", f"/v2/library/app/manifests/{manifest}")
    assert (await registry.admin.request("DELETE", url)).status == 202


async def test_a_file_goes_straight_from_its_descriptor(tmp_path: Path) -> None:
    """Whole or in ranges: no byte of it passes through the application."""
    storage = FilesystemStorage(tmp_path)
    registry = build(MemoryMetadata(), storage)
    digest = await registry.push(LARGE + LARGE)
    url = f"/v2/library/app/blobs/{digest}"
    whole = await registry.admin.request("GET", url)
    part = await registry.admin.request("GET", url, headers={"Range": "bytes=10-300000"})
    parts = await registry.admin.request("GET", url, headers={"Range": "bytes=0-9,-9"})
    storage.close()

    assert LARGE + LARGE == whole.body
    assert (LARGE + LARGE)[10:300001] == part.body
    assert (LARGE + LARGE)[-9:] in parts.body
    assert whole.used == part.used == [ZEROCOPY_SEND]
    assert parts.used.count(ZEROCOPY_SEND) == 2


async def test_a_damaged_blob_is_told_and_can_be_pushed_again(tmp_path: Path) -> None:
    """Before a push it looks absent, so that clients push it, which heals it; a pull is a 500."""
    storage = FilesystemStorage(tmp_path)
    registry = build(MemoryMetadata(), storage)
    digest = await registry.push(b"content")
    (path,) = (tmp_path / "blobs").rglob(digest.hex)
    path.chmod(0o600)
    path.write_bytes(b"cont")
    url = f"/v2/library/app/blobs/{digest}"

    assert (await registry.admin.request("HEAD", url)).status == 404
    assert (await registry.admin.request("GET", url)).status == 500
    await registry.push(b"content")
    assert (await registry.admin.request("GET", url)).body == b"content"
    storage.close()
