"""The rows of repositories: pieces of operations, each of which leaves them consistent."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import lmdb
import msgspec

from cypd.access import Act
from cypd.metadata.lmdb.environment import Environment
from cypd.metadata.lmdb.facts import FactsBook
from cypd.metadata.lmdb.keys import Link, ManifestRecord, References, digest_key, number, scan
from cypd.metadata.lmdb.ledger import Ledger
from cypd.metadata.lmdb.scan_book import ScanBook
from cypd.oci.manifest import Manifest, ends_with_subject
from cypd.oci.names import RepositoryName
from cypd.registry.ports import MAX_ENDING, Upload

# Names are subtypes of str, which msgspec wants to be told how to write and read.
_encode = msgspec.msgpack.Encoder(enc_hook=str).encode
decode_manifest = msgspec.msgpack.Decoder(ManifestRecord).decode
_decode_references = msgspec.msgpack.Decoder(References).decode
_LAST_ID = b"\xff" * 8  # ids are numbers that are given in turn: none comes near it


def decode_upload(record: bytes) -> Upload:
    """Return the upload of a record."""
    return msgspec.msgpack.decode(record, type=Upload, dec_hook=lambda kind, text: kind(text))


def _microseconds(moment: float) -> int:
    return max(1, round(moment * 1e6))


def _owner_key(owner: str) -> bytes:
    return b"uploads:" + owner.encode()


def _project_key(project: bytes) -> bytes:
    return b"uploads in:" + project


class Contents:
    """What repositories hold, and what it costs their projects; see ``keys`` for the layout.

    A repository is its id here, content the key of its digest.
    """

    def __init__(
        self,
        environment: Environment,
        ledger: Ledger,
        facts: FactsBook,
        scans: ScanBook,
        clock: Callable[[], float],
    ) -> None:
        database = environment.database
        self.meta = database("meta")
        self.repositories = database("repositories")
        self.tags = database("tags")
        self.tagged = database("tagged")
        self.manifests = database("manifests")
        self.references = database("references")
        self.listed_by = database("listed_by")
        self.referrers = database("referrers")
        self.links = database("links")
        self.loose = database("loose")
        self.holders = database("holders")
        self.uploads = database("uploads")
        self.facts = facts
        self._ledger = ledger
        self.scans = scans
        self._clock = clock

    def id(self, txn: lmdb.Transaction, repository: RepositoryName) -> bytes | None:
        """Return the id of a repository."""
        repo = txn.get(repository.encode(), db=self.repositories)
        return None if repo is None else bytes(repo)

    def ensure(self, txn: lmdb.Transaction, project: bytes, repository: RepositoryName) -> bytes:
        """Return the id of a repository, given now if it is new."""
        repo = self.id(txn, repository)
        if repo is None:
            last = txn.get(b"repositories", db=self.meta) or b""
            repo = number(int.from_bytes(last, "big") + 1)
            txn.put(b"repositories", repo, db=self.meta)
            txn.put(repository.encode(), repo, db=self.repositories)
            self.facts.begin(txn, project, repo, repository, self._clock())
        return repo

    # --- blobs ----------------------------------------------------------------------------------

    def link(
        self,
        txn: lmdb.Transaction,
        repository: RepositoryName,
        key: bytes,
        size: int,
        reserved: int = 0,
    ) -> None:
        """Link a blob; raise NAME_UNKNOWN or DENIED before anything is written."""
        project = self._require_room(txn, repository, key, size, reserved)
        repo = self.ensure(txn, project, repository)
        is_new = self.linked(txn, repo, key) is None
        self._put_link(txn, repo, key, size)
        if is_new:
            self._ledger.charge(txn, project, key, size)
            if txn.get(repo + key, db=self.manifests) is None:
                self.facts.grow(txn, repo, size)
            txn.put(key + repo, repository.encode(), db=self.holders)

    def unlink(self, txn: lmdb.Transaction, project: bytes, repo: bytes, key: bytes) -> None:
        """Remove a link."""
        link = self.linked(txn, repo, key)
        if link is not None:
            self._tighten(txn, repo, key, link)
            txn.delete(repo + key, db=self.links)
        self._release(txn, project, repo, key)

    def linked(self, txn: lmdb.Transaction, repo: bytes, key: bytes) -> Link | None:
        """Return the link of a blob."""
        record = txn.get(repo + key, db=self.links)
        return None if record is None else Link.of(bytes(record))

    def oldest_loose(
        self, txn: lmdb.Transaction, before: float, limit: int
    ) -> list[tuple[bytes, bytes]]:
        """Return (repository, key) of links that no manifest needs, the oldest first.

        Of those who became so before that time, unix seconds, at most ``limit``.
        """
        found = islice(scan(txn, self.loose, b""), limit)
        end = number(_microseconds(before))
        return [(row[8:16], row[16:]) for row, _ in found if row[:8] < end]

    def _put_link(self, txn: lmdb.Transaction, repo: bytes, key: bytes, size: int) -> None:
        """Write a link as of now: new, pushed again, or listed by more or fewer manifests."""
        before = self.linked(txn, repo, key)
        if before is not None:
            self._tighten(txn, repo, key, before)
        since = 0
        if not self._is_listed(txn, repo, key):
            since = _microseconds(self._clock())
            txn.put(number(since) + repo + key, b"", db=self.loose)
        txn.put(repo + key, Link(size, since).record, db=self.links)

    def _tighten(self, txn: lmdb.Transaction, repo: bytes, key: bytes, link: Link) -> None:
        if link.loose_since:
            txn.delete(number(link.loose_since) + repo + key, db=self.loose)

    def _is_listed(self, txn: lmdb.Transaction, repo: bytes, key: bytes) -> bool:
        return any(True for _ in scan(txn, self.listed_by, repo + key))

    def held(self, txn: lmdb.Transaction, after: bytes) -> Iterator[bytes]:
        """Yield what some repository needs a file of, from past ``after``, once each."""
        with txn.cursor(db=self.holders) as cursor:
            while cursor.set_range(after + _LAST_ID if after else b""):
                after = bytes(cursor.key())[: -len(_LAST_ID)]
                yield after

    def _require_room(
        self,
        txn: lmdb.Transaction,
        repository: RepositoryName,
        key: bytes,
        size: int,
        reserved: int = 0,
    ) -> bytes:
        project = self._ledger.require_project(txn, repository)
        if self._ledger.held_size(txn, project, key) is None:
            self._ledger.require_room(txn, project, size, reserved)
        return project

    def _release(self, txn: lmdb.Transaction, project: bytes, repo: bytes, key: bytes) -> None:
        """Let go of content, and of its file unless the repository has another use for it."""
        size = self._ledger.discharge(txn, project, key)
        if txn.get(repo + key, db=self.links) is not None:
            return
        record = txn.get(repo + key, db=self.manifests)
        if record is None:
            self.facts.grow(txn, repo, -size)
        if record is None or decode_manifest(record).content is not None:
            txn.delete(key + repo, db=self.holders)

    # --- manifests and tags ---------------------------------------------------------------------

    def put(
        self,
        txn: lmdb.Transaction,
        repository: RepositoryName,
        manifest: Manifest,
        tags: Sequence[str],
        *,
        inline: bool,
        act: Act,
    ) -> None:
        """Store a manifest with its tags; raise as ``link``."""
        key, size = digest_key(manifest.digest), len(manifest.content)
        project = self._require_room(txn, repository, key, size)
        repo = self.ensure(txn, project, repository)
        if txn.get(repo + key, db=self.manifests) is None:
            self._ledger.charge(txn, project, key, size)
            if txn.get(repo + key, db=self.links) is None:
                self.facts.grow(txn, repo, size)
        content = manifest.content if inline else None
        record = ManifestRecord(manifest.media_type, size, content)
        txn.put(repo + key, _encode(record), db=self.manifests)
        if not inline:
            txn.put(key + repo, repository.encode(), db=self.holders)
        self._put_references(txn, repo, key, manifest)
        links = (self.linked(txn, repo, digest_key(it)) for it in set(manifest.blobs))
        blob_bytes = sum(link.size for link in links if link)
        self.facts.put_manifest(txn, repo, manifest, blob_bytes, act)
        for tag in tags:
            self._point(txn, project, repo, tag.encode(), key)
            self.facts.put_tag(txn, repo, tag.encode(), act)

    def _put_references(
        self, txn: lmdb.Transaction, repo: bytes, key: bytes, manifest: Manifest
    ) -> None:
        listed = sorted({digest_key(digest) for digest in (*manifest.blobs, *manifest.manifests)})
        for other in listed:
            txn.put(repo + other + key, b"", db=self.listed_by)
            link = self.linked(txn, repo, other)
            if link and link.loose_since:
                self._put_link(txn, repo, other, link.size)
        subject = digest_key(manifest.subject) if manifest.subject else None
        if subject:
            if txn.get(repo + subject + key, db=self.referrers) is None:
                self.facts.count_referrer(txn, repo, subject, +1)
            descriptor = msgspec.json.encode(manifest.descriptor())
            txn.put(repo + subject + key, descriptor, db=self.referrers)
        txn.put(repo + key, _encode(References(subject, listed)), db=self.references)

    def remove(self, txn: lmdb.Transaction, project: bytes, repo: bytes, key: bytes) -> None:
        """Remove a manifest, its tags, and its place among referrers."""
        for tag in [tag for tag, _ in scan(txn, self.tagged, repo + key)]:
            self.untag(txn, project, repo, tag)
        record = txn.pop(repo + key, db=self.references)
        references = _decode_references(record) if record else References(None, [])
        for other in references.listed:
            txn.delete(repo + other + key, db=self.listed_by)
            link = self.linked(txn, repo, other)
            if link and not self._is_listed(txn, repo, other):
                self._put_link(txn, repo, other, link.size)
        if references.subject:
            txn.delete(repo + references.subject + key, db=self.referrers)
            self.facts.count_referrer(txn, repo, references.subject, -1)
        txn.delete(repo + key, db=self.manifests)
        self.facts.drop_manifest(txn, repo, key)
        self.scans.forget(txn, repo, key)
        self._release(txn, project, repo, key)

    def ending_with(self, txn: lmdb.Transaction, repo: bytes, subject: bytes) -> list[bytes]:
        """Return the referrers of a manifest that end with it and that nobody else needs."""
        ending = (
            key
            for key, descriptor in scan(txn, self.referrers, repo + subject)
            if ends_with_subject(descriptor)
            and not self.has_tag(txn, repo, key)
            and not self._is_listed(txn, repo, key)
        )
        return list(islice(ending, MAX_ENDING))

    def untag(self, txn: lmdb.Transaction, project: bytes, repo: bytes, tag: bytes) -> bool:
        """Remove a tag; return ``False`` if there is none."""
        self.facts.drop_tag(txn, repo, tag)
        return self._unpoint(txn, project, repo, tag)

    def _unpoint(self, txn: lmdb.Transaction, project: bytes, repo: bytes, tag: bytes) -> bool:
        key = txn.pop(repo + tag, db=self.tags)
        if key is None:
            return False
        txn.delete(repo + key + tag, db=self.tagged)
        if not self.has_tag(txn, repo, bytes(key)):
            self._ledger.count_image(txn, project, -1)
        return True

    def _point(
        self, txn: lmdb.Transaction, project: bytes, repo: bytes, tag: bytes, key: bytes
    ) -> None:
        if txn.get(repo + tag, db=self.tags) == key:
            return
        self._unpoint(txn, project, repo, tag)
        if not self.has_tag(txn, repo, key):
            self._ledger.count_image(txn, project, +1)
        txn.put(repo + tag, key, db=self.tags)
        txn.put(repo + key + tag, b"", db=self.tagged)

    def has_tag(self, txn: lmdb.Transaction, repo: bytes, key: bytes) -> bool:
        """Tell whether a manifest carries a tag."""
        return any(True for _ in scan(txn, self.tagged, repo + key))

    def is_needed(self, txn: lmdb.Transaction, repo: bytes, key: bytes) -> bool:
        """Tell whether a manifest has a tag or a subject, or an index lists it."""
        record = txn.get(repo + key, db=self.references)
        return (
            self.has_tag(txn, repo, key)
            or self._is_listed(txn, repo, key)
            or (record is not None and _decode_references(record).subject is not None)
        )

    # --- uploads --------------------------------------------------------------------------------

    def upload(self, txn: lmdb.Transaction, upload_id: str) -> Upload | None:
        """Return an open session."""
        record = txn.get(upload_id.encode(), db=self.uploads)
        return None if record is None else decode_upload(bytes(record))

    def put_upload(self, txn: lmdb.Transaction, project: bytes, upload: Upload) -> None:
        """Store a session, new or changed, with its reservation."""
        before = self.upload(txn, upload.id)
        if before is None:
            self._count_upload(txn, upload.owner, project, +1)
        self._ledger.reserve(txn, project, upload.reserved - (before.reserved if before else 0))
        txn.put(upload.id.encode(), _encode(upload), db=self.uploads)

    def close_upload(self, txn: lmdb.Transaction, upload_id: str) -> None:
        """Forget a session and its reservation."""
        upload = self.upload(txn, upload_id)
        if upload is None:
            return
        project = self._ledger.require_project(txn, upload.repository)
        self._count_upload(txn, upload.owner, project, -1)
        self._ledger.reserve(txn, project, -upload.reserved)
        txn.delete(upload_id.encode(), db=self.uploads)

    def open_uploads(self, txn: lmdb.Transaction, owner: str) -> int:
        """Return how many sessions a user has open."""
        return self._count(txn, _owner_key(owner))

    def open_in_project(self, txn: lmdb.Transaction, project: bytes) -> int:
        """Return how many sessions a project has open."""
        return self._count(txn, _project_key(project))

    def _count(self, txn: lmdb.Transaction, key: bytes) -> int:
        return int.from_bytes(txn.get(key, db=self.meta) or b"", "big")

    def _count_upload(self, txn: lmdb.Transaction, owner: str, project: bytes, step: int) -> None:
        for key in (_owner_key(owner), _project_key(project)):
            count = self._count(txn, key) + step
            if count > 0:
                txn.put(key, number(count), db=self.meta)
            else:
                txn.delete(key, db=self.meta)

    # --- all of a project -----------------------------------------------------------------------

    def of_project(self, txn: lmdb.Transaction, name: str) -> list[tuple[RepositoryName, bytes]]:
        """Return the repositories of a project, with their ids."""
        below = scan(txn, self.repositories, f"{name}/".encode())
        found = [(RepositoryName(f"{name}/{rest.decode()}"), repo) for rest, repo in below]
        bare = self.id(txn, RepositoryName(name))
        return found if bare is None else [(RepositoryName(name), bare), *found]

    def uploads_of(self, txn: lmdb.Transaction, name: str) -> list[Upload]:
        """Return the open sessions of a project."""
        every = (decode_upload(record) for _, record in scan(txn, self.uploads, b""))
        return [upload for upload in every if upload.repository.project == name]

    def is_empty(self, txn: lmdb.Transaction, name: str) -> bool:
        """Tell whether a project holds nothing: no blob, no manifest, no open session."""
        return not self.uploads_of(txn, name) and not any(
            any(True for _ in scan(txn, database, repo))
            for _, repo in self.of_project(txn, name)
            for database in (self.links, self.manifests)
        )

    def empty(self, txn: lmdb.Transaction, project: bytes, name: str, limit: int) -> bool:
        """Take at most ``limit`` things out of a project; return whether nothing is left.

        Sessions first, then manifests before the blobs that they list.
        """
        for upload in self.uploads_of(txn, name)[:limit]:
            self.close_upload(txn, upload.id)
            limit -= 1
        repositories = self.of_project(txn, name)
        for database, take in ((self.manifests, self.remove), (self.links, self.unlink)):
            for _, repo in repositories:
                for key, _ in list(islice(scan(txn, database, repo), limit)):
                    take(txn, project, repo, key)
                    limit -= 1
        return limit > 0

    def forget_names(self, txn: lmdb.Transaction, project: bytes, name: str) -> None:
        """Forget the repositories of a project that holds nothing."""
        for repository, repo in self.of_project(txn, name):
            txn.delete(repository.encode(), db=self.repositories)
            self.facts.end(txn, project, repo, repository)
