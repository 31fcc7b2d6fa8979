"""Paths: parsing, its inverse, and that nothing else comes out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cypd.oci import endpoints
from cypd.oci.digest import Digest
from cypd.oci.endpoints import Endpoint, Target, parse
from cypd.oci.errors import OCIError
from cypd.oci.names import RepositoryName, Tag

DIGEST = Digest.of(b"")
names = st.sampled_from(
    ["a", "a/b", "library/alpine", "a/blobs/uploads", "a/manifests", "tags/list", "uploads/x",
     "blobs/uploads", "manifests/tags", "v2/v2", "a/referrers", "x/blobs/sha256"]
).map(RepositoryName.parse)  # fmt: skip
tags = st.sampled_from(["latest", "1.0", "list", "uploads", "_", "A-b"]).map(Tag.parse)


@given(names, tags)
def test_a_path_is_read_as_it_was_built(name: RepositoryName, tag: Tag) -> None:
    """Parsing is the inverse of building, also for names made of the API's own words."""
    cases = {
        ("PUT", endpoints.manifest_path(name, tag)): Target(Endpoint.MANIFEST_PUT, name, tag),
        ("GET", endpoints.manifest_path(name, DIGEST)): Target(Endpoint.MANIFEST_GET, name, DIGEST),
        ("HEAD", endpoints.blob_path(name, DIGEST)): Target(Endpoint.BLOB_GET, name, DIGEST),
        ("POST", endpoints.upload_path(name)): Target(Endpoint.UPLOAD_START, name),
        ("PATCH", endpoints.upload_path(name, "id-1")): Target(
            Endpoint.UPLOAD_CHUNK, name, upload="id-1"
        ),
        ("GET", endpoints.tags_path(name)): Target(Endpoint.TAG_LIST, name),
        ("GET", endpoints.referrers_path(name, DIGEST)): Target(Endpoint.REFERRERS, name, DIGEST),
    }
    for (method, path), target in cases.items():
        assert target == parse(method, path)


@given(
    st.sampled_from(["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "get", ""]),
    st.one_of(st.text(), st.text("/v2blobsmanifetlr_c.%\0", max_size=40).map("/v2/".__add__)),
)
def test_any_path_is_a_target_or_a_refusal(method: str, path: str) -> None:
    """Whatever stands in a request line, the outcome is a target or a 4xx, nothing else."""
    try:
        target = parse(method, path)
    except OCIError as refusal:
        assert 400 <= refusal.status < 500
    else:
        assert target.endpoint in Endpoint


def test_a_missing_slash_after_uploads_is_forgiven() -> None:
    """Clients that leave the trailing slash away start an upload all the same."""
    assert parse("POST", "/v2/a/blobs/uploads/") == parse("POST", "/v2/a/blobs/uploads")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v3/", 404),
        ("GET", "/v2/x", 404),
        ("GET", "/v2/_catalog/", 404),
        ("GET", "//v2/_catalog", 404),
        ("GET", "/v2//_catalog", 404),
        ("GET", "/v2/_Catalog", 404),
        ("GET", "/v2/a/tags/List", 404),
        ("GET", "/v2//manifests/x", 400),
        ("GET", "/v2/../manifests/x", 400),
        ("GET", "/v2/a/../../etc/manifests/passwd", 400),
        ("GET", "/v2/a\\b/manifests/x", 400),
        ("GET", "/v2/a\0b/manifests/x", 400),
        ("GET", "/v2/A/manifests/x", 400),
        ("GET", "/v2/a;x/manifests/x", 400),
        ("GET", "/v2/a/manifests/..", 400),
        ("GET", "/v2/a/manifests/", 400),
        ("GET", "/v2/a/blobs/sha256:..", 400),
        ("GET", "/v2/a/blobs/", 400),
        ("GET", "/v2/a/referrers/latest", 400),
        ("POST", "/v2/", 405),
        ("POST", "/v2/_catalog", 405),
        ("PUT", "/v2/a/blobs/" + DIGEST, 405),
        ("POST", "/v2/a/manifests/x", 405),
        ("GET", "/v2/a/blobs/uploads/", 405),
        ("POST", "/v2/a/blobs/uploads/x", 405),
        ("DELETE", "/v2/a/tags/list", 405),
    ],
)
def test_other_paths_and_methods_are_refused(method: str, path: str, status: int) -> None:
    """404 for a path that is not the spec's, 400 for a bad part, 405 with Allow for a method."""
    with pytest.raises(OCIError) as refusal:
        parse(method, path)

    assert status == refusal.value.status
    assert (status == 405) == (b"allow" in refusal.value.headers)
