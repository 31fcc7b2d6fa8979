"""Pulling, pushing and deleting manifests and tags."""

import json

import pytest

from cypd.oci.digest import Digest
from cypd.oci.manifest import MAX_MANIFEST_BYTES
from cypd.oci.media_types import OCI_ARTIFACT, OCI_INDEX, OCI_MANIFEST
from cypd.registry.ports import INLINE_BYTES
from tests.samples import EMPTY, descriptor, image, index
from tests.v2.conftest import Engines, Registry, build

MANIFESTS = "/v2/library/app/manifests/"


async def test_a_pull_gives_the_bytes_that_were_pushed(registry: Registry) -> None:
    """By tag and by digest, GET gives the exact bytes and type, HEAD the same headers."""
    digest = await registry.push_image(b"layer")
    for reference in ("latest", digest):
        got = await registry.anonymous.request("GET", MANIFESTS + reference)
        head = await registry.anonymous.request("HEAD", MANIFESTS + reference)

        assert (200, image(b"layer")) == (got.status, got.body)
        assert (200, b"", got.headers) == (head.status, head.body, head.headers)
        assert OCI_MANIFEST == got.headers["content-type"]
        assert digest == got.headers["docker-content-digest"]
        assert f'"{digest}"' == got.headers["etag"]
        assert (reference == digest) == ("cache-control" in got.headers)
        known = {"If-None-Match": got.headers["etag"]}
        again = await registry.anonymous.request("GET", MANIFESTS + reference, headers=known)
        assert (304, b"") == (again.status, again.body)


async def test_white_space_is_kept(registry: Registry) -> None:
    """The bytes are the identity: no byte of a document is written anew."""
    await registry.push(EMPTY)
    content = json.dumps(json.loads(image()), indent=3).encode() + b"\n \t"
    await registry.put(content, "spaced")
    got = await registry.admin.request("GET", MANIFESTS + "spaced")

    assert content == got.body


@pytest.mark.parametrize("size", [INLINE_BYTES, INLINE_BYTES + 1, 1 << 20, MAX_MANIFEST_BYTES])
async def test_manifests_up_to_four_mebibytes(registry: Registry, size: int) -> None:
    """Whether inline or a file, a manifest is pushed, pulled and deleted the same."""
    await registry.push(EMPTY)
    content = image(note="x" * (size - len(image(note=""))))
    assert len(content) == size
    put = await registry.put(content, "large")
    got = await registry.admin.request("GET", MANIFESTS + "large")
    head = await registry.admin.request("HEAD", MANIFESTS + Digest.of(content))

    assert (201, 200, content) == (put.status, got.status, got.body)
    assert str(size) == head.headers["content-length"]
    assert registry.metadata.is_held(Digest.of(content)) == (size > INLINE_BYTES)
    deleted = await registry.admin.request("DELETE", MANIFESTS + Digest.of(content))
    assert deleted.status == 202
    assert not registry.metadata.is_held(Digest.of(content))


async def test_a_larger_manifest_is_413(registry: Registry) -> None:
    """One byte too many is refused, whether or not the length was told."""
    content = image(note="x" * MAX_MANIFEST_BYTES)
    told = await registry.put(content, "huge")
    streamed = await registry.admin.request("PUT", MANIFESTS + "huge", [content])

    assert (413, 413) == (told.status, streamed.status)


async def test_what_a_manifest_lists_has_to_be_there(registry: Registry) -> None:
    """Missing blobs and children are named, and nothing is stored."""
    await registry.push(EMPTY)
    await registry.push(b"elsewhere", "library/other")
    for content in (image(b"missing"), image(b"elsewhere"), index(image(b"x"))):
        refused = await registry.put(content, "broken")
        assert (404, "MANIFEST_BLOB_UNKNOWN") == (refused.status, refused.code)
        assert len(refused.json()["errors"][0]["detail"]["missing"]) == 1
        got = await registry.admin.request("GET", MANIFESTS + "broken")
        assert got.status == 404


async def test_sparse_manifests_can_be_allowed(
    engines: Engines,
) -> None:
    """With manifests.allow_sparse an index is accepted before its platforms."""
    registry = build(*engines, allow_sparse=True)
    put = await registry.put(index(image(b"x")), "sparse")

    assert put.status == 201


