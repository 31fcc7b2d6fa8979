"""Repositories in dictionaries."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from cypd.oci.digest import Digest
from cypd.oci.endpoints import Reference
from cypd.oci.errors import Code, OCIError
from cypd.oci.manifest import Manifest
from cypd.oci.names import RepositoryName, Tag
from cypd.registry.ports import StoredManifest, Upload, still_listed


@dataclass
class _Repository:
    blobs: dict[Digest, int] = field(default_factory=dict)
    manifests: dict[Digest, tuple[Manifest, bool]] = field(default_factory=dict)
    tags: dict[Tag, Digest] = field(default_factory=dict)

    def lists(self, digest: Digest) -> bool:
        return any(digest in (*m.blobs, *m.manifests) for m, _ in self.manifests.values())


class MemoryRegistry:
    """The contract of ``MetadataStore``."""

    def __init__(self) -> None:
        self._repositories: dict[RepositoryName, _Repository] = {}
        self._uploads: dict[str, Upload] = {}

    def _get(self, repository: RepositoryName) -> _Repository:
        return self._repositories.get(repository) or _Repository()

    def _ensure(self, repository: RepositoryName) -> _Repository:
        return self._repositories.setdefault(repository, _Repository())

    def repository_exists(self, repository: RepositoryName) -> bool:
        return repository in self._repositories

    def repositories(self, *, after: str, limit: int) -> Sequence[RepositoryName]:
        return sorted(name for name in self._repositories if name > after)[:limit]

    def manifest(self, repository: RepositoryName, reference: Reference) -> StoredManifest | None:
        found = self._get(repository)
        digest = reference if isinstance(reference, Digest) else found.tags.get(reference)
        if digest is None or digest not in found.manifests:
            return None
        manifest, inline = found.manifests[digest]
        content = manifest.content if inline else None
        return StoredManifest(digest, manifest.media_type, len(manifest.content), content)

    def tags(self, repository: RepositoryName, *, after: str, limit: int) -> Sequence[Tag]:
        return sorted(tag for tag in self._get(repository).tags if tag > after)[:limit]

    def referrers(
        self, repository: RepositoryName, subject: Digest, *, after: str, limit: int
    ) -> Sequence[bytes]:
        manifests = self._get(repository).manifests
        found = sorted(d for d, (m, _) in manifests.items() if m.subject == subject and d > after)
        return [msgspec.json.encode(manifests[digest][0].descriptor()) for digest in found[:limit]]

    def blob_size(self, repository: RepositoryName, digest: Digest) -> int | None:
        return self._get(repository).blobs.get(digest)

    def repositories_with(self, digest: Digest) -> Sequence[RepositoryName]:
        return sorted(name for name, it in self._repositories.items() if digest in it.blobs)

    def is_held(self, digest: Digest) -> bool:
        return any(
            digest in it.blobs or (digest in it.manifests and not it.manifests[digest][1])
            for it in self._repositories.values()
        )

    def upload(self, upload_id: str) -> Upload | None:
        return self._uploads.get(upload_id)

    def uploads(self, *, started_before: float) -> Sequence[Upload]:
        return [it for it in self._uploads.values() if it.started_at < started_before]

    async def open_upload(self, upload: Upload, *, limit: int) -> None:
        if sum(it.owner == upload.owner for it in self._uploads.values()) >= limit:
            raise OCIError(Code.TOOMANYREQUESTS, f"{limit} uploads are open; finish or cancel some")
        self._uploads[upload.id] = upload

    async def close_upload(self, upload_id: str) -> None:
        self._uploads.pop(upload_id, None)

    async def link_blob(
        self, repository: RepositoryName, digest: Digest, size: int, *, upload_id: str | None
    ) -> None:
        self._ensure(repository).blobs[digest] = size
        self._uploads.pop(upload_id or "", None)

    async def mount_blob(
        self, repository: RepositoryName, digest: Digest, *, source: RepositoryName
    ) -> bool:
        size = self._get(source).blobs.get(digest)
        if size is None:
            return False
        self._ensure(repository).blobs[digest] = size
        return True

    async def unlink_blob(self, repository: RepositoryName, digest: Digest) -> None:
        found = self._get(repository)
        if digest not in found.blobs:
            raise OCIError(Code.BLOB_UNKNOWN, detail={"digest": digest})
        if found.lists(digest):
            raise still_listed(digest)
        del found.blobs[digest]

    async def put_manifest(
        self,
        repository: RepositoryName,
        manifest: Manifest,
        tags: Sequence[Tag],
        *,
        inline: bool,
        allow_sparse: bool,
    ) -> None:
        found = self._get(repository)
        missing = [d for d in manifest.blobs if d not in found.blobs]
        missing += [d for d in manifest.manifests if d not in found.manifests]
        if missing and not allow_sparse:
            raise OCIError(Code.MANIFEST_BLOB_UNKNOWN, detail={"missing": missing[:100]})
        found = self._ensure(repository)
        found.manifests[manifest.digest] = (manifest, inline)
        found.tags.update(dict.fromkeys(tags, manifest.digest))

    async def delete_manifest(self, repository: RepositoryName, digest: Digest) -> None:
        found = self._get(repository)
        if digest not in found.manifests:
            raise OCIError(Code.MANIFEST_UNKNOWN, detail={"reference": digest})
        if found.lists(digest):
            raise still_listed(digest)
        del found.manifests[digest]
        found.tags = {tag: it for tag, it in found.tags.items() if it != digest}

    async def delete_tag(self, repository: RepositoryName, tag: Tag) -> None:
        if self._get(repository).tags.pop(tag, None) is None:
            raise OCIError(Code.MANIFEST_UNKNOWN, detail={"reference": tag})
