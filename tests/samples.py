"""Manifests and names for tests: small, valid, and distinct when asked for."""

import json
from typing import Any

from cypd.oci import manifest as documents
from cypd.oci.digest import Algorithm, Digest
from cypd.oci.manifest import Manifest
from cypd.oci.media_types import OCI_INDEX, OCI_MANIFEST
from cypd.oci.names import RepositoryName

EMPTY = b"{}"


def name(text: str = "library/app") -> RepositoryName:
    """Return a repository's name."""
    return RepositoryName.parse(text)


def descriptor(content: bytes, media_type: str = "application/octet-stream") -> dict[str, Any]:
    """Return the descriptor of a blob."""
    return {"mediaType": media_type, "digest": Digest.of(content), "size": len(content)}


def image(
    *layers: bytes,
    config: bytes = EMPTY,
    subject: Digest | None = None,
    artifact_type: str | None = None,
    note: str | None = None,
) -> bytes:
    """Return an image manifest's document."""
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(config, "application/vnd.oci.image.config.v1+json"),
        "layers": [descriptor(layer, "application/vnd.oci.image.layer.v1.tar") for layer in layers],
    }
    if subject:
        document["subject"] = {"mediaType": OCI_MANIFEST, "digest": subject, "size": 1}
    if artifact_type:
        document["artifactType"] = artifact_type
    if note is not None:
        document["annotations"] = {"note": note}
    return json.dumps(document).encode()


def index(*manifests: bytes) -> bytes:
    """Return an index's document."""
    children = [descriptor(manifest, OCI_MANIFEST) for manifest in manifests]
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}
    return json.dumps(document).encode()


def parsed(
    content: bytes, media_type: str = OCI_MANIFEST, algorithm: Algorithm = "sha256"
) -> Manifest:
    """Return the parsed manifest of a document."""
    return documents.parse(content, media_type, Digest.of(content, algorithm))