async def test_addresses_outside_are_refused_unless_named(
    engines: Engines,
) -> None:
    """A layer's urls pass only to hosts that manifests.allow_urls names; nothing is fetched."""
    registry = build(*engines, allow_urls=("store.example.com",))
    await registry.push(EMPTY)

    def foreign(url: str) -> bytes:
        document = json.loads(image())
        document["layers"] = [{**descriptor(b"far"), "urls": [url]}]
        return json.dumps(document).encode()

    good = await registry.put(foreign("https://store.example.com/far"), "good")
    assert good.status == 201
    for url in (
        "http://169.254.169.254/latest/meta-data",
        "https://store.example.com.evil.org/",
        "https://store.example.com@evil.org/",
        "file:///etc/passwd",
        "store.example.com/x",
        "",
    ):
        refused = await registry.put(foreign(url), "bad")
        assert (400, "MANIFEST_INVALID") == (refused.status, refused.code)


async def test_a_wrong_digest_or_document_stores_nothing(registry: Registry) -> None:
    """A reference that is not the content's digest, and a body that is no manifest, are 400."""
    await registry.push(EMPTY)
    wrong = await registry.put(image(), Digest.of(b"other"))
    bad = await registry.put(b'{"schemaVersion": 2}', "bad")
    typed = await registry.admin.request(
        "PUT", MANIFESTS + "typed", image(), {"Content-Type": OCI_INDEX}
    )

    assert (400, "DIGEST_INVALID") == (wrong.status, wrong.code)
    assert (400, "MANIFEST_INVALID") == (bad.status, bad.code)
    assert (400, "MANIFEST_INVALID") == (typed.status, typed.code)
    tags = await registry.admin.request("GET", "/v2/library/app/tags/list")
    assert tags.json()["tags"] == []


async def test_a_push_by_digest_may_name_tags(registry: Registry) -> None:
    """``?tag=`` points several tags at once, also to a sha512 manifest, and says which."""
    await registry.push(EMPTY)
    digest = Digest.of(image(), "sha512")
    put = await registry.put(image(), digest, query="?tag=one&tag=two")

    assert put.status == 201
    assert put.headers["oci-tag"] == "one, two"
    assert put.headers["location"] == MANIFESTS + digest
    for tag in ("one", "two"):
        got = await registry.admin.request("GET", MANIFESTS + tag)
        assert digest == got.headers["docker-content-digest"]
    for query in ("?tag=..", "?tag=", "?" + "&".join(f"tag=t{i}" for i in range(101))):
        refused = await registry.put(image(), digest, query=query)
        assert refused.status in (400, 414)


async def test_a_tag_moves(registry: Registry) -> None:
    """A push to a tag moves it; the manifest it pointed at stays readable by digest."""
    before = await registry.push_image(b"one")
    after = await registry.push_image(b"two")
    by_tag = await registry.admin.request("HEAD", MANIFESTS + "latest")
    by_digest = await registry.admin.request("HEAD", MANIFESTS + before)

    assert after == by_tag.headers["docker-content-digest"]
    assert by_digest.status == 200
    await registry.admin.request("DELETE", MANIFESTS + before)
    assert (await registry.admin.request("HEAD", MANIFESTS + "latest")).status == 200


async def test_deleting_a_tag_keeps_the_manifest(registry: Registry) -> None:
    """The tag alone goes; deleting the manifest takes all its tags along."""
    digest = await registry.push_image(b"layer")
    await registry.put(image(b"layer"), "other")
    first = await registry.admin.request("DELETE", MANIFESTS + "latest")
    gone = await registry.admin.request("DELETE", MANIFESTS + "latest")

    assert (202, 404) == (first.status, gone.status)
    assert (await registry.admin.request("HEAD", MANIFESTS + digest)).status == 200
    assert (await registry.admin.request("DELETE", MANIFESTS + digest)).status == 202
    for reference in ("other", digest):
        got = await registry.admin.request("GET", MANIFESTS + reference)
        assert (404, "MANIFEST_UNKNOWN") == (got.status, got.code)


