"""Manifests, the tags that point at them, and the referrers that point back."""

import asyncio
import uuid
from collections.abc import Collection, Sequence
from urllib.parse import urlsplit

import msgspec

from cypd.access import Act
from cypd.oci import manifest as documents
from cypd.oci.digest import Digest
from cypd.oci.endpoints import Reference
from cypd.oci.errors import Code, OCIError
from cypd.oci.manifest import Manifest
from cypd.oci.names import RepositoryName, Tag
from cypd.registry.ports import (
    INLINE_BYTES,
    BlobMissing,
    BlobStorage,
    Content,
    Inline,
    MetadataStore,
    StoredManifest,
)

# A page of tags, repositories or referrers: Docker Hub's and distribution's bound.
MAX_PAGE = 1000


class Manifests:
    """Reading, pushing and deleting manifests and tags."""

    def __init__(
        self,
        metadata: MetadataStore,
        storage: BlobStorage,
        *,
        allow_sparse: bool = False,
        allow_urls: Collection[str] = (),
    ) -> None:
        self._metadata = metadata
        self._storage = storage
        self._allow_sparse = allow_sparse
        self._allow_urls = frozenset(host.lower() for host in allow_urls)

    def find(self, repository: RepositoryName, reference: Reference) -> StoredManifest:
        """Return a manifest; raise MANIFEST_UNKNOWN, or NAME_UNKNOWN without a repository."""
        manifest = self._metadata.manifest(repository, reference)
        if manifest is None:
            self._require_repository(repository)
            raise OCIError(Code.MANIFEST_UNKNOWN, detail={"reference": reference})
        return manifest

    async def open(self, manifest: StoredManifest) -> Content:
        """Return a manifest's exact bytes; the caller closes them."""
        if manifest.content is not None:
            return Inline(manifest.content)
        return await self._storage.open(manifest.digest, manifest.size)

    async def put(
        self,
        repository: RepositoryName,
        content: bytes,
        content_type: str,
        reference: Reference,
        tags: Sequence[Tag],
        *,
        act: Act,
    ) -> Manifest:
        """Store a manifest under its digest and point the tags at it.

        Raises DIGEST_INVALID, MANIFEST_INVALID or MANIFEST_BLOB_UNKNOWN; nothing changes then.
        """
        manifest = await self._parse(content, content_type, reference)
        self._require_allowed_urls(manifest)
        manifest = await self._with_platform(repository, manifest)
        if isinstance(reference, Tag):
            tags = [reference, *tags]
        inline = len(content) <= INLINE_BYTES
        if inline:
            await self._record(repository, manifest, tags, inline=True, act=act)
        else:
            await self._store_large(repository, manifest, tags, act)
        return manifest

    async def _parse(self, content: bytes, content_type: str, reference: Reference) -> Manifest:
        def check() -> Manifest:
            digest = _identity(content, reference)
            return documents.parse(content, content_type, digest)

        if len(content) <= INLINE_BYTES:
            return check()
        return await asyncio.to_thread(check)

    async def _with_platform(self, repository: RepositoryName, manifest: Manifest) -> Manifest:
        """Add an image's platform, which its config names; a damaged or missing one names none."""
        config = manifest.config and self._metadata.blob(repository, manifest.config)
        if not manifest.config or not config or config.size > INLINE_BYTES:
            return manifest
        try:
            content = await self._storage.open(manifest.config, config.size)
        except BlobMissing:
            return manifest
        try:
            platform = isinstance(content, Inline) and documents.platform_of(content.data)
        finally:
            content.close()
        return msgspec.structs.replace(manifest, platforms=(platform,)) if platform else manifest

    def _require_allowed_urls(self, manifest: Manifest) -> None:
        # Clients fetch these addresses, with credentials in old ones (CVE-2020-15157); the
        # registry never does, and lets only those pass that its operator knows.
        for url in manifest.urls:
            if _host(url) not in self._allow_urls:
                raise OCIError(
                    Code.MANIFEST_INVALID,
                    "manifest invalid: it points outside the registry, to a host that "
                    "manifests.allow_urls does not name",
                    detail={"url": url[:256]},
                )

    async def _store_large(
        self, repository: RepositoryName, manifest: Manifest, tags: Sequence[Tag], act: Act
    ) -> None:
        if self._metadata.held_size(repository, manifest.digest) is None:
            self._metadata.require_room(repository, len(manifest.content))
        upload_id = str(uuid.uuid4())
        try:
            async with self._storage.stage(upload_id, manifest.digest.algorithm) as staged:
                await staged.write(manifest.content)
                async with self._storage.place(staged, manifest.digest):
                    await self._record(repository, manifest, tags, inline=False, act=act)
        finally:
            await self._storage.discard(upload_id)

    async def _record(
        self,
        repository: RepositoryName,
        manifest: Manifest,
        tags: Sequence[Tag],
        *,
        inline: bool,
        act: Act,
    ) -> None:
        await self._metadata.put_manifest(
            repository, manifest, tags, inline=inline, allow_sparse=self._allow_sparse, act=act
        )

    async def delete(self, repository: RepositoryName, reference: Reference, *, act: Act) -> None:
        """Delete a manifest by digest, or a tag alone; raise MANIFEST_UNKNOWN."""
        if isinstance(reference, Digest):
            await self._metadata.delete_manifest(repository, reference, act=act)
        else:
            await self._metadata.delete_tag(repository, reference, act=act)

    def referrers(
        self, repository: RepositoryName, subject: Digest, *, after: str, limit: int
    ) -> Sequence[bytes]:
        """Return the descriptors (JSON) of the manifests with that subject; none is no error."""
        return self._metadata.referrers(repository, subject, after=after, limit=limit)

    def tags(self, repository: RepositoryName, *, after: str, limit: int) -> Sequence[Tag]:
        """Return a page of tags; raise NAME_UNKNOWN without a repository."""
        self._require_repository(repository)
        return self._metadata.tags(repository, after=after, limit=limit)

    def _require_repository(self, repository: RepositoryName) -> None:
        if not self._metadata.repository_exists(repository):
            raise OCIError(Code.NAME_UNKNOWN, detail={"name": repository})


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # "http://[", or a host that NFKC would turn into another
        return ""


def _identity(content: bytes, reference: Reference) -> Digest:
    algorithm = reference.algorithm if isinstance(reference, Digest) else "sha256"
    digest = Digest.of(content, algorithm)
    if isinstance(reference, Digest) and digest != reference:
        raise OCIError(Code.DIGEST_INVALID, detail={"digest": reference, "content": digest})
    return digest
