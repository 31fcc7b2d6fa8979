"""What is an image, and what only looks like one."""

import json
from typing import Any

import pytest

from cypd.oci.images import read
from tests.samples import artifact, image, index

OCI, DOCKER = "application/vnd.oci.image.", "application/vnd.docker."
LAYER = f"{OCI}layer.v1.tar+gzip"


def manifest(config: str, *layers: str, **more: Any) -> bytes:
    """Return a manifest of descriptors of some media types."""

    def descriptor(media_type: str) -> dict[str, Any]:
        return {"mediaType": media_type, "digest": f"sha256:{'0' * 64}", "size": 1}

    listed = [descriptor(it) for it in layers]
    return json.dumps({"config": descriptor(config), "layers": listed} | more).encode()


@pytest.mark.parametrize(
    "content",
    [
        image(b"layer"),
        image(),
        index(image()),
        index(),
        manifest(f"{OCI}config.v1+json", LAYER),
        manifest(f"{OCI}config.v1+json", f"{OCI}layer.nondistributable.v1.tar"),
        manifest(f"{OCI}config.v1+json", f"{LAYER}+encrypted", artifactType="a/b"),
        manifest(f"{DOCKER}container.image.v1+json", f"{DOCKER}image.rootfs.diff.tar.gzip"),
        manifest(f"{DOCKER}container.image.v1+json", f"{DOCKER}image.rootfs.foreign.diff.tar.gzip"),
        manifest("application/octet-stream", LAYER),
        manifest("application/json", LAYER),
        manifest("", LAYER),
    ],
)
def test_what_a_runtime_runs_is_an_image(content: bytes) -> None:
    """By its config and its layers, whatever it calls itself: so no policy is got around."""
    assert read(content).is_image


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (artifact(b"x"), "a/b"),
        (manifest("application/vnd.cncf.helm.config.v1+json", "a/tar"),
         "application/vnd.cncf.helm.config.v1+json"),
        (manifest(f"{OCI}config.v1+json", "application/vnd.dev.cosign.simplesigning.v1+json"),
         "application/vnd.dev.cosign.simplesigning.v1+json"),
        (manifest(f"{OCI}config.v1+json", "application/vnd.in-toto+json"),
         "application/vnd.in-toto+json"),
        (manifest("application/json", "text/plain"), "application/json"),
        (b'{"mediaType": "application/vnd.oci.artifact.manifest.v1+json", "artifactType": "x/y"}',
         "x/y"),
    ],
)  # fmt: skip
def test_what_no_runtime_runs_is_named(content: bytes, kind: str) -> None:
    """Charts, signatures, attestations and what else registries hold."""
    found = read(content)

    assert (False, kind) == (found.is_image, found.kind)
