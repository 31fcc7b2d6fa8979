"""What lists tell of repositories, tags and manifests beside what a pull needs.

Written within the transactions of others, so lists are exact at every commit. The rows that a pull
reads stay as short as they are.
"""

from collections.abc import Callable, Sequence
from typing import Any

import lmdb
import msgspec

from cypd.access import Act
from cypd.metadata.lmdb.environment import Environment
from cypd.metadata.lmdb.keys import digest_key, digest_of, number
from cypd.metadata.lmdb.shelf import Shelf
from cypd.oci.manifest import Manifest
from cypd.oci.names import RepositoryName
from cypd.registry.inventory_ports import MAX_SIZE, Pulls

ALL = b"a"
"""The shelf of all repositories."""
_MICROSECONDS = 1_000_000
# What stands in no tag, so that a search finds tags alone; it orders as hexadecimal does.
_DIGITS = bytes.maketrans(b"0123456789abcdef", b"!\"#$%&'()*+,;<=>")
_TIME_BYTES = 14


class RepositoryFacts(msgspec.Struct, frozen=True, array_like=True):
    """Of a repository."""

    created_at: float
    updated_at: float
    size: int = 0
    push_count: int = 0
    pull_count: int = 0
    last_pulled_at: float | None = None


class TagFacts(msgspec.Struct, frozen=True, array_like=True):
    """Of a tag."""

    pushed_at: float
    pushed_by: str
    pull_count: int = 0
    last_pulled_at: float | None = None


class ManifestFacts(msgspec.Struct, frozen=True, array_like=True):
    """Of a manifest; ``size`` with all that it lists."""

    artifact_type: str | None
    subject: str | None
    platforms: Sequence[str]
    size: int
    pushed_at: float
    pull_count: int = 0
    last_pulled_at: float | None = None


Facts = RepositoryFacts | TagFacts | ManifestFacts

_encode = msgspec.msgpack.Encoder(enc_hook=str).encode
decode_repository = msgspec.msgpack.Decoder(RepositoryFacts).decode
decode_tag = msgspec.msgpack.Decoder(TagFacts).decode
decode_manifest = msgspec.msgpack.Decoder(ManifestFacts).decode


def of_project(project: bytes) -> bytes:
    """Return the shelf of a project's repositories."""
    return b"p" + project


def manifests_of(repo: bytes) -> bytes:
    """Return the shelf of a repository's manifests."""
    return b"m" + repo


def tags_of(repo: bytes) -> bytes:
    """Return the shelf of a repository's tags."""
    return b"t" + repo


def timed_tags_of(repo: bytes) -> bytes:
    """Return the shelf of a repository's tags, each behind the time of its last push."""
    return b"w" + repo


def tag_of(timed: bytes) -> bytes:
    """Return the tag of a name in ``timed_tags_of``."""
    return timed[_TIME_BYTES:]


def _timed(at: float, tag: bytes) -> bytes:
    moment = min(max(0, round(at * _MICROSECONDS)), (16**_TIME_BYTES) - 1)
    return (b"%0*x" % (_TIME_BYTES, moment)).translate(_DIGITS) + tag


