"""SBOMs become referrers of their images, pushed by the registry's own rules: whoever may pull an
image finds its SBOM beside it, and the project's quota counts it.
"""

import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import msgspec

from cypd.access import Act, Principal
from cypd.oci.digest import Digest
from cypd.oci.errors import OCIError
from cypd.oci.manifest import ENDS_WITH_SUBJECT, Descriptor, ends_with_subject
from cypd.oci.media_types import OCI_MANIFEST
from cypd.oci.names import RepositoryName
from cypd.registry.manifests import Manifests
from cypd.registry.ports import MetadataStore, StoredManifest
from cypd.registry.uploads import Body, Uploads

SBOM = "application/vnd.cyclonedx+json"
SCANNER = "scanner"
"""The name that the registry goes by when it pushes an SBOM."""
_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
_EMPTY = b"{}"
_MAX_REFERRERS = 1000


class Sboms:
    """Attaches SBOMs."""

    def __init__(self, metadata: MetadataStore, uploads: Uploads, manifests: Manifests) -> None:
        self._metadata = metadata
        self._uploads = uploads
        self._manifests = manifests

    async def attach(
        self, repository: RepositoryName, image: StoredManifest, sbom: bytes, *, at: float
    ) -> Digest:
        """Store an SBOM as a referrer of an image; return the digest of its manifest.

        The same SBOM is stored once, however often it is attached; another one takes the place of
        what was attached before. It ends with its image. Raises OCIError, as a push.
        """
        sbom = normal(sbom)
        manifest = _manifest(image, sbom)
        digest = Digest.of(manifest)
        if self._metadata.manifest(repository, digest) is None:
            act = Act(at, name=SCANNER)
            for blob in (_EMPTY, sbom):
                await self._push(repository, blob)
            await self._manifests.put(repository, manifest, OCI_MANIFEST, digest, [], act=act)
            await self._detach_others(repository, image.digest, digest, act)
        return digest

    async def _push(self, repository: RepositoryName, blob: bytes) -> None:
        body = Body(_pieces(blob), len(blob))
        await self._uploads.push(repository, Principal(name=SCANNER), body, Digest.of(blob))

    async def _detach_others(
        self, repository: RepositoryName, image: Digest, kept: Digest, act: Act
    ) -> None:
        referrers = self._metadata.referrers(repository, image, after="", limit=_MAX_REFERRERS)
        for descriptor in filter(ends_with_subject, referrers):
            other = msgspec.json.decode(descriptor, type=Descriptor)
            if other.artifact_type == SBOM and other.digest != kept:
                with suppress(OCIError):  # somebody lists it, or it has a tag that stays
                    await self._metadata.delete_manifest(
                        repository, Digest.parse(other.digest), act=act
                    )


def normal(sbom: bytes) -> bytes:
    """Return an SBOM without what differs each time that one is made of the same image.

    CycloneDX 1.6 leaves both optional: its own number, here one that follows from the content, and
    the time.
    """
    document: dict[str, Any] = msgspec.json.decode(sbom)
    document.pop("serialNumber", None)
    if isinstance(metadata := document.get("metadata"), dict):
        metadata.pop("timestamp", None)
    content = msgspec.json.encode(document, order="sorted").decode()
    document["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, content)}"
    return msgspec.json.encode(document, order="sorted")


def _manifest(image: StoredManifest, sbom: bytes) -> bytes:
    """Return an artifact's manifest (image-spec manifest.md, Guidelines for Artifact Usage)."""
    return msgspec.json.encode(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": SBOM,
            "annotations": {ENDS_WITH_SUBJECT: "true"},
            "config": _descriptor(_EMPTY_TYPE, _EMPTY),
            "layers": [_descriptor(SBOM, sbom)],
            "subject": {
                "mediaType": image.media_type,
                "digest": str(image.digest),
                "size": image.size,
            },
        }
    )


def _descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(Digest.of(content)), "size": len(content)}


async def _pieces(blob: bytes) -> AsyncIterator[bytes | memoryview]:
    yield blob
