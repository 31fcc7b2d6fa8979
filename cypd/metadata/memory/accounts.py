"""Accounts in dictionaries."""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from cypd.accounts.ports import Failures, PersonalToken, Session, User
from cypd.refusals import Code, Refusal


class MemoryAccounts:
    """The contract of ``AccountStore``."""

    def __init__(self) -> None:
        self._users: dict[str, User] = {}
        self._tokens: dict[bytes, PersonalToken] = {}
        self._sessions: dict[str, Session] = {}
        self._failures: dict[bytes, Failures] = {}

    # --- users ----------------------------------------------------------------------------------

    def user(self, user_id: str) -> User | None:
        return self._users.get(user_id)

    def user_by_name(self, name: str) -> User | None:
        return next((it for it in self._users.values() if it.name == name), None)

    def user_by_email(self, email: str) -> User | None:
        return next((it for it in self._users.values() if email and it.email == email), None)

    def users(self, *, after: str, limit: int) -> Sequence[User]:
        found = sorted(self._users.values(), key=lambda user: user.name)
        return [user for user in found if user.name > after][:limit]

    async def create_user(self, user: User) -> None:
        if self.user_by_name(user.name) or self.user_by_email(user.email):
            raise Refusal(Code.USER_EXISTS)
        self._users[user.id] = user

    async def update_user(
        self, user_id: str, change: Callable[[User], User], *, sessions_left: str | None = None
    ) -> User:
        before = self._require(user_id)
        after = change(before)
        if after.email != before.email and self.user_by_email(after.email):
            raise Refusal(Code.USER_EXISTS)
        self._require_administrator(before, after)
        self._users[user_id] = after
        if sessions_left is not None:
            self._end_sessions(user_id, sessions_left)
        return after

    async def delete_user(self, user_id: str) -> None:
        self._require_administrator(self._require(user_id), None)
        del self._users[user_id]
        self._tokens = {key: it for key, it in self._tokens.items() if it.user_id != user_id}
        self._end_sessions(user_id, "")

    def _require(self, user_id: str) -> User:
        if user_id not in self._users:
            raise Refusal(Code.USER_NOT_FOUND)
        return self._users[user_id]

    def _require_administrator(self, before: User, after: User | None) -> None:
        users = [after if it is before else it for it in self._users.values()]
        was_one = before.is_admin and before.is_active
        if was_one and not any(it and it.is_admin and it.is_active for it in users):
            raise Refusal(Code.NOT_IN_THIS_STATE)

    # --- personal access tokens -----------------------------------------------------------------

    def personal_token(self, token_hash: bytes) -> PersonalToken | None:
        return self._tokens.get(token_hash)

    def personal_tokens(self, user_id: str) -> Sequence[PersonalToken]:
        found = [it for it in self._tokens.values() if it.user_id == user_id]
        return sorted(found, key=lambda it: (-it.created_at, it.id))

    async def create_personal_token(self, token: PersonalToken, *, limit: int) -> None:
        if len(self.personal_tokens(token.user_id)) >= limit:
            raise Refusal(Code.NOT_IN_THIS_STATE)
        self._tokens[token.hash] = token

    async def delete_personal_token(self, user_id: str, token_id: str) -> None:
        for token in self.personal_tokens(user_id):
            if token.id == token_id:
                del self._tokens[token.hash]
                return
        raise Refusal(Code.TOKEN_NOT_FOUND)

    async def touch_personal_tokens(self, used_at: Mapping[bytes, float]) -> None:
        for key, moment in used_at.items():
            if key in self._tokens:
                self._tokens[key] = msgspec.structs.replace(self._tokens[key], last_used_at=moment)

    # --- sessions -------------------------------------------------------------------------------

    def session(self, session_id: str) -> Session | None:
        return self._sessions.get(session_id)

    async def open_session(self, session: Session, *, password_hash: str) -> bool:
        user = self._users.get(session.user_id)
        if user is None or not user.is_active or user.password_hash != password_hash:
            return False
        self._sessions[session.id] = session
        return True

    async def rotate_session(self, session_id: str, *, old: str, new: str, until: float) -> bool:
        session = self._sessions.get(session_id)
        if session is None or session.refresh_id != old:
            self._sessions.pop(session_id, None)
            return False
        changed = msgspec.structs.replace(session, refresh_id=new, expires_at=until)
        self._sessions[session_id] = changed
        return True

    async def end_session(self, session_id: str) -> None:
        self._sessions.pop(session_id, None)

    def _end_sessions(self, user_id: str, left: str) -> None:
        for session in list(self._sessions.values()):
            if session.user_id == user_id and session.id != left:
                del self._sessions[session.id]

    # --- failures -------------------------------------------------------------------------------

    def failures(self, key: bytes) -> Failures:
        return self._failures.get(key, Failures(0, 0.0))

    async def count_failure(self, keys: Sequence[bytes], *, now: float, window: float) -> None:
        for key in keys:
            count, since = self.failures(key)
            is_over = not since <= now < since + window
            self._failures[key] = Failures(1, now) if is_over else Failures(count + 1, since)

    async def clear_failures(self, key: bytes) -> None:
        self._failures.pop(key, None)

    async def sweep(self, *, now: float, window: float) -> None:
        for session in list(self._sessions.values()):
            if session.expires_at <= now:
                del self._sessions[session.id]
        for key, (_, since) in list(self._failures.items()):
            if not since <= now < since + window:
                del self._failures[key]