async def test_a_listed_manifest_can_not_be_deleted(registry: Registry) -> None:
    """A platform of an index goes after the index, so that no index is broken by a delete."""
    child = await registry.push_image(b"layer")
    parent = index(image(b"layer"))
    await registry.put(parent, "multi")
    refused = await registry.admin.request("DELETE", MANIFESTS + child)

    assert (405, "DENIED") == (refused.status, refused.code)
    await registry.admin.request("DELETE", MANIFESTS + Digest.of(parent))
    assert (await registry.admin.request("DELETE", MANIFESTS + child)).status == 202


async def test_referrers_list_what_has_a_subject(registry: Registry) -> None:
    """Every manifest with that subject is listed, whether or not the subject exists."""
    await registry.push(EMPTY)
    subject = Digest.of(b"not here yet")
    signature = image(subject=subject, artifact_type="x/signature", note="one")
    sbom = image(subject=subject, artifact_type="x/sbom")
    for content in (signature, sbom):
        put = await registry.put(content, Digest.of(content))
        assert put.headers["oci-subject"] == subject
    url = f"/v2/library/app/referrers/{subject}"
    every = await registry.anonymous.request("GET", url)
    some = await registry.anonymous.request("GET", url + "?artifactType=x/sbom")

    assert OCI_INDEX == every.headers["content-type"]
    assert {Digest.of(signature), Digest.of(sbom)} == {
        it["digest"] for it in every.json()["manifests"]
    }
    found = {it["artifactType"]: it for it in every.json()["manifests"]}
    assert found["x/signature"]["annotations"] == {"note": "one"}
    assert found["x/signature"]["size"] == len(signature)
    assert [Digest.of(sbom)] == [it["digest"] for it in some.json()["manifests"]]
    assert some.headers["oci-filters-applied"] == "artifactType"
    await registry.admin.request("DELETE", MANIFESTS + Digest.of(sbom))
    left = await registry.anonymous.request("GET", url)
    assert [Digest.of(signature)] == [it["digest"] for it in left.json()["manifests"]]


async def test_no_referrers_are_an_empty_list(registry: Registry) -> None:
    """Also in a repository that does not exist: the spec has no 404 here."""
    got = await registry.anonymous.request("GET", f"/v2/library/no/referrers/{Digest.of(b'')}")

    assert (200, []) == (got.status, got.json()["manifests"])


async def test_referrers_come_in_pages(registry: Registry) -> None:
    """``Link`` leads through all of them, each once, with the filter kept."""
    await registry.push(EMPTY)
    subject = Digest.of(b"subject")
    pushed = set()
    for number in range(5):
        content = image(subject=subject, artifact_type="x/y", note=str(number))
        await registry.put(content, Digest.of(content))
        pushed.add(Digest.of(content))
    url = f"/v2/library/app/referrers/{subject}?n=2&artifactType=x/y"
    seen = []
    while url:
        page = await registry.admin.request("GET", url)
        seen += [it["digest"] for it in page.json()["manifests"]]
        url = page.headers.get("link", "").removeprefix("<").partition(">")[0]

    assert sorted(pushed) == sorted(seen)


async def test_any_artifact_can_be_pushed(registry: Registry) -> None:
    """An image with an artifact's type, and the older artifact manifest, are both stored."""
    await registry.push(EMPTY)
    await registry.push(b"layer")
    older = json.dumps(
        {"mediaType": OCI_ARTIFACT, "artifactType": "x/z", "blobs": [descriptor(b"layer")]}
    ).encode()
    for content in (image(b"layer", artifact_type="application/vnd.any.thing"), older):
        assert (await registry.put(content, "artifact")).status == 201
        got = await registry.admin.request("GET", MANIFESTS + "artifact")
        assert content == got.body


async def test_a_damaged_large_manifest_is_our_fault(registry: Registry) -> None:
    """A file that is gone although a row names it is a 500 with a trace id, and a log line."""
    await registry.push(EMPTY)
    content = image(note="x" * INLINE_BYTES)
    await registry.put(content, "large")
    await registry.storage.collect(lambda digest: False, placed_before=1e12)
    got = await registry.admin.request(
        "GET", MANIFESTS + "large", headers={"X-Request-ID": "abc-1"}
    )

    assert (500, "UNKNOWN") == (got.status, got.code)
    assert got.headers["x-request-id"] == "abc-1"
    await registry.put(content, "large")
    healed = await registry.admin.request("GET", MANIFESTS + "large")
    assert content == healed.body
