"""Projects on LMDB."""

from collections.abc import Sequence
from itertools import islice

import lmdb
import msgspec

from cypd.access import Act
from cypd.metadata.lmdb.contents import Contents
from cypd.metadata.lmdb.environment import Environment
from cypd.metadata.lmdb.journal import Journal, level
from cypd.metadata.lmdb.keys import scan, uuid_key
from cypd.metadata.lmdb.ledger import NOTHING, Ledger
from cypd.metadata.lmdb.webhooks import LmdbWebhooks
from cypd.projects.ports import Changes, Holding, Member, Project, Role, Standing, Totals, Usage
from cypd.refusals import Code, Refusal


class _Bound(msgspec.Struct, frozen=True):
    """What is wanted of many projects."""

    id: str
    name: str
    storage_quota: int


_encode = msgspec.msgpack.Encoder().encode
_decode_project = msgspec.msgpack.Decoder(Project).decode
_decode_bound = msgspec.msgpack.Decoder(_Bound).decode
_decode_member = msgspec.msgpack.Decoder(Member).decode


class LmdbProjects:
    """The contract of ``ProjectStore``; see ``keys`` for the layout."""

    def __init__(
        self,
        environment: Environment,
        contents: Contents,
        ledger: Ledger,
        journal: Journal,
        webhooks: LmdbWebhooks,
    ) -> None:
        self._begin = environment.lmdb.begin
        self._run = environment.writer.run
        self._projects = environment.database("projects")
        self._names = environment.database("project_names")
        self._members = environment.database("members")
        self._guarded = environment.database("guarded")
        self._contents = contents
        self._ledger = ledger
        self._journal = journal
        self._webhooks = webhooks

    # --- reads ----------------------------------------------------------------------------------

    def project(self, project_id: str) -> Project | None:
        key = uuid_key(project_id)
        with self._begin() as txn:
            return self._get(txn, key) if key else None

    def standing(self, name: str, user_id: str) -> Standing | None:
        with self._begin() as txn:
            key = txn.get(name.encode()[:500], db=self._names) if name else None
            project = self._get(txn, key) if key else None
            if key is None or project is None:
                return None
            member = self._member(txn, key, user_id)
        return Standing(project, member.role if member else None)

    def projects(self, *, after: str, limit: int) -> Sequence[Project]:
        with self._begin() as txn:
            keys = islice(scan(txn, self._names, b"", after.encode()[:500]), limit)
            found = [self._get(txn, key) for _, key in keys]
        return [project for project in found if project]

    def member(self, project_id: str, user_id: str) -> Member | None:
        key = uuid_key(project_id)
        with self._begin() as txn:
            return self._member(txn, key, user_id) if key else None

    def members(self, project_id: str) -> Sequence[Member]:
        key = uuid_key(project_id)
        with self._begin() as txn:
            return self._all_members(txn, key) if key else []

    def usage(self, project_id: str) -> Usage:
        with self._begin() as txn:
            return self._ledger.usage(txn, uuid_key(project_id) or b"-")

    def totals(self) -> Totals:
        with self._begin() as txn:
            return self._ledger.totals(txn)

    def holdings(self, *, after: str, limit: int) -> Sequence[Holding]:
        start = uuid_key(after) or b""
        with self._begin() as txn, txn.cursor(db=self._projects) as cursor:
            rows = dict(islice(cursor.iternext(), limit)) if _move_past(cursor, start) else {}
            usages = self._ledger.usages(txn, min(rows), max(rows)) if rows else {}
        found = []
        for key, record in rows.items():
            it, usage = _decode_bound(record), usages.get(key, NOTHING)
            found.append(Holding(it.id, it.name, it.storage_quota, usage.used, usage.reserved))
        return found

    # --- writes ---------------------------------------------------------------------------------

    async def create_project(self, project: Project) -> None:
        def operation(txn: lmdb.Transaction) -> None:
            self._require_free(txn, project.name)
            key = uuid_key(project.id) or b""
            self._put(txn, key, project)
            self._put_member(txn, key, Member(project.owner_id, Role.OWNER, project.created_at))

        await self._run(operation)

    async def change_project(self, project_id: str, changes: Changes) -> Project:
        def operation(txn: lmdb.Transaction) -> Project:
            key, before = self._require(txn, project_id)
            project = changes.applied_to(before)
            if project.name != before.name:
                self._require_free(txn, project.name)
                if not self._contents.is_empty(txn, before.name):
                    raise Refusal(Code.NOT_IN_THIS_STATE)
                self._contents.forget_names(txn, key, before.name)
                txn.delete(before.name.encode(), db=self._names)
                txn.delete(before.name.encode(), db=self._guarded)
            self._put(txn, key, project)
            used = self._ledger.usage(txn, key).used
            self._journal.note_level(txn, project, used, level(used, before.bound))
            return project

        return await self._run(operation)

    async def delete_project(self, project_id: str, *, force: bool, limit: int) -> bool:
        def operation(txn: lmdb.Transaction) -> bool:
            key, project = self._require(txn, project_id)
            if not force and self._ledger.usage(txn, key).image_count:
                raise Refusal(Code.NOT_IN_THIS_STATE)
            if not self._contents.empty(txn, key, project.name, limit):
                return False
            self._contents.forget_names(txn, key, project.name)
            self._ledger.close(txn, key)
            self._webhooks.remove_all(txn, key)
            for member in self._all_members(txn, key):
                txn.delete(key + member.user_id.encode(), db=self._members)
            txn.delete(project.name.encode(), db=self._names)
            txn.delete(project.name.encode(), db=self._guarded)
            txn.delete(key, db=self._projects)
            return True

        return await self._run(operation)

    async def add_member(self, project_id: str, member: Member, *, act: Act) -> None:
        def operation(txn: lmdb.Transaction) -> None:
            key, project = self._require(txn, project_id)
            if self._member(txn, key, member.user_id):
                raise Refusal(Code.NOT_IN_THIS_STATE)
            self._put_member(txn, key, member)
            self._note(txn, project, act, "added", member)

        await self._run(operation)

    async def set_role(self, project_id: str, user_id: str, role: Role, *, act: Act) -> Member:
        def operation(txn: lmdb.Transaction) -> Member:
            key, project = self._require(txn, project_id)
            member = self._require_member(txn, key, user_id)
            changed = msgspec.structs.replace(member, role=role)
            if role is not Role.OWNER:
                self._replace_owner(txn, key, project, user_id)
            self._put_member(txn, key, changed)
            self._note(txn, project, act, "changed", changed)
            return changed

        return await self._run(operation)

    async def remove_member(self, project_id: str, user_id: str, *, act: Act) -> None:
        def operation(txn: lmdb.Transaction) -> None:
            key, project = self._require(txn, project_id)
            member = self._require_member(txn, key, user_id)
            self._replace_owner(txn, key, project, user_id)
            txn.delete(key + user_id.encode(), db=self._members)
            self._note(txn, project, act, "removed", member)

        await self._run(operation)

    def _note(
        self, txn: lmdb.Transaction, project: Project, act: Act, change: str, member: Member
    ) -> None:
        details = {"change": change, "user_id": member.user_id, "role": member.role.word}
        self._journal.note(txn, "member", project, act, details=details)

    # --- pieces of operations -------------------------------------------------------------------

    def _get(self, txn: lmdb.Transaction, key: bytes) -> Project | None:
        record = txn.get(key, db=self._projects)
        return None if record is None else _decode_project(record)

    def _require(self, txn: lmdb.Transaction, project_id: str) -> tuple[bytes, Project]:
        key = uuid_key(project_id)
        project = self._get(txn, key) if key else None
        if key is None or project is None:
            raise Refusal(Code.PROJECT_NOT_FOUND)
        return key, project

    def _require_free(self, txn: lmdb.Transaction, name: str) -> None:
        if txn.get(name.encode(), db=self._names) is not None:
            raise Refusal(Code.PROJECT_EXISTS)

    def _put(self, txn: lmdb.Transaction, key: bytes, project: Project) -> None:
        name = project.name.encode()
        txn.put(name, key, db=self._names)
        txn.put(key, _encode(project), db=self._projects)
        if project.scan_policy.is_set:
            txn.put(name, b"", db=self._guarded)
        else:
            txn.delete(name, db=self._guarded)

    def _member(self, txn: lmdb.Transaction, key: bytes, user_id: str) -> Member | None:
        record = txn.get(key + user_id.encode()[:400], db=self._members)
        return None if record is None else _decode_member(record)

    def _require_member(self, txn: lmdb.Transaction, key: bytes, user_id: str) -> Member:
        member = self._member(txn, key, user_id)
        if member is None:
            raise Refusal(Code.MEMBER_NOT_FOUND)
        return member

    def _all_members(self, txn: lmdb.Transaction, key: bytes) -> list[Member]:
        return [_decode_member(record) for _, record in scan(txn, self._members, key)]

    def _put_member(self, txn: lmdb.Transaction, key: bytes, member: Member) -> None:
        txn.put(key + member.user_id.encode(), _encode(member), db=self._members)

    def _replace_owner(
        self, txn: lmdb.Transaction, key: bytes, project: Project, leaving: str
    ) -> None:
        """Let somebody be owner no longer, if others are."""
        owners = [it for it in self._all_members(txn, key) if it.role is Role.OWNER]
        others = [it for it in owners if it.user_id != leaving]
        if owners and not others:
            raise Refusal(Code.NOT_IN_THIS_STATE)
        if project.owner_id == leaving:
            first = min(others, key=lambda it: (it.added_at, it.user_id))
            self._put(txn, key, msgspec.structs.replace(project, owner_id=first.user_id))


def _move_past(cursor: lmdb.Cursor, key: bytes) -> bool:
    """Go to the first entry behind a key; tell whether there is one."""
    found = cursor.set_range(key)
    return cursor.next() if found and key and cursor.key() == key else found
