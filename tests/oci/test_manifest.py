"""Manifests: what is read out of them, and the documents of two meanings that are refused."""

import json
import tracemalloc
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cypd.oci import manifest as documents
from cypd.oci import media_types
from cypd.oci.digest import Digest
from cypd.oci.errors import Code, OCIError
from cypd.oci.manifest import MAX_MANIFEST_BYTES
from cypd.oci.media_types import OCI_ARTIFACT, OCI_INDEX, OCI_MANIFEST
from tests.samples import EMPTY, descriptor, image, index, parsed


def test_an_image_references_its_config_and_layers() -> None:
    """Config and layers have to be there before the manifest."""
    manifest = parsed(image(b"one", b"two"))

    assert {Digest.of(it) for it in (EMPTY, b"one", b"two")} == set(manifest.blobs)
    assert manifest.manifests == ()


def test_an_index_references_its_manifests() -> None:
    """The children are manifests, not blobs."""
    manifest = parsed(index(image(b"one"), image(b"two")), OCI_INDEX)

    assert (Digest.of(image(b"one")), Digest.of(image(b"two"))) == manifest.manifests
    assert manifest.blobs == ()


@pytest.mark.parametrize(
    ("config", "platform"),
    [
        (b'{"os": "linux", "architecture": "amd64", "rootfs": {}}', "linux/amd64"),
        (b'{"os": "linux", "architecture": "arm", "variant": "v7"}', "linux/arm/v7"),
        (b'{"os": "unknown", "architecture": "unknown"}', None),
        (b'{"os": "linux"}', None),
        (b'{"os": "li/nux", "architecture": "amd64"}', None),
        (b'{"os": "linux", "architecture": "' + b"a" * 100 + b'"}', None),
        (b'{"os": 1, "architecture": "amd64"}', None),
        (b'{"os": "linux", "x": ' + b"[" * 5000 + b"]" * 5000 + b"}", None),
        (b"\xff", None),
        (b"[]", None),
        (b"", None),
    ],
)
def test_a_config_may_name_a_platform(config: bytes, platform: str | None) -> None:
    """Whatever a config is, it names one in short words or none; it is never refused."""
    assert platform == documents.platform_of(config)


def test_an_index_names_platforms() -> None:
    """Each once, sorted, and no more than a number that no real index comes near to."""
    document = json.loads(index(image()))
    (child,) = document["manifests"]
    document["manifests"] = [
        child | {"platform": {"os": "linux", "architecture": f"a{i % 100:02}"}} for i in range(200)
    ]

    found = parsed(json.dumps(document).encode(), OCI_INDEX).platforms
    assert tuple(f"linux/a{i:02}" for i in range(documents.MAX_PLATFORMS)) == found


def test_the_artifact_type_falls_back_to_the_configs() -> None:
    """Referrers are filtered by artifactType, or by the config's media type without one."""
    assert parsed(image(artifact_type="x/sbom")).artifact_type == "x/sbom"
    assert parsed(image()).artifact_type == "application/vnd.oci.image.config.v1+json"
    assert parsed(index(), OCI_INDEX).artifact_type is None


def test_an_artifact_manifest_has_blobs_and_a_subject() -> None:
    """The withdrawn artifact manifest of image-spec 1.1-rc is still pushed by old tools."""
    subject = Digest.of(b"subject")
    document = {
        "mediaType": OCI_ARTIFACT,
        "artifactType": "x/signature",
        "blobs": [descriptor(b"one")],
        "subject": {"mediaType": OCI_MANIFEST, "digest": subject, "size": 7},
    }
    manifest = parsed(json.dumps(document).encode(), OCI_ARTIFACT)

    assert (Digest.of(b"one"),) == manifest.blobs
    assert subject == manifest.subject


def test_a_layer_with_urls_need_not_be_here() -> None:
    """Layers that may not be redistributed are named, and their addresses reported."""
    document = json.loads(image(b"one"))
    document["layers"].append({**descriptor(b"far"), "urls": ["https://example.com/far"]})
    manifest = parsed(json.dumps(document).encode())

    assert Digest.of(b"far") not in manifest.blobs
    assert manifest.urls == ("https://example.com/far",)


def test_the_content_type_may_have_parameters() -> None:
    """Parameters and case of a Content-Type say nothing about the document."""
    content = image()

    parameters = "Application/vnd.oci.image.manifest.v1+JSON; charset=utf-8"

    assert OCI_MANIFEST == parsed(content, parameters).media_type
    assert OCI_MANIFEST == parsed(content, "").media_type


def _edited(**changes: Any) -> bytes:
    document = json.loads(image(b"one"))
    document.update(changes)
    return json.dumps({key: value for key, value in document.items() if value != "gone"}).encode()


