"""Accounts on LMDB. Reads: one transaction a call. Writes: one intention an operation."""

import asyncio
import struct
from collections.abc import Callable, Mapping, Sequence
from itertools import islice

import lmdb
import msgspec

from cypd.accounts.ports import Failures, PersonalToken, Session, User
from cypd.metadata.lmdb.environment import Environment
from cypd.metadata.lmdb.keys import scan, uuid_key
from cypd.refusals import Code, Refusal

_encode = msgspec.msgpack.Encoder().encode
_decode_user = msgspec.msgpack.Decoder(User).decode
_decode_token = msgspec.msgpack.Decoder(PersonalToken).decode
_decode_session = msgspec.msgpack.Decoder(Session).decode
_FAILURES = struct.Struct(">Qd")
_SWEEP_STEP = 500


_NO_ID = bytes(16)  # a UUIDv4 has bits that are set; as long as one, lest it be the start of one


def _key(text: str) -> bytes:
    """Return an id as a key; what is no id, as some request has it, as one that nothing has."""
    return uuid_key(text) or _NO_ID


class LmdbAccounts:
    """Users, their tokens and sessions; see ``keys`` for the layout."""

    def __init__(self, environment: Environment) -> None:
        self._begin = environment.lmdb.begin
        self._run = environment.writer.run
        database = environment.database
        self._users = database("users")
        self._names = database("user_names")
        self._emails = database("user_emails")
        self._tokens = database("tokens")
        self._tokens_of = database("tokens_of")
        self._sessions = database("sessions")
        self._sessions_of = database("sessions_of")
        self._failures = database("failures")

    # --- users ----------------------------------------------------------------------------------

    def user(self, user_id: str) -> User | None:
        with self._begin() as txn:
            return self._user(txn, _key(user_id))

    def user_by_name(self, name: str) -> User | None:
        return self._user_by(self._names, name)

    def user_by_email(self, email: str) -> User | None:
        return self._user_by(self._emails, email)

    def _user_by(self, index: "lmdb._Database", text: str) -> User | None:
        key = text.encode(errors="replace")
        if not 0 < len(key) <= 500:  # whatever stood in a request; LMDB has its own bounds
            return None
        with self._begin() as txn:
            user_key = txn.get(key, db=index)
            return None if user_key is None else self._user(txn, user_key)

    def users(self, *, after: str, limit: int) -> Sequence[User]:
        with self._begin() as txn:
            found = islice(scan(txn, self._names, b"", after.encode(errors="replace")[:500]), limit)
            users = [self._user(txn, key) for _, key in found]
        return [user for user in users if user is not None]

    async def create_user(self, user: User) -> None:
        def operation(txn: lmdb.Transaction) -> None:
            if txn.get(user.name.encode(), db=self._names) is not None:
                raise Refusal(Code.USER_EXISTS)
            self._require_free(txn, user.email)
            key = _key(user.id)
            txn.put(key, _encode(user), db=self._users)
            txn.put(user.name.encode(), key, db=self._names)
            if user.email:
                txn.put(user.email.encode(), key, db=self._emails)

        await self._run(operation)

    async def update_user(
        self, user_id: str, change: Callable[[User], User], *, sessions_left: str | None = None
    ) -> User:
        key = _key(user_id)

        def operation(txn: lmdb.Transaction) -> User:
            before = self._require(txn, key)
            after = change(before)
            if after.email != before.email:
                self._require_free(txn, after.email)
            self._require_administrator(txn, before, after)
            txn.put(key, _encode(after), db=self._users)
            if after.email != before.email:
                if before.email:
                    txn.delete(before.email.encode(), db=self._emails)
                if after.email:
                    txn.put(after.email.encode(), key, db=self._emails)
            if sessions_left is not None:
                self._end_sessions(txn, key, left=sessions_left)
            return after

        return await self._run(operation)

    async def delete_user(self, user_id: str) -> None:
        key = _key(user_id)

        def operation(txn: lmdb.Transaction) -> None:
            user = self._require(txn, key)
            self._require_administrator(txn, user, None)
            txn.delete(key, db=self._users)
            txn.delete(user.name.encode(), db=self._names)
            if user.email:
                txn.delete(user.email.encode(), db=self._emails)
            for token_key, token_hash in list(scan(txn, self._tokens_of, key)):
                txn.delete(token_hash, db=self._tokens)
                txn.delete(key + token_key, db=self._tokens_of)
            self._end_sessions(txn, key, left="")

        await self._run(operation)

    def _user(self, txn: lmdb.Transaction, key: bytes) -> User | None:
        record = txn.get(key, db=self._users)
        return None if record is None else _decode_user(record)

    def _require(self, txn: lmdb.Transaction, key: bytes) -> User:
        user = self._user(txn, key)
        if user is None:
            raise Refusal(Code.USER_NOT_FOUND)
        return user

    def _require_free(self, txn: lmdb.Transaction, email: str) -> None:
        if email and txn.get(email.encode(), db=self._emails) is not None:
            raise Refusal(Code.USER_EXISTS)

    def _require_administrator(
        self, txn: lmdb.Transaction, before: User, after: User | None
    ) -> None:
        """Refuse what would take the last active administrator."""
        remains = after is not None and after.is_admin and after.is_active
        if remains or not (before.is_admin and before.is_active):
            return
        others = (_decode_user(record) for _, record in scan(txn, self._users, b""))
        if not any(it.is_admin and it.is_active and it.id != before.id for it in others):
            raise Refusal(Code.NOT_IN_THIS_STATE)

    # --- personal access tokens -----------------------------------------------------------------

    def personal_token(self, token_hash: bytes) -> PersonalToken | None:
        with self._begin() as txn:
            record = txn.get(token_hash, db=self._tokens)
        return None if record is None else _decode_token(record)

    def personal_tokens(self, user_id: str) -> Sequence[PersonalToken]:
        with self._begin() as txn:
            hashes = [value for _, value in scan(txn, self._tokens_of, _key(user_id))]
            records = [txn.get(token_hash, db=self._tokens) for token_hash in hashes]
        found = [_decode_token(record) for record in records if record is not None]
        return sorted(found, key=lambda it: (-it.created_at, it.id))

    async def create_personal_token(self, token: PersonalToken, *, limit: int) -> None:
        def operation(txn: lmdb.Transaction) -> None:
            user = _key(token.user_id)
            if sum(1 for _ in islice(scan(txn, self._tokens_of, user), limit)) >= limit:
                raise Refusal(Code.NOT_IN_THIS_STATE)
            txn.put(token.hash, _encode(token), db=self._tokens)
            txn.put(user + _key(token.id), token.hash, db=self._tokens_of)

        await self._run(operation)

    async def delete_personal_token(self, user_id: str, token_id: str) -> None:
        def operation(txn: lmdb.Transaction) -> None:
            token_hash = txn.pop(_key(user_id) + _key(token_id), db=self._tokens_of)
            if token_hash is None:
                raise Refusal(Code.TOKEN_NOT_FOUND)
            txn.delete(token_hash, db=self._tokens)

        await self._run(operation)

    async def touch_personal_tokens(self, used_at: Mapping[bytes, float]) -> None:
        def operation(txn: lmdb.Transaction) -> None:
            for token_hash, moment in used_at.items():
                record = txn.get(token_hash, db=self._tokens)
                if record is not None:
                    token = msgspec.structs.replace(_decode_token(record), last_used_at=moment)
                    txn.put(token_hash, _encode(token), db=self._tokens)

        await self._run(operation)

    # --- sessions -------------------------------------------------------------------------------

    def session(self, session_id: str) -> Session | None:
        with self._begin() as txn:
            return self._session(txn, _key(session_id))

    async def open_session(self, session: Session, *, password_hash: str) -> bool:
        def operation(txn: lmdb.Transaction) -> bool:
            user = self._user(txn, _key(session.user_id))
            if user is None or not user.is_active or user.password_hash != password_hash:
                return False
            key = _key(session.id)
            txn.put(key, _encode(session), db=self._sessions)
            txn.put(_key(session.user_id) + key, b"", db=self._sessions_of)
            return True

        return await self._run(operation)

    async def rotate_session(self, session_id: str, *, old: str, new: str, until: float) -> bool:
        key = _key(session_id)

        def operation(txn: lmdb.Transaction) -> bool:
            session = self._session(txn, key)
            if session is None or session.refresh_id != old:
                self._end_session(txn, key)
                return False
            changed = msgspec.structs.replace(session, refresh_id=new, expires_at=until)
            txn.put(key, _encode(changed), db=self._sessions)
            return True

        return await self._run(operation)

    async def end_session(self, session_id: str) -> None:
        await self._run(lambda txn: self._end_session(txn, _key(session_id)))

    def _session(self, txn: lmdb.Transaction, key: bytes) -> Session | None:
        record = txn.get(key, db=self._sessions)
        return None if record is None else _decode_session(record)

    def _end_session(self, txn: lmdb.Transaction, key: bytes) -> None:
        record = txn.pop(key, db=self._sessions)
        if record is not None:
            txn.delete(_key(_decode_session(record).user_id) + key, db=self._sessions_of)

    def _end_sessions(self, txn: lmdb.Transaction, user: bytes, *, left: str) -> None:
        for key, _ in list(scan(txn, self._sessions_of, user)):
            if key != _key(left):
                self._end_session(txn, key)

    # --- failures -------------------------------------------------------------------------------

    def failures(self, key: bytes) -> Failures:
        with self._begin() as txn:
            return self._counted(txn, key)

    async def count_failure(self, keys: Sequence[bytes], *, now: float, window: float) -> None:
        def operation(txn: lmdb.Transaction) -> None:
            for key in keys:
                count, since = self._counted(txn, key)
                is_over = not since <= now < since + window
                failures = (1, now) if is_over else (count + 1, since)
                txn.put(key, _FAILURES.pack(*failures), db=self._failures)

        await self._run(operation)

    async def clear_failures(self, key: bytes) -> None:
        await self._run(lambda txn: self._forget_failures(txn, key))

    def _counted(self, txn: lmdb.Transaction, key: bytes) -> Failures:
        record = txn.get(key, db=self._failures)
        return Failures(0, 0.0) if record is None else Failures(*_FAILURES.unpack(record))

    async def sweep(self, *, now: float, window: float) -> None:
        def is_session_over(record: bytes) -> bool:
            return _decode_session(record).expires_at <= now

        def is_window_over(record: bytes) -> bool:
            _, since = _FAILURES.unpack(record)
            return not since <= now < since + window

        await self._take_over(self._sessions, is_session_over, self._end_session)
        await self._take_over(self._failures, is_window_over, self._forget_failures)

    async def _take_over(
        self,
        database: "lmdb._Database",
        is_over: Callable[[bytes], bool],
        take: Callable[[lmdb.Transaction, bytes], None],
    ) -> None:
        """Take what is over, few rows at a time: no login waits for a long read or write."""
        after = b""
        while found := self._some(database, after):
            over = [key for key, record in found if is_over(record)]

            def operation(txn: lmdb.Transaction, over: Sequence[bytes] = over) -> None:
                for key in over:
                    record = txn.get(key, db=database)
                    if record is not None and is_over(bytes(record)):
                        take(txn, key)

            if over:
                await self._run(operation)
            after = found[-1][0]
            await asyncio.sleep(0)

    def _some(self, database: "lmdb._Database", after: bytes) -> list[tuple[bytes, bytes]]:
        with self._begin() as txn:
            return list(islice(scan(txn, database, b"", after), _SWEEP_STEP))

    def _forget_failures(self, txn: lmdb.Transaction, key: bytes) -> None:
        txn.delete(key, db=self._failures)
