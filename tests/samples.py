"""Manifests and names for tests: small, valid, and distinct when asked for."""

import asyncio
import json
from typing import Any
from uuid import NAMESPACE_DNS, uuid5

from cypd.access import Act
from cypd.oci import manifest as documents
from cypd.oci.digest import Algorithm, Digest
from cypd.oci.manifest import Manifest
from cypd.oci.media_types import OCI_INDEX, OCI_MANIFEST
from cypd.oci.names import RepositoryName
from cypd.projects.ports import UNLIMITED, Project, ProjectStore

EMPTY = b"{}"
_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
ACT = Act(1.0, "ada's id", "ada", "192.0.2.1", "0badcafe")


def name(text: str = "library/app") -> RepositoryName:
    """Return a repository's name."""
    return RepositoryName.parse(text)


async def unrecorded(act: Act, action: str, outcome: int, **_: Any) -> None:
    """Be a ``Record`` that keeps nothing."""


def project(
    name: str = "library",
    quota: int = UNLIMITED,
    *,
    owner: str = "admin",
    is_public: bool = False,
    created_at: float = 1.0,
) -> Project:
    """Return a project whose id follows from its name."""
    identity = str(uuid5(NAMESPACE_DNS, name))
    return Project(
        id=identity,
        name=name,
        owner_id=owner,
        created_at=created_at,
        updated_at=created_at,
        storage_quota=quota,
        is_public=is_public,
    )


def create_projects(store: ProjectStore, *names: str) -> None:
    """Create projects without a quota, outside of any event loop."""

    async def create() -> None:
        for each in names:
            await store.create_project(project(each))

    asyncio.run(create())


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


def artifact(*layers: bytes, artifact_type: str = "a/b", subject: Digest | None = None) -> bytes:
    """Return the manifest of something that is no image."""
    content = image(*layers, subject=subject, artifact_type=artifact_type).decode()
    content = content.replace("application/vnd.oci.image.config.v1+json", _EMPTY_TYPE)
    return content.replace("application/vnd.oci.image.layer.v1.tar", "text/plain").encode()


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
