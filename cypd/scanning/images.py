"""From a manifest to the images that an engine looks at."""

import os
from typing import NamedTuple

from cypd.oci import images, media_types
from cypd.oci.digest import Digest
from cypd.oci.images import ImageContent
from cypd.oci.manifest import Descriptor, platform_of
from cypd.oci.names import RepositoryName
from cypd.registry.manifests import Manifests
from cypd.registry.ports import (
    INLINE_BYTES,
    BlobMissing,
    BlobStorage,
    Content,
    Inline,
    MetadataStore,
    Remote,
    StoredManifest,
)
from cypd.scanning.ports import Image, Layer, ScanFailed

MAX_IMAGES = 32
"""Of an index: what has more is refused, not looked at in part."""
_MAX_DEPTH = 3
_MAX_MANIFESTS = 256


class Platformed(NamedTuple):
    """An image, and what it runs on."""

    image: Image
    platform: str
    """As ``linux/amd64``; empty, where nothing names it."""


class Found(NamedTuple):
    """What there is to be scanned."""

    images: list[Platformed]
    elsewhere: list[Digest]
    """Layers that may not be distributed, and were not pushed."""
    seen: set[Digest]
    """All manifests that were looked at."""


class Images:
    """Finds the images of manifests and indexes."""

    def __init__(self, metadata: MetadataStore, storage: BlobStorage, manifests: Manifests) -> None:
        self._metadata = metadata
        self._storage = storage
        self._manifests = manifests

    async def content(self, manifest: StoredManifest) -> ImageContent:
        """Return what a manifest lists."""
        content = await self._manifests.open(manifest)
        try:
            return images.read(await _whole(content))
        finally:
            content.close()

    async def find(self, repository: RepositoryName, digest: Digest) -> Found:
        """Return the image of a manifest, or all of an index; raise ScanFailed.

        An index is pulled as a whole, so it is scanned as a whole: the one image that somebody
        overlooks is the one that somebody else runs.
        """
        found = Found([], [], set())
        await self._collect(repository, digest, found, _MAX_DEPTH)
        if not found.images:
            raise ScanFailed("the index lists no image")
        return found

    async def _collect(
        self, repository: RepositoryName, digest: Digest, found: Found, depth: int
    ) -> None:
        if digest in found.seen:
            return
        found.seen.add(digest)
        if len(found.seen) > _MAX_MANIFESTS:
            raise ScanFailed(f"an index of more than {_MAX_MANIFESTS} manifests")
        manifest = self._metadata.manifest(repository, digest)
        if manifest is None:
            raise ScanFailed(f"the manifest {digest} is not there")
        content = await self.content(manifest)
        if not content.is_image and depth < _MAX_DEPTH:
            return  # what an index lists beside its images, as BuildKit's attestations
        if not content.is_image:
            raise ScanFailed(f"{digest} is no image: {content.kind or manifest.media_type}")
        if manifest.media_type not in media_types.INDEXES:
            found.images.append(await self._image(repository, digest, content, found))
            if len(found.images) > MAX_IMAGES:
                raise ScanFailed(f"an index of more than {MAX_IMAGES} images")
            return
        if depth == 0:
            raise ScanFailed(f"indexes that list indexes more than {_MAX_DEPTH} deep")
        for child in content.manifests:
            await self._collect(repository, Digest.parse(child.digest), found, depth - 1)

    async def _image(
        self, repository: RepositoryName, digest: Digest, content: ImageContent, found: Found
    ) -> Platformed:
        config = Digest.parse(content.config.digest) if content.config else None
        layers = [self._layer(repository, it, found) for it in content.layers]
        image = Image(repository, digest, config, tuple(it for it in layers if it))
        return Platformed(image, await self._platform(repository, config) if config else "")

    def _layer(
        self, repository: RepositoryName, described: Descriptor, found: Found
    ) -> Layer | None:
        """Return a layer that the repository holds: what others have is none of its business."""
        digest = Digest.parse(described.digest)
        blob = self._metadata.blob(repository, digest)
        if blob is not None:
            return Layer(digest, described.media_type, blob.size)
        # image-spec layer.md, Non-Distributable Layers: those of Windows' base images.
        if ".nondistributable." in described.media_type or ".foreign." in described.media_type:
            found.elsewhere.append(digest)
            return None
        raise ScanFailed(f"the layer {digest} is not in this registry")

    async def _platform(self, repository: RepositoryName, config: Digest) -> str:
        blob = self._metadata.blob(repository, config)
        if blob is None or blob.size > INLINE_BYTES:
            return ""
        try:
            content = await self._storage.open(config, blob.size)
        except BlobMissing:
            raise ScanFailed(f"the config {config} is damaged or missing") from None
        try:
            return platform_of(await _whole(content)) or ""
        finally:
            content.close()


async def _whole(content: Content) -> bytes:
    if isinstance(content, Inline):
        return content.data
    if isinstance(content, Remote):
        return b"".join([piece async for piece in content.read(0, content.size)])
    return os.pread(content.fileno(), content.size, 0)
