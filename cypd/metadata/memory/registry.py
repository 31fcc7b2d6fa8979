"""Repositories in dictionaries."""

from collections.abc import Sequence

import msgspec

from cypd.access import Act
from cypd.metadata.memory.state import Facts, Repository, State
from cypd.oci.digest import Digest
from cypd.oci.endpoints import Reference
from cypd.oci.errors import Code, OCIError
from cypd.oci.manifest import Manifest, ends_with_subject
from cypd.oci.names import RepositoryName, Tag
from cypd.registry.ports import (
    MAX_ENDING,
    LinkedBlob,
    StoredManifest,
    Upload,
    require_few,
    still_listed,
)


class MemoryRegistry:
    """The contract of ``MetadataStore``."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._repositories = state.repositories
        self._uploads = state.uploads

    def _get(self, repository: RepositoryName) -> Repository:
        return self._repositories.get(repository) or Repository()

    def _ensure(self, repository: RepositoryName) -> Repository:
        if repository not in self._repositories:
            now = self._state.clock()
            self._repositories[repository] = Repository(created_at=now, facts=Facts(now))
        return self._repositories[repository]

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
        project = self._state.project(repository.project)
        is_guarded = project is not None and project.scan_policy.is_set
        size = len(manifest.content)
        return StoredManifest(digest, manifest.media_type, size, content, is_guarded)

    def tags(self, repository: RepositoryName, *, after: str, limit: int) -> Sequence[Tag]:
        return sorted(tag for tag in self._get(repository).tags if tag > after)[:limit]

    def referrers(
        self, repository: RepositoryName, subject: Digest, *, after: str, limit: int
    ) -> Sequence[bytes]:
        manifests = self._get(repository).manifests
        found = sorted(d for d, (m, _) in manifests.items() if m.subject == subject and d > after)
        return [msgspec.json.encode(manifests[digest][0].descriptor()) for digest in found[:limit]]

    def blob(self, repository: RepositoryName, digest: Digest) -> LinkedBlob | None:
        found = self._get(repository)
        size = found.blobs.get(digest)
        return None if size is None else LinkedBlob(size, found.loose.get(digest))

    def repositories_with(self, digest: Digest) -> Sequence[RepositoryName]:
        return sorted(name for name, it in self._repositories.items() if digest in it.blobs)

    def is_held(self, digest: Digest) -> bool:
        return any(
            digest in it.blobs or (digest in it.manifests and not it.manifests[digest][1])
            for it in self._repositories.values()
        )

    def held(self, *, after: str, limit: int) -> Sequence[tuple[Digest, int]]:
        sizes = {
            digest: size
            for repository in self._repositories.values()
            for digest, size in repository.sizes().items()
            if digest > after and self.is_held(digest)
        }
        return sorted(sizes.items())[:limit]

    def held_size(self, repository: RepositoryName, digest: Digest) -> int | None:
        project = self._state.project(repository.project)
        return self._state.holdings(project).get(digest) if project else None

    def require_room(
        self, repository: RepositoryName, size: int, *, upload_id: str | None = None
    ) -> None:
        self._state.require_room(repository, size, self._reserved(upload_id))

    def _reserved(self, upload_id: str | None) -> int:
        upload = self._uploads.get(upload_id or "")
        return upload.reserved if upload else 0

    def upload(self, upload_id: str) -> Upload | None:
        return self._uploads.get(upload_id)

    def uploads(self, *, started_before: float) -> Sequence[Upload]:
        return [it for it in self._uploads.values() if it.started_at < started_before]

    async def open_upload(
        self, upload: Upload, *, limit: int, project_limit: int | None = None
    ) -> None:
        self._state.require_project(upload.repository)
        others = self._uploads.values()
        require_few(sum(it.owner == upload.owner for it in others), limit)
        project = upload.repository.project
        require_few(sum(it.repository.project == project for it in others), project_limit)
        self._state.require_room(upload.repository, upload.reserved)
        self._uploads[upload.id] = upload

    async def reserve(self, upload_id: str, *, least: int, wanted: int) -> int:
        upload = self._uploads.get(upload_id)
        if upload is None:
            raise OCIError(Code.BLOB_UPLOAD_UNKNOWN)
        size = wanted
        if wanted > upload.reserved:
            try:
                self._state.require_room(upload.repository, wanted, upload.reserved)
            except OCIError:
                self._state.require_room(upload.repository, least, upload.reserved)
                size = least
        self._uploads[upload_id] = msgspec.structs.replace(upload, reserved=size)
        return size

    async def close_upload(self, upload_id: str) -> None:
        self._uploads.pop(upload_id, None)

    async def link_blob(
        self, repository: RepositoryName, digest: Digest, size: int, *, upload_id: str | None
    ) -> None:
        self._state.require_room(repository, size, self._reserved(upload_id), digest)
        self._link(repository, digest, size)
        self._uploads.pop(upload_id or "", None)

    def _link(self, repository: RepositoryName, digest: Digest, size: int) -> None:
        found = self._ensure(repository)
        found.blobs[digest] = size
        found.loosen(self._state.clock(), digest)

    async def mount_blob(
        self, repository: RepositoryName, digest: Digest, *, source: RepositoryName
    ) -> bool:
        size = self._get(source).blobs.get(digest)
        if size is None:
            return False
        self._state.require_room(repository, size, 0, digest)
        self._link(repository, digest, size)
        return True

    async def unlink_blob(self, repository: RepositoryName, digest: Digest) -> None:
        found = self._get(repository)
        if digest not in found.blobs:
            raise OCIError(Code.BLOB_UNKNOWN, detail={"digest": digest})
        if found.lists(digest):
            raise still_listed(digest)
        del found.blobs[digest]
        found.loosen(self._state.clock())

    async def unlink_loose(self, *, before: float, limit: int) -> int:
        loose = [
            (since, name, digest)
            for name, it in self._repositories.items()
            for digest, since in it.loose.items()
            if since < before
        ]
        for _, name, digest in sorted(loose)[:limit]:
            await self.unlink_blob(name, digest)
        return len(loose[:limit])

    async def put_manifest(
        self,
        repository: RepositoryName,
        manifest: Manifest,
        tags: Sequence[Tag],
        *,
        inline: bool,
        allow_sparse: bool,
        act: Act,
    ) -> None:
        found = self._get(repository)
        missing = [d for d in manifest.blobs if d not in found.blobs]
        missing += [d for d in manifest.manifests if d not in found.manifests]
        if missing and not allow_sparse:
            raise OCIError(Code.MANIFEST_BLOB_UNKNOWN, detail={"missing": missing[:100]})
        moving = [tag for tag in tags if found.tags.get(tag) not in (None, manifest.digest)]
        self._state.require_mutable(repository, moving)
        self._state.require_room(repository, len(manifest.content), 0, manifest.digest)
        found = self._ensure(repository)
        found.push_count += 1
        found.facts.pushed_at = act.at
        size = found.full_size(manifest)
        found.note_push(manifest.digest, manifest.digest in found.manifests, act, size)
        for tag in tags:
            found.note_push(tag, tag in found.tags, act)
            found.tags[tag] = manifest.digest
        found.manifests[manifest.digest] = (manifest, inline)
        found.loosen(self._state.clock())

    async def delete_manifest(
        self, repository: RepositoryName, digest: Digest, *, act: Act
    ) -> None:
        found = self._get(repository)
        if digest not in found.manifests:
            raise OCIError(Code.MANIFEST_UNKNOWN, detail={"reference": digest})
        if found.lists(digest):
            raise still_listed(digest)
        self._state.require_mutable(repository, found.tags_of(digest))
        ending = [
            it
            for it, (manifest, _) in sorted(found.manifests.items())
            if manifest.subject == digest
            and ends_with_subject(msgspec.json.encode(manifest.descriptor()))
            and not found.tags_of(it)
            and not found.lists(it)
        ]
        for it in (digest, *ending[:MAX_ENDING]):
            del found.manifests[it]
        found.loosen(self._state.clock())
        found.tags = {tag: it for tag, it in found.tags.items() if it != digest}
        found.facts.pushed_at = act.at

    async def delete_tag(self, repository: RepositoryName, tag: Tag, *, act: Act) -> None:
        found = self._get(repository)
        if tag not in found.tags:
            raise OCIError(Code.MANIFEST_UNKNOWN, detail={"reference": tag})
        self._state.require_mutable(repository, [tag])
        del found.tags[tag]
        found.facts.pushed_at = act.at

    async def expire_tag(
        self, repository: RepositoryName, tag: Tag, *, pushed_at: float, act: Act
    ) -> bool:
        found = self._get(repository)
        digest = found.tags.get(tag)
        if digest is None or found.pushes[tag].pushed_at != pushed_at:
            return False
        if self._state.require_project(repository).tag_rules.protects(tag):
            return False
        await self.delete_tag(repository, tag, act=act)
        manifest, _ = found.manifests[digest]
        if not found.tags_of(digest) and not found.lists(digest) and manifest.subject is None:
            await self.delete_manifest(repository, digest, act=act)
        return True
