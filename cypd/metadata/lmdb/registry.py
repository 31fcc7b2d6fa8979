"""Repositories on LMDB. Reads: one transaction a call. Writes: one intention an operation."""

from collections.abc import Sequence
from itertools import islice
from typing import Any

import lmdb
import msgspec

from cypd.access import Act
from cypd.events.ports import Kind
from cypd.metadata.lmdb.contents import Contents, decode_manifest, decode_upload
from cypd.metadata.lmdb.environment import Environment
from cypd.metadata.lmdb.journal import Journal
from cypd.metadata.lmdb.keys import digest_key, digest_of, scan
from cypd.metadata.lmdb.ledger import Ledger
from cypd.oci.digest import Digest
from cypd.oci.endpoints import Reference
from cypd.oci.errors import Code, OCIError
from cypd.oci.manifest import Manifest
from cypd.oci.names import RepositoryName, Tag
from cypd.registry.ports import (
    LinkedBlob,
    StoredManifest,
    Upload,
    immutable_tag,
    require_few,
    still_listed,
)


class LmdbRegistry:
    """What repositories hold; see ``keys`` for the layout."""

    def __init__(
        self, environment: Environment, contents: Contents, ledger: Ledger, journal: Journal
    ) -> None:
        self._begin = environment.lmdb.begin
        self._run = environment.writer.run
        self._contents = contents
        self._ledger = ledger
        self._journal = journal
        self._guarded = environment.database("guarded")

    # --- reads ----------------------------------------------------------------------------------

    def repository_exists(self, repository: RepositoryName) -> bool:
        with self._begin() as txn:
            return self._contents.id(txn, repository) is not None

    def repositories(self, *, after: str, limit: int) -> Sequence[RepositoryName]:
        with self._begin() as txn:
            found = scan(txn, self._contents.repositories, b"", after.encode()[:500])
            return [RepositoryName(key.decode()) for key, _ in islice(found, limit)]

    def manifest(self, repository: RepositoryName, reference: Reference) -> StoredManifest | None:
        with self._begin() as txn:
            repo = txn.get(repository.encode(), db=self._contents.repositories)
            if repo is None:
                return None
            if isinstance(reference, Digest):
                digest, key = reference, digest_key(reference)
            else:
                place = txn.get(repo + reference.encode(), db=self._contents.tags)
                if place is None:
                    return None
                digest, key = digest_of(place), place
            record = txn.get(repo + key, db=self._contents.manifests)
            is_guarded = txn.get(repository.project.encode(), db=self._guarded) is not None
        if record is None:
            return None
        found = decode_manifest(record)
        return StoredManifest(digest, found.media_type, found.size, found.content, is_guarded)

    def tags(self, repository: RepositoryName, *, after: str, limit: int) -> Sequence[Tag]:
        with self._begin() as txn:
            repo = self._contents.id(txn, repository)
            if repo is None:
                return []
            found = scan(txn, self._contents.tags, repo, after.encode()[:500])
            return [Tag(key.decode()) for key, _ in islice(found, limit)]

    def referrers(
        self, repository: RepositoryName, subject: Digest, *, after: str, limit: int
    ) -> Sequence[bytes]:
        with self._begin() as txn:
            repo = self._contents.id(txn, repository)
            if repo is None:
                return []
            start = digest_key(Digest(after)) if after else b""
            found = scan(txn, self._contents.referrers, repo + digest_key(subject), start)
            return [descriptor for _, descriptor in islice(found, limit)]

    def blob(self, repository: RepositoryName, digest: Digest) -> LinkedBlob | None:
        with self._begin() as txn:
            repo = self._contents.id(txn, repository)
            link = self._contents.linked(txn, repo, digest_key(digest)) if repo else None
        if link is None:
            return None
        return LinkedBlob(link.size, link.loose_since / 1e6 if link.loose_since else None)

    def repositories_with(self, digest: Digest) -> Sequence[RepositoryName]:
        with self._begin() as txn:
            key = digest_key(digest)
            holders = scan(txn, self._contents.holders, key)
            linked = (
                n for i, n in holders if txn.get(i + key, db=self._contents.links) is not None
            )
            return sorted(RepositoryName(name.decode()) for name in linked)

    def is_held(self, digest: Digest) -> bool:
        with self._begin() as txn:
            return any(True for _ in scan(txn, self._contents.holders, digest_key(digest)))

    def held(self, *, after: str, limit: int) -> Sequence[tuple[Digest, int]]:
        with self._begin() as txn:
            start = digest_key(Digest(after)) if after else b""
            keys = islice(self._contents.held(txn, start), limit)
            return [(digest_of(key), self._ledger.size(txn, key)) for key in keys]

    def held_size(self, repository: RepositoryName, digest: Digest) -> int | None:
        with self._begin() as txn:
            project = self._ledger.project(txn, repository)
            key = digest_key(digest)
            return self._ledger.held_size(txn, project, key) if project else None

    def require_room(
        self, repository: RepositoryName, size: int, *, upload_id: str | None = None
    ) -> None:
        with self._begin() as txn:
            project = self._ledger.require_project(txn, repository)
            self._ledger.require_room(txn, project, size, self._reserved(txn, upload_id))

    def upload(self, upload_id: str) -> Upload | None:
        if not 0 < len(upload_id) <= 64:  # whatever stood in a path; LMDB has its own bounds
            return None
        with self._begin() as txn:
            return self._contents.upload(txn, upload_id)

    def uploads(self, *, started_before: float) -> Sequence[Upload]:
        with self._begin() as txn:
            every = [decode_upload(it) for _, it in scan(txn, self._contents.uploads, b"")]
        return [upload for upload in every if upload.started_at < started_before]

    def _reserved(self, txn: lmdb.Transaction, upload_id: str | None) -> int:
        upload = self._contents.upload(txn, upload_id) if upload_id else None
        return upload.reserved if upload else 0

    # --- writes ---------------------------------------------------------------------------------

    async def open_upload(
        self, upload: Upload, *, limit: int, project_limit: int | None = None
    ) -> None:
        def operation(txn: lmdb.Transaction) -> None:
            project = self._ledger.require_project(txn, upload.repository)
            require_few(self._contents.open_uploads(txn, upload.owner), limit)
            require_few(self._contents.open_in_project(txn, project), project_limit)
            self._ledger.require_room(txn, project, upload.reserved)
            self._contents.put_upload(txn, project, upload)

        await self._run(operation)

    async def reserve(self, upload_id: str, *, least: int, wanted: int) -> int:
        def operation(txn: lmdb.Transaction) -> int:
            upload = self._contents.upload(txn, upload_id)
            if upload is None:
                raise OCIError(Code.BLOB_UPLOAD_UNKNOWN)
            project = self._ledger.require_project(txn, upload.repository)
            size, own = wanted, upload.reserved
            if size > own and not self._ledger.has_room(txn, project, size, own):
                size = least
                self._ledger.require_room(txn, project, size, own)
            changed = msgspec.structs.replace(upload, reserved=size)
            self._contents.put_upload(txn, project, changed)
            return size

        return await self._run(operation)

    async def close_upload(self, upload_id: str) -> None:
        await self._run(lambda txn: self._contents.close_upload(txn, upload_id))

    async def link_blob(
        self, repository: RepositoryName, digest: Digest, size: int, *, upload_id: str | None
    ) -> None:
        def operation(txn: lmdb.Transaction) -> None:
            reserved = self._reserved(txn, upload_id)
            self._contents.link(txn, repository, digest_key(digest), size, reserved)
            if upload_id is not None:
                self._contents.close_upload(txn, upload_id)

        await self._run(operation)

    async def mount_blob(
        self, repository: RepositoryName, digest: Digest, *, source: RepositoryName
    ) -> bool:
        def operation(txn: lmdb.Transaction) -> bool:
            key = digest_key(digest)
            origin = self._contents.id(txn, source)
            link = self._contents.linked(txn, origin, key) if origin else None
            if link is None:
                return False
            self._contents.link(txn, repository, key, link.size)
            return True

        return await self._run(operation)

    async def unlink_blob(self, repository: RepositoryName, digest: Digest) -> None:
        def operation(txn: lmdb.Transaction) -> None:
            key = digest_key(digest)
            repo = self._contents.id(txn, repository)
            if repo is None or txn.get(repo + key, db=self._contents.links) is None:
                raise OCIError(Code.BLOB_UNKNOWN, detail={"digest": digest})
            self._refuse_if_listed(txn, repo, digest)
            project = self._ledger.require_project(txn, repository)
            self._contents.unlink(txn, project, repo, key)

        await self._run(operation)

    async def unlink_loose(self, *, before: float, limit: int) -> int:
        def operation(txn: lmdb.Transaction) -> int:
            found = self._contents.oldest_loose(txn, before, limit)
            for repo, key in found:
                name = txn.get(key + repo, db=self._contents.holders) or b""
                project = self._ledger.require_project(txn, RepositoryName(bytes(name).decode()))
                self._contents.unlink(txn, project, repo, key)
            return len(found)

        return await self._run(operation)

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
        def operation(txn: lmdb.Transaction) -> None:
            if not allow_sparse:
                self._require_references(txn, repository, manifest)
            self._refuse_to_move(txn, repository, tags, digest_key(manifest.digest))
            self._contents.put(txn, repository, manifest, tags, inline=inline, act=act)
            names: list[str] = [*tags] or [""]
            for name in names:
                self._note(
                    txn,
                    "push",
                    repository,
                    act,
                    tag=name,
                    digest=manifest.digest,
                    media_type=manifest.media_type,
                    size=len(manifest.content),
                )

        await self._run(operation)

    async def delete_manifest(
        self, repository: RepositoryName, digest: Digest, *, act: Act
    ) -> None:
        def operation(txn: lmdb.Transaction) -> None:
            key = digest_key(digest)
            repo = self._contents.id(txn, repository)
            if repo is None or txn.get(repo + key, db=self._contents.manifests) is None:
                raise OCIError(Code.MANIFEST_UNKNOWN, detail={"reference": digest})
            self._refuse_if_listed(txn, repo, digest)
            tags = [tag.decode() for tag, _ in scan(txn, self._contents.tagged, repo + key)]
            if tags and (tag := self._protected(txn, repository, tags)):
                raise immutable_tag(tag)
            self._remove(txn, repository, repo, key, act)

        await self._run(operation)

    async def delete_tag(self, repository: RepositoryName, tag: Tag, *, act: Act) -> None:
        def operation(txn: lmdb.Transaction) -> None:
            repo = self._contents.id(txn, repository)
            key = txn.get(repo + tag.encode(), db=self._contents.tags) if repo else None
            if repo is None or key is None:
                raise OCIError(Code.MANIFEST_UNKNOWN, detail={"reference": tag})
            if self._protected(txn, repository, [tag]):
                raise immutable_tag(tag)
            self._untag(txn, repository, repo, tag, act)

        await self._run(operation)

    async def expire_tag(
        self, repository: RepositoryName, tag: Tag, *, pushed_at: float, act: Act
    ) -> bool:
        def operation(txn: lmdb.Transaction) -> bool:
            repo = self._contents.id(txn, repository)
            if repo is None or self._contents.facts.pushed_at(txn, repo, tag.encode()) != pushed_at:
                return False
            if self._protected(txn, repository, [tag]):
                return False
            key = self._untag(txn, repository, repo, tag, act)
            if not self._contents.is_needed(txn, repo, key):
                self._remove(txn, repository, repo, key, act)
            return True

        return await self._run(operation)

    # --- pieces of operations -------------------------------------------------------------------

    def _untag(
        self, txn: lmdb.Transaction, repository: RepositoryName, repo: bytes, tag: Tag, act: Act
    ) -> bytes:
        """Remove a tag that is there; return the key of what it pointed at."""
        key = bytes(txn.get(repo + tag.encode(), db=self._contents.tags) or b"")
        project = self._ledger.require_project(txn, repository)
        self._contents.untag(txn, project, repo, tag.encode())
        self._note(txn, "delete", repository, act, tag=tag, digest=digest_of(key))
        self._contents.facts.touch(txn, repo, act.at)
        return key

    def _remove(
        self, txn: lmdb.Transaction, repository: RepositoryName, repo: bytes, key: bytes, act: Act
    ) -> None:
        """Remove a manifest that is there, and what ends with it."""
        project = self._ledger.require_project(txn, repository)
        for each in (key, *self._contents.ending_with(txn, repo, key)):
            self._contents.remove(txn, project, repo, each)
            self._note(txn, "delete", repository, act, digest=digest_of(each))
        self._contents.facts.touch(txn, repo, act.at)

    def _note(
        self,
        txn: lmdb.Transaction,
        kind: Kind,
        repository: RepositoryName,
        act: Act,
        **fields: Any,
    ) -> None:
        project = self._ledger.record(txn, self._ledger.require_project(txn, repository))
        self._journal.note(txn, kind, project, act, repository=repository, **fields)

    # --- checks ---------------------------------------------------------------------------------

    def _refuse_if_listed(self, txn: lmdb.Transaction, repo: bytes, digest: Digest) -> None:
        if any(True for _ in scan(txn, self._contents.listed_by, repo + digest_key(digest))):
            raise still_listed(digest)

    def _refuse_to_move(
        self, txn: lmdb.Transaction, repository: RepositoryName, tags: Sequence[Tag], key: bytes
    ) -> None:
        repo = self._contents.id(txn, repository)
        if repo is None:
            return
        places = ((tag, txn.get(repo + tag.encode(), db=self._contents.tags)) for tag in tags)
        moving = [tag for tag, place in places if place not in (None, key)]
        if moving and (tag := self._protected(txn, repository, moving)):
            raise immutable_tag(tag)

    def _protected(
        self, txn: lmdb.Transaction, repository: RepositoryName, tags: Sequence[str]
    ) -> str | None:
        """Return the first of some tags that is immutable."""
        project = self._ledger.require_project(txn, repository)
        rules = self._ledger.record(txn, project).tag_rules
        return next((tag for tag in tags if rules.protects(tag)), None)

    def _require_references(
        self, txn: lmdb.Transaction, repository: RepositoryName, manifest: Manifest
    ) -> None:
        repo = self._contents.id(txn, repository)
        wanted = [(digest, self._contents.links) for digest in manifest.blobs]
        wanted += [(digest, self._contents.manifests) for digest in manifest.manifests]
        missing = [
            digest
            for digest, database in wanted
            if repo is None or txn.get(repo + digest_key(digest), db=database) is None
        ]
        if missing:
            raise OCIError(Code.MANIFEST_BLOB_UNKNOWN, detail={"missing": missing[:100]})
