"""Lists of what there is, on LMDB: names from a shelf, and a few look-ups for each."""

import re
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, TypeVar

import lmdb

from cypd.metadata.lmdb import contents as rows
from cypd.metadata.lmdb import facts as notes
from cypd.metadata.lmdb.chunk import Wanted
from cypd.metadata.lmdb.contents import Contents
from cypd.metadata.lmdb.environment import Environment
from cypd.metadata.lmdb.facts import FactsBook
from cypd.metadata.lmdb.journal import Journal
from cypd.metadata.lmdb.keys import digest_key, digest_of, scan, uuid_key
from cypd.metadata.lmdb.ledger import Ledger
from cypd.oci.digest import Digest
from cypd.oci.names import RepositoryName, Tag
from cypd.registry.inventory_ports import (
    MAX_TAGS,
    Found,
    ListedManifest,
    Pulls,
    Repository,
    TaggedManifest,
    Window,
)

T = TypeVar("T")
# What repositories, tags and digests are made of; nothing else stands in any of them.
_KEYWORD = re.compile(r"[a-zA-Z0-9._/:-]*", re.ASCII)


class LmdbInventory:
    """The contract of ``InventoryStore``; see ``keys`` for the layout."""

    def __init__(
        self,
        environment: Environment,
        contents: Contents,
        ledger: Ledger,
        facts: FactsBook,
        journal: Journal,
    ) -> None:
        self._journal = journal
        self._environment = environment
        self._contents = contents
        self._ledger = ledger
        self._facts = facts

    def _begin(self) -> lmdb.Transaction:
        return self._environment.lmdb.begin(buffers=True)  # chunks are not copied to be counted

    def list_repositories(
        self, projects: Sequence[str] | None, window: Window
    ) -> Found[Repository]:
        shelves = [notes.ALL]
        if projects is not None:
            keys = [uuid_key(project) or b"" for project in projects]
            shelves = [notes.of_project(key) for key in keys]
        with self._begin() as txn:
            names, total = self._names(txn, shelves, window)
            return Found([self._repository(txn, name) for name in names], total)

    def list_tags(
        self, repository: RepositoryName, window: Window, *, by_time: bool = False
    ) -> Found[TaggedManifest]:
        with self._begin() as txn:
            repo = self._contents.id(txn, repository)
            if repo is None:
                return Found([], 0)
            shelf = notes.timed_tags_of(repo) if by_time else notes.tags_of(repo)
            names, total = self._names(txn, [shelf], window, ignore_case=True)
            tags = map(notes.tag_of, names) if by_time else names
            return Found([self._tag(txn, repo, tag) for tag in tags], total)

    def list_manifests(self, repository: RepositoryName, window: Window) -> Found[ListedManifest]:
        with self._begin() as txn:
            repo = self._contents.id(txn, repository)
            if repo is None:
                return Found([], 0)
            names, total = self._names(txn, [notes.manifests_of(repo)], window)
            digests = [Digest(name.decode()) for name in names]
            return Found([self._manifest(txn, repo, digest) for digest in digests], total)

    async def note_pulls(self, pulls: Sequence[Pulls], *, tell: bool = False) -> None:
        def operation(txn: lmdb.Transaction) -> None:
            for it in pulls:
                repo = self._contents.id(txn, it.repository)
                if repo is not None:
                    self._facts.count_pulls(txn, repo, it)
            if tell:
                self._tell(txn, pulls)

        await self._environment.writer.run(operation)

    def _tell(self, txn: lmdb.Transaction, pulls: Sequence[Pulls]) -> None:
        """Note one event for each manifest, by whatever name it was pulled."""
        counts: Counter[tuple[RepositoryName, Digest]] = Counter()
        for it in pulls:
            counts[it.repository, it.digest] += it.count
        latest = {(it.repository, it.digest): it for it in sorted(pulls, key=lambda it: it.act.at)}
        for (repository, digest), it in latest.items():
            repo, project = (
                self._contents.id(txn, repository),
                self._ledger.project(txn, repository),
            )
            record = repo and txn.get(repo + digest_key(digest), db=self._contents.manifests)
            if not record or not project:
                continue
            manifest = rows.decode_manifest(bytes(record))
            self._journal.note(
                txn,
                "pull",
                self._ledger.record(txn, project),
                it.act,
                details={"count": counts[repository, digest]},
                repository=repository,
                tag=it.tag or "",
                digest=digest,
                media_type=manifest.media_type,
                size=manifest.size,
            )

    # --- names ----------------------------------------------------------------------------------

    def _names(
        self,
        txn: lmdb.Transaction,
        shelves: Sequence[bytes],
        window: Window,
        *,
        ignore_case: bool = False,
    ) -> tuple[list[bytes], int]:
        """Return a part of some shelves, one behind another, and how long all of it is."""
        if not _KEYWORD.fullmatch(window.keyword):
            return [], 0
        wanted = Wanted(window.keyword.lower(), ignore_case=ignore_case)
        found: list[bytes] = []
        total = 0
        for shelf in reversed(shelves) if window.reverse else shelves:
            start, room = max(0, window.offset - total), window.limit - len(found)
            if window.keyword:
                names, count = self._facts.shelf.search(
                    txn, shelf, wanted, start, room, reverse=window.reverse
                )
            else:
                names = self._facts.shelf.page(txn, shelf, start, room, reverse=window.reverse)
                count = self._facts.shelf.count(txn, shelf)
            found += names
            total += count
        return found, total

    # --- what is told of each -------------------------------------------------------------------

    def _repository(self, txn: lmdb.Transaction, key: bytes) -> Repository:
        name = RepositoryName(key.decode())
        repo = self._contents.id(txn, name) or b""
        facts = _get(txn, self._facts.repositories, repo, notes.decode_repository)
        count = self._facts.shelf.count
        return Repository(
            name=name,
            project_id=str(uuid.UUID(bytes=self._ledger.require_project(txn, name))),
            tag_count=count(txn, notes.tags_of(repo)),
            manifest_count=count(txn, notes.manifests_of(repo)),
            size=facts.size,
            push_count=facts.push_count,
            pull_count=facts.pull_count,
            created_at=facts.created_at,
            updated_at=facts.updated_at,
            last_pulled_at=facts.last_pulled_at,
        )

    def _tag(self, txn: lmdb.Transaction, repo: bytes, tag: bytes) -> TaggedManifest:
        key = bytes(txn.get(repo + tag, db=self._contents.tags) or b"")
        of_tag = _get(txn, self._facts.tags, repo + tag, notes.decode_tag)
        facts = _get(txn, self._facts.manifests, repo + key, notes.decode_manifest)
        stored = _get(txn, self._contents.manifests, repo + key, rows.decode_manifest)
        return TaggedManifest(
            name=Tag(tag.decode()),
            digest=digest_of(key),
            media_type=stored.media_type,
            artifact_type=facts.artifact_type,
            size=facts.size,
            platforms=facts.platforms,
            pushed_at=of_tag.pushed_at,
            pushed_by=of_tag.pushed_by,
            pull_count=of_tag.pull_count,
            last_pulled_at=of_tag.last_pulled_at,
            scan_status=self._contents.scans.status(txn, repo, key),
        )

    def _manifest(self, txn: lmdb.Transaction, repo: bytes, digest: Digest) -> ListedManifest:
        key = digest_key(digest)
        facts = _get(txn, self._facts.manifests, repo + key, notes.decode_manifest)
        stored = _get(txn, self._contents.manifests, repo + key, rows.decode_manifest)
        tags = islice(scan(txn, self._contents.tagged, repo + key), MAX_TAGS)
        return ListedManifest(
            digest=digest,
            media_type=stored.media_type,
            artifact_type=facts.artifact_type,
            size=facts.size,
            tags=[Tag(tag.decode()) for tag, _ in tags],
            platforms=facts.platforms,
            subject=Digest(facts.subject) if facts.subject else None,
            referrer_count=self._facts.referrer_count(txn, repo, key),
            pushed_at=facts.pushed_at,
            pull_count=facts.pull_count,
            last_pulled_at=facts.last_pulled_at,
        )


def _get(
    txn: lmdb.Transaction, database: "lmdb._Database", key: bytes, decode: Callable[[Any], T]
) -> T:
    """Return a row that goes with one that is there."""
    return decode(txn.get(key, db=database))
