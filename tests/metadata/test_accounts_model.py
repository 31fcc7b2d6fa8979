"""Accounts in LMDB against the model: whatever is done to both, they answer the same."""

import asyncio
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec.structs import replace

from cypd.accounts.ports import PersonalToken, Session, User
from cypd.metadata.lmdb import LmdbMetadata
from cypd.metadata.memory import MemoryMetadata
from cypd.refusals import Code, Refusal

pytestmark = pytest.mark.timeout(300)

IDS = [f"{number:08x}-0000-4000-8000-00000000000{number}" for number in range(3)]
NAMES, ADDRESSES = ["a", "ab", "b"], ["", "a@example.org", "b@example.org"]
TOKEN_IDS = [f"10000000-0000-4000-8000-00000000000{number}" for number in range(3)]
SESSION_IDS = [f"20000000-0000-4000-8000-00000000000{number}" for number in range(3)]
HASHES = [bytes([number]) * 32 for number in range(3)]
KEYS = [b"a" * 16, b"b" * 16]
WINDOW = 60.0
NO_IDS = ["", "x", IDS[1].upper().replace("-", "")]
users = st.sampled_from([*IDS, *NO_IDS])
tokens = st.sampled_from([*TOKEN_IDS, *NO_IDS])
sessions = st.sampled_from([*SESSION_IDS, *NO_IDS])
refreshes = st.sampled_from(["r1", "r2"])
moments = st.sampled_from([1000.0, 1030.0, 1060.0, 1090.0])


class AccountsAgainstModel(RuleBasedStateMachine):
    """Every write goes to both stores; outcome and all reads have to agree."""

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        self.model = MemoryMetadata()
        self.store = LmdbMetadata(Path(self.folder.name), 16 << 20)

    def both(self, method: str, *arguments: Any, **keywords: Any) -> None:
        """Run a write on both stores and compare what it returns or refuses."""
        outcomes = [
            self.outcome(getattr(store.accounts, method)(*arguments, **keywords))
            for store in (self.model, self.store)
        ]
        assert outcomes[0] == outcomes[1]

    def outcome(self, write: Coroutine[Any, Any, Any]) -> tuple[Any, Code | None]:
        """Return (result, refusal's code)."""
        try:
            return self.loop.run_until_complete(write), None
        except Refusal as refusal:
            return None, refusal.code

    @rule(
        user_id=st.sampled_from(IDS),
        name=st.sampled_from(NAMES),
        email=st.sampled_from(ADDRESSES),
        is_admin=st.booleans(),
    )
    def create_user(self, user_id: str, name: str, email: str, is_admin: bool) -> None:
        if self.model.accounts.user(user_id) is None:  # ids are random: none is given twice
            user = User(id=user_id, name=name, password_hash="h", email=email, is_admin=is_admin)
            self.both("create_user", user)

    @rule(
        user_id=users,
        changed=st.fixed_dictionaries(
            {},
            optional={
                "email": st.sampled_from(ADDRESSES),
                "is_admin": st.booleans(),
                "is_active": st.booleans(),
                "totp_step": st.just(7),
            },
        ),
        left=st.none() | sessions,
    )
    def update_user(self, user_id: str, changed: dict[str, Any], left: str | None) -> None:
        change: Callable[[User], User] = lambda user: replace(user, **changed)  # noqa: E731
        self.both("update_user", user_id, change, sessions_left=left)

    @rule(user_id=users)
    def delete_user(self, user_id: str) -> None:
        self.both("delete_user", user_id)

    @rule(number=st.integers(0, 2), user_id=st.sampled_from(IDS), at=moments)
    def create_token(self, number: int, user_id: str, at: float) -> None:
        if self.model.accounts.personal_token(HASHES[number]) is None:  # as for users
            token = PersonalToken(
                id=TOKEN_IDS[number],
                user_id=user_id,
                name="t",
                hash=HASHES[number],
                scopes=("read",),
                created_at=at,
            )
            self.both("create_personal_token", token, limit=2)

    @rule(user_id=users, token_id=tokens)
    def delete_token(self, user_id: str, token_id: str) -> None:
        self.both("delete_personal_token", user_id, token_id)

    @rule(used=st.dictionaries(st.sampled_from(HASHES), moments))
    def touch(self, used: dict[bytes, float]) -> None:
        self.both("touch_personal_tokens", used)

    @rule(
        session_id=st.sampled_from(SESSION_IDS),
        user_id=st.sampled_from(IDS),
        until=moments,
        password_hash=st.sampled_from(["h", "h", "h", "another"]),
    )
    def open_session(self, session_id: str, user_id: str, until: float, password_hash: str) -> None:
        if self.model.accounts.session(session_id) is None:  # as for users
            session = Session(
                id=session_id,
                user_id=user_id,
                refresh_id="r1",
                created_at=1000.0,
                expires_at=until,
            )
            self.both("open_session", session, password_hash=password_hash)

    @rule(session_id=sessions, old=refreshes, new=refreshes, until=moments)
    def rotate(self, session_id: str, old: str, new: str, until: float) -> None:
        self.both("rotate_session", session_id, old=old, new=new, until=until)

    @rule(session_id=sessions)
    def end_session(self, session_id: str) -> None:
        self.both("end_session", session_id)

    @rule(keys=st.lists(st.sampled_from(KEYS)), now=moments)
    def count(self, keys: list[bytes], now: float) -> None:
        self.both("count_failure", keys, now=now, window=WINDOW)

    @rule(key=st.sampled_from(KEYS))
    def clear(self, key: bytes) -> None:
        self.loop.run_until_complete(self.model.accounts.clear_failures(key))
        self.loop.run_until_complete(self.store.accounts.clear_failures(key))

    @rule(now=moments)
    def sweep(self, now: float) -> None:
        self.both("sweep", now=now, window=WINDOW)

    @rule()
    def reopen(self) -> None:
        """A restart changes nothing."""
        self.store.close()
        self.store = LmdbMetadata(Path(self.folder.name), 16 << 20)

    @invariant()
    def all_reads_agree(self) -> None:
        """There is no question that the two answer differently."""
        assert self.look(self.model) == self.look(self.store)

    def look(self, metadata: MemoryMetadata | LmdbMetadata) -> list[Any]:
        """Return all answers about accounts."""
        store = metadata.accounts
        view: list[Any] = [list(store.users(after=after, limit=2)) for after in ("", "a", "aa")]
        view += [store.user(user_id) for user_id in (*IDS, *NO_IDS)]
        view += [list(store.personal_tokens(user_id)) for user_id in (*IDS, *NO_IDS)]
        view += [store.user_by_name(name) for name in (*NAMES, "")]
        view += [store.user_by_email(address) for address in ADDRESSES]
        view += [store.personal_token(token_hash) for token_hash in HASHES]
        view += [store.session(session_id) for session_id in (*SESSION_IDS, *NO_IDS)]
        return view + [store.failures(key) for key in KEYS]

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.loop.close()
            self.folder.cleanup()


TestAccountsAgainstModel = AccountsAgainstModel.TestCase
TestAccountsAgainstModel.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
