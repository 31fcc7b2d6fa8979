"""Repositories on LMDB. Reads: one transaction a call. Writes: one intention an operation."""

from collections.abc import Sequence
from itertools import islice

import lmdb
import msgspec

from cypd.metadata.lmdb.environment import Environment
from cypd.metadata.lmdb.keys import (
    ManifestRecord,
    References,
    digest_key,
    digest_of,
    number,
    scan,
)
from cypd.oci.digest import Digest
from cypd.oci.endpoints import Reference
from cypd.oci.errors import Code, OCIError
from cypd.oci.manifest import Manifest
from cypd.oci.names import RepositoryName, Tag
from cypd.registry.ports import StoredManifest, Upload, still_listed

# Names are subtypes of str, which msgspec wants to be told how to write and read.
_encode = msgspec.msgpack.Encoder(enc_hook=str).encode
_decode_manifest = msgspec.msgpack.Decoder(ManifestRecord).decode
_decode_references = msgspec.msgpack.Decoder(References).decode


def _decode_upload(record: bytes) -> Upload:
    return msgspec.msgpack.decode(record, type=Upload, dec_hook=lambda kind, text: kind(text))


def _owner_key(owner: str) -> bytes:
    return b"uploads:" + owner.encode()


class LmdbRegistry:
    """What repositories hold; see ``keys`` for the layout."""

    def __init__(self, environment: Environment) -> None:
        self._begin = environment.lmdb.begin
        self._run = environment.writer.run
        database = environment.database
        self._meta = database("meta")
        self._repositories = database("repositories")
        self._tags = database("tags")
        self._tagged = database("tagged")
        self._manifests = database("manifests")
        self._references = database("references")
        self._listed_by = database("listed_by")
        self._referrers = database("referrers")
        self._links = database("links")
        self._holders = database("holders")
        self._uploads = database("uploads")

    # --- reads ----------------------------------------------------------------------------------

    def repository_exists(self, repository: RepositoryName) -> bool:
        with self._begin() as txn:
            return self._id(txn, repository) is not None

    def repositories(self, *, after: str, limit: int) -> Sequence[RepositoryName]:
        with self._begin() as txn:
            found = scan(txn, self._repositories, b"", after.encode()[:500])
            return [RepositoryName(key.decode()) for key, _ in islice(found, limit)]

    def manifest(self, repository: RepositoryName, reference: Reference) -> StoredManifest | None:
        with self._begin() as txn:
            repo = txn.get(repository.encode(), db=self._repositories)
            if repo is None:
                return None
            if isinstance(reference, Digest):
                digest, key = reference, digest_key(reference)
            else:
                found = txn.get(repo + reference.encode(), db=self._tags)
                if found is None:
                    return None
                digest, key = digest_of(found), found
            record = txn.get(repo + key, db=self._manifests)
        if record is None:
            return None
        manifest = _decode_manifest(record)
        return StoredManifest(digest, manifest.media_type, manifest.size, manifest.content)

    def tags(self, repository: RepositoryName, *, after: str, limit: int) -> Sequence[Tag]:
        with self._begin() as txn:
            repo = self._id(txn, repository)
            if repo is None:
                return []
            found = scan(txn, self._tags, repo, after.encode()[:500])
            return [Tag(key.decode()) for key, _ in islice(found, limit)]

    def referrers(
        self, repository: RepositoryName, subject: Digest, *, after: str, limit: int
    ) -> Sequence[bytes]:
        with self._begin() as txn:
            repo = self._id(txn, repository)
            if repo is None:
                return []
            start = digest_key(Digest(after)) if after else b""
            found = scan(txn, self._referrers, repo + digest_key(subject), start)
            return [descriptor for _, descriptor in islice(found, limit)]

    def blob_size(self, repository: RepositoryName, digest: Digest) -> int | None:
        with self._begin() as txn:
            repo = txn.get(repository.encode(), db=self._repositories)
            size = txn.get(repo + digest_key(digest), db=self._links) if repo else None
        return None if size is None else int.from_bytes(size, "big")

    def repositories_with(self, digest: Digest) -> Sequence[RepositoryName]:
        with self._begin() as txn:
            key = digest_key(digest)
            holders = scan(txn, self._holders, key)
            linked = (n for i, n in holders if txn.get(i + key, db=self._links) is not None)
            return sorted(RepositoryName(name.decode()) for name in linked)

    def is_held(self, digest: Digest) -> bool:
        with self._begin() as txn:
            return any(True for _ in scan(txn, self._holders, digest_key(digest)))

    def upload(self, upload_id: str) -> Upload | None:
        if not 0 < len(upload_id) <= 64:  # whatever stood in a path; LMDB has its own bounds
            return None
        with self._begin() as txn:
            record = txn.get(upload_id.encode(), db=self._uploads)
        return None if record is None else _decode_upload(record)

    def uploads(self, *, started_before: float) -> Sequence[Upload]:
        with self._begin() as txn:
            found = [_decode_upload(record) for _, record in scan(txn, self._uploads, b"")]
        return [upload for upload in found if upload.started_at < started_before]

    # --- writes ---------------------------------------------------------------------------------

    async def open_upload(self, upload: Upload, *, limit: int) -> None:
        def operation(txn: lmdb.Transaction) -> None:
            if self._open_uploads(txn, upload.owner) >= limit:
                raise OCIError(
                    Code.TOOMANYREQUESTS, f"{limit} uploads are open; finish or cancel some"
                )
            self._count_upload(txn, upload.owner, +1)
            txn.put(upload.id.encode(), _encode(upload), db=self._uploads)

        await self._run(operation)

    async def close_upload(self, upload_id: str) -> None:
        await self._run(lambda txn: self._close(txn, upload_id))

    async def link_blob(
        self, repository: RepositoryName, digest: Digest, size: int, *, upload_id: str | None
    ) -> None:
        def operation(txn: lmdb.Transaction) -> None:
            self._link(txn, repository, digest_key(digest), number(size))
            if upload_id is not None:
                self._close(txn, upload_id)

        await self._run(operation)

    async def mount_blob(
        self, repository: RepositoryName, digest: Digest, *, source: RepositoryName
    ) -> bool:
        def operation(txn: lmdb.Transaction) -> bool:
            key = digest_key(digest)
            origin = self._id(txn, source)
            size = txn.get(origin + key, db=self._links) if origin else None
            if size is None:
                return False
            self._link(txn, repository, key, bytes(size))
            return True

        return await self._run(operation)

    async def unlink_blob(self, repository: RepositoryName, digest: Digest) -> None:
        def operation(txn: lmdb.Transaction) -> None:
            key = digest_key(digest)
            repo = self._id(txn, repository)
            if repo is None or txn.get(repo + key, db=self._links) is None:
                raise OCIError(Code.BLOB_UNKNOWN, detail={"digest": digest})
            self._refuse_if_listed(txn, repo, digest)
            txn.delete(repo + key, db=self._links)
            self._release(txn, repo, key)

        await self._run(operation)

    async def put_manifest(
        self,
        repository: RepositoryName,
        manifest: Manifest,
        tags: Sequence[Tag],
        *,
        inline: bool,
        allow_sparse: bool,
    ) -> None:
        def operation(txn: lmdb.Transaction) -> None:
            if not allow_sparse:
                self._require_references(txn, repository, manifest)
            repo = self._ensure(txn, repository)
            self._put(txn, repository, repo, manifest, inline=inline)
            for tag in tags:
                self._point(txn, repo, tag.encode(), digest_key(manifest.digest))

        await self._run(operation)

    async def delete_manifest(self, repository: RepositoryName, digest: Digest) -> None:
        def operation(txn: lmdb.Transaction) -> None:
            key = digest_key(digest)
            repo = self._id(txn, repository)
            if repo is None or txn.get(repo + key, db=self._manifests) is None:
                raise OCIError(Code.MANIFEST_UNKNOWN, detail={"reference": digest})
            self._refuse_if_listed(txn, repo, digest)
            self._remove(txn, repo, key)

        await self._run(operation)

    async def delete_tag(self, repository: RepositoryName, tag: Tag) -> None:
        def operation(txn: lmdb.Transaction) -> None:
            repo = self._id(txn, repository)
            digest = txn.pop(repo + tag.encode(), db=self._tags) if repo else None
            if repo is None or digest is None:
                raise OCIError(Code.MANIFEST_UNKNOWN, detail={"reference": tag})
            txn.delete(repo + digest + tag.encode(), db=self._tagged)

        await self._run(operation)

    # --- pieces of operations -------------------------------------------------------------------

    def _id(self, txn: lmdb.Transaction, repository: RepositoryName) -> bytes | None:
        repo = txn.get(repository.encode(), db=self._repositories)
        return None if repo is None else bytes(repo)

    def _ensure(self, txn: lmdb.Transaction, repository: RepositoryName) -> bytes:
        repo = self._id(txn, repository)
        if repo is None:
            last = txn.get(b"repositories", db=self._meta) or b""
            repo = number(int.from_bytes(last, "big") + 1)
            txn.put(b"repositories", repo, db=self._meta)
            txn.put(repository.encode(), repo, db=self._repositories)
        return repo

    def _link(
        self, txn: lmdb.Transaction, repository: RepositoryName, key: bytes, size: bytes
    ) -> None:
        repo = self._ensure(txn, repository)
        txn.put(repo + key, size, db=self._links)
        txn.put(key + repo, repository.encode(), db=self._holders)

    def _release(self, txn: lmdb.Transaction, repo: bytes, key: bytes) -> None:
        """Let go of a file, unless the repository still has it as a blob or a large manifest."""
        record = txn.get(repo + key, db=self._manifests)
        is_file = record is not None and _decode_manifest(record).content is None
        if not is_file and txn.get(repo + key, db=self._links) is None:
            txn.delete(key + repo, db=self._holders)

    def _close(self, txn: lmdb.Transaction, upload_id: str) -> None:
        record = txn.pop(upload_id.encode(), db=self._uploads)
        if record is not None:
            self._count_upload(txn, _decode_upload(bytes(record)).owner, -1)

    def _open_uploads(self, txn: lmdb.Transaction, owner: str) -> int:
        return int.from_bytes(txn.get(_owner_key(owner), db=self._meta) or b"", "big")

    def _count_upload(self, txn: lmdb.Transaction, owner: str, step: int) -> None:
        count = self._open_uploads(txn, owner) + step
        txn.put(_owner_key(owner), number(count), db=self._meta)

    def _refuse_if_listed(self, txn: lmdb.Transaction, repo: bytes, digest: Digest) -> None:
        if any(True for _ in scan(txn, self._listed_by, repo + digest_key(digest))):
            raise still_listed(digest)

    def _require_references(
        self, txn: lmdb.Transaction, repository: RepositoryName, manifest: Manifest
    ) -> None:
        repo = self._id(txn, repository)
        wanted = [(digest, self._links) for digest in manifest.blobs]
        wanted += [(digest, self._manifests) for digest in manifest.manifests]
        missing = [
            digest
            for digest, database in wanted
            if repo is None or txn.get(repo + digest_key(digest), db=database) is None
        ]
        if missing:
            raise OCIError(Code.MANIFEST_BLOB_UNKNOWN, detail={"missing": missing[:100]})

    def _put(
        self,
        txn: lmdb.Transaction,
        repository: RepositoryName,
        repo: bytes,
        manifest: Manifest,
        *,
        inline: bool,
    ) -> None:
        key = digest_key(manifest.digest)
        content = manifest.content if inline else None
        record = ManifestRecord(manifest.media_type, len(manifest.content), content)
        txn.put(repo + key, _encode(record), db=self._manifests)
        if not inline:
            txn.put(key + repo, repository.encode(), db=self._holders)
        listed = sorted({digest_key(digest) for digest in (*manifest.blobs, *manifest.manifests)})
        for other in listed:
            txn.put(repo + other + key, b"", db=self._listed_by)
        subject = digest_key(manifest.subject) if manifest.subject else None
        if subject:
            descriptor = msgspec.json.encode(manifest.descriptor())
            txn.put(repo + subject + key, descriptor, db=self._referrers)
        txn.put(repo + key, _encode(References(subject, listed)), db=self._references)

    def _point(self, txn: lmdb.Transaction, repo: bytes, tag: bytes, key: bytes) -> None:
        before = txn.get(repo + tag, db=self._tags)
        if before is not None:
            txn.delete(repo + before + tag, db=self._tagged)
        txn.put(repo + tag, key, db=self._tags)
        txn.put(repo + key + tag, b"", db=self._tagged)

    def _remove(self, txn: lmdb.Transaction, repo: bytes, key: bytes) -> None:
        for tag in [tag for tag, _ in scan(txn, self._tagged, repo + key)]:
            txn.delete(repo + tag, db=self._tags)
            txn.delete(repo + key + tag, db=self._tagged)
        record = txn.pop(repo + key, db=self._references)
        references = _decode_references(record) if record else References(None, [])
        for other in references.listed:
            txn.delete(repo + other + key, db=self._listed_by)
        if references.subject:
            txn.delete(repo + references.subject + key, db=self._referrers)
        txn.delete(repo + key, db=self._manifests)
        self._release(txn, repo, key)