GOOD = image(b"one")
REFUSED = {
    "not JSON": b"hello",
    "empty": b"",
    "a list": b"[]",
    "null": b"null",
    "a byte order mark": b"\xef\xbb\xbf" + GOOD,
    "bytes behind the document": GOOD + b"x",
    "two documents": GOOD + GOOD,
    "invalid UTF-8": GOOD.replace(b"schemaVersion", b"schema\xffVersion"),
    "a lone surrogate": GOOD.replace(b'"schemaVersion"', b'"a\\ud800": 1, "schemaVersion"'),
    "NaN": GOOD.replace(b'"schemaVersion": 2', b'"schemaVersion": NaN'),
    "a number out of all range": GOOD.replace(b'"size": 2', b'"size": 1e400'),
    "a negative size": GOOD.replace(b'"size": 2', b'"size": -2'),
    "a size with a fraction": GOOD.replace(b'"size": 2', b'"size": 2.5'),
    "a size as text": GOOD.replace(b'"size": 2', b'"size": "2"'),
    "a second layers": GOOD.replace(b'"layers"', b'"layers": [], "layers"'),
    "a second layers, escaped": GOOD.replace(b'"layers"', b'"l\\u0061yers": [], "layers"'),
    "a second digest in a layer": GOOD.replace(b'"digest"', b'"digest": "x", "digest"'),
    "Layers": GOOD.replace(b'"layers"', b'"Layers"'),
    "Layers beside layers": GOOD.replace(b'"layers"', b'"LAYERS": [], "layers"'),
    "layers and manifests": _edited(manifests=[]),
    "layers and blobs": _edited(blobs=[]),
    "no layers": _edited(layers="gone"),
    "no config": _edited(config="gone"),
    "schemaVersion 1": _edited(schemaVersion=1),
    "another mediaType": _edited(mediaType=OCI_INDEX),
    "a layer that is no object": _edited(layers=[1]),
    "a layer without a digest": _edited(layers=[{"mediaType": "x", "size": 1}]),
    "a digest of another algorithm": _edited(
        layers=[{"mediaType": "x", "size": 1, "digest": "md5:" + "a" * 32}]
    ),
    "a subject that is a digest alone": _edited(subject=Digest.of(b"x")),
    "annotations that are no text": _edited(annotations={"a": 1}),
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "a deep field": GOOD.replace(b"{", b'{"x": ' + b"[" * 40 + b"]" * 40 + b",", 1),
    "an unclosed string": GOOD[:-20] + b'"',
    "brackets that don't match": GOOD.replace(b"]", b"}"),
}


@pytest.mark.parametrize("content", REFUSED.values(), ids=REFUSED)
def test_documents_of_no_or_two_meanings_are_refused(content: bytes) -> None:
    """What two parsers could read in two ways is MANIFEST_INVALID (CVE-2021-41190)."""
    with pytest.raises(OCIError) as refusal:
        parsed(content)

    assert refusal.value.code is Code.MANIFEST_INVALID


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/json", "application/vnd.docker.distribution.manifest.v1+prettyjws"],
)
def test_other_media_types_are_refused(content_type: str) -> None:
    """What is no manifest type can't be pushed as a manifest."""
    with pytest.raises(OCIError, match=r"is none of|but Content-Type"):
        parsed(_edited(mediaType="gone"), content_type)


def test_an_index_has_no_layers() -> None:
    """An index that is an image as well is refused."""
    document = {**json.loads(index()), "layers": []}
    with pytest.raises(OCIError):
        parsed(json.dumps(document).encode(), OCI_INDEX)
    with pytest.raises(OCIError, match="neither"):
        parsed(json.dumps({"mediaType": OCI_ARTIFACT, "layers": []}).encode(), OCI_ARTIFACT)


def test_the_type_of_every_manifest_is_known_to_clients() -> None:
    """Docker's two types and OCI's are accepted with the same rules."""
    docker = json.loads(image(b"one"))
    docker["mediaType"] = media_types.DOCKER_MANIFEST

    content = json.dumps(docker).encode()

    assert parsed(image(b"one")).blobs == parsed(content, media_types.DOCKER_MANIFEST).blobs


@given(st.recursive(st.none() | st.text(max_size=5) | st.integers(), st.lists, max_leaves=20))
def test_unknown_fields_are_kept_and_ignored(value: Any) -> None:
    """A manifest may have any other field; its bytes stay as they are."""
    content = _edited(**{"org.example": value})

    assert content == parsed(content).content


@given(st.binary(max_size=300) | st.text(max_size=100).map(str.encode))
def test_any_bytes_are_a_manifest_or_a_refusal(content: bytes) -> None:
    """No body raises anything but MANIFEST_INVALID."""
    try:
        documents.parse(content, OCI_MANIFEST, Digest.of(content))
    except OCIError as refusal:
        assert refusal.code is Code.MANIFEST_INVALID


@pytest.mark.parametrize(
    "filling",
    [
        b"[" + b"[]," * 1_200_000 + b"[]]",
        b"[" + b"{}," * 1_200_000 + b"{}]",
        b"[" + b"0," * 2_000_000 + b"0]",
        b"{" + b",".join(b'"%x": 0' % number for number in range(300_000)) + b"}",
        b'"' + b"x" * 4_000_000 + b'"',
    ],
    ids=["lists", "objects", "numbers", "names", "text"],
)
def test_a_hostile_manifest_takes_little_memory(filling: bytes) -> None:
    """Four megabytes of brackets or names, refused or not, cost less than 16 MiB to read."""
    content = GOOD.replace(b"{", b'{"x": ' + filling + b",", 1)
    assert len(content) <= MAX_MANIFEST_BYTES
    tracemalloc.start()
    try:
        with suppress(OCIError):
            parsed(content)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 16 << 20