class FactsBook:
    """Facts and shelves. A repository is its id here, a manifest the key of its digest."""

    def __init__(self, environment: Environment) -> None:
        self.shelf = Shelf(environment.database("shelves"))
        self.repositories = environment.database("repository_facts")
        self.tags = environment.database("tag_facts")
        self.manifests = environment.database("manifest_facts")
        self._referrers = environment.database("referrer_counts")

    # --- repositories ---------------------------------------------------------------------------

    def begin(
        self,
        txn: lmdb.Transaction,
        project: bytes,
        repo: bytes,
        name: RepositoryName,
        at: float,
    ) -> None:
        """Note a new repository."""
        for shelf in (ALL, of_project(project)):
            self.shelf.add(txn, shelf, name.encode())
        txn.put(repo, _encode(RepositoryFacts(at, at)), db=self.repositories)

    def end(self, txn: lmdb.Transaction, project: bytes, repo: bytes, name: RepositoryName) -> None:
        """Forget a repository that holds nothing any more."""
        for shelf in (ALL, of_project(project)):
            self.shelf.remove(txn, shelf, name.encode())
        txn.delete(repo, db=self.repositories)

    def grow(self, txn: lmdb.Transaction, repo: bytes, change: int) -> None:
        """Note that a repository holds so many bytes more, or less."""
        facts = self._repository(txn, repo)
        self._replace(txn, self.repositories, repo, facts, size=facts.size + change)

    def touch(self, txn: lmdb.Transaction, repo: bytes, at: float, pushes: int = 0) -> None:
        """Note that somebody has changed a repository, and how many manifests they pushed."""
        facts = self._repository(txn, repo)
        count = facts.push_count + pushes
        self._replace(txn, self.repositories, repo, facts, updated_at=at, push_count=count)

    def _repository(self, txn: lmdb.Transaction, repo: bytes) -> RepositoryFacts:
        return decode_repository(txn.get(repo, db=self.repositories) or b"")

    # --- manifests ------------------------------------------------------------------------------

    def put_manifest(
        self, txn: lmdb.Transaction, repo: bytes, manifest: Manifest, blob_bytes: int, act: Act
    ) -> None:
        """Note a push; ``blob_bytes`` is what the blobs have that it lists."""
        key = repo + digest_key(manifest.digest)
        children = [
            decode_manifest(record).size
            for child in set(manifest.manifests)
            if (record := txn.get(repo + digest_key(child), db=self.manifests)) is not None
        ]
        size = len(manifest.content) + blob_bytes + sum(children)
        before = txn.get(key, db=self.manifests)
        facts = ManifestFacts(
            artifact_type=manifest.artifact_type,
            subject=manifest.subject,
            platforms=manifest.platforms,
            size=min(size, MAX_SIZE),
            pushed_at=act.at,
        )
        if before is not None:
            old = decode_manifest(before)
            facts = msgspec.structs.replace(
                facts, pull_count=old.pull_count, last_pulled_at=old.last_pulled_at
            )
        txn.put(key, _encode(facts), db=self.manifests)
        self.shelf.add(txn, manifests_of(repo), manifest.digest.encode())
        self.touch(txn, repo, act.at, pushes=1)

    def drop_manifest(self, txn: lmdb.Transaction, repo: bytes, key: bytes) -> None:
        """Forget a manifest."""
        txn.delete(repo + key, db=self.manifests)
        self.shelf.remove(txn, manifests_of(repo), digest_of(key).encode())

    def referrer_count(self, txn: lmdb.Transaction, repo: bytes, subject: bytes) -> int:
        """Return how many manifests have that subject."""
        return int.from_bytes(txn.get(repo + subject, db=self._referrers) or b"", "big")

    def count_referrer(self, txn: lmdb.Transaction, repo: bytes, subject: bytes, step: int) -> None:
        """Note that one manifest more, or less, has that subject."""
        count = self.referrer_count(txn, repo, subject) + step
        if count:
            txn.put(repo + subject, number(count), db=self._referrers)
        else:
            txn.delete(repo + subject, db=self._referrers)

    # --- tags -----------------------------------------------------------------------------------

    def put_tag(self, txn: lmdb.Transaction, repo: bytes, tag: bytes, act: Act) -> None:
        """Note a push; what was pulled by the tag stays counted, wherever it points."""
        record = txn.get(repo + tag, db=self.tags)
        facts = TagFacts(act.at, act.name)
        if record is not None:
            before = decode_tag(record)
            self.shelf.remove(txn, timed_tags_of(repo), _timed(before.pushed_at, tag))
            facts = msgspec.structs.replace(before, pushed_at=act.at, pushed_by=act.name)
        txn.put(repo + tag, _encode(facts), db=self.tags)
        self.shelf.add(txn, tags_of(repo), tag)
        self.shelf.add(txn, timed_tags_of(repo), _timed(act.at, tag))

    def pushed_at(self, txn: lmdb.Transaction, repo: bytes, tag: bytes) -> float | None:
        """Return when a tag was last pushed."""
        record = txn.get(repo + tag, db=self.tags)
        return None if record is None else decode_tag(record).pushed_at

    def drop_tag(self, txn: lmdb.Transaction, repo: bytes, tag: bytes) -> None:
        """Forget a tag."""
        record = txn.pop(repo + tag, db=self.tags)
        if record is not None:
            at = decode_tag(record).pushed_at
            self.shelf.remove(txn, timed_tags_of(repo), _timed(at, tag))
            self.shelf.remove(txn, tags_of(repo), tag)

    # --- pulls ----------------------------------------------------------------------------------

    def count_pulls(self, txn: lmdb.Transaction, repo: bytes, pulls: Pulls) -> None:
        """Count pulls; those of what is gone are passed over."""
        places: list[tuple[lmdb._Database, bytes, Callable[[Any], Facts]]] = [
            (self.repositories, repo, decode_repository),
            (self.manifests, repo + digest_key(pulls.digest), decode_manifest),
        ]
        if pulls.tag is not None:
            places.append((self.tags, repo + pulls.tag.encode(), decode_tag))
        for database, key, decode in places:
            record = txn.get(key, db=database)
            if record is None:
                continue
            facts = decode(record)
            count = facts.pull_count + pulls.count
            last = max(pulls.act.at, facts.last_pulled_at or 0.0)
            self._replace(txn, database, key, facts, pull_count=count, last_pulled_at=last)

    @staticmethod
    def _replace(
        txn: lmdb.Transaction,
        database: "lmdb._Database",
        key: bytes,
        facts: Facts,
        **changes: float,
    ) -> None:
        txn.put(key, _encode(msgspec.structs.replace(facts, **changes)), db=database)
