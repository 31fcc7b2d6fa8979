"""Passwords: checked slowly by intent, so remembered for a minute, and throttled when wrong."""

import secrets
import time
from asyncio import Future, Semaphore, ensure_future, shield
from collections import OrderedDict
from hashlib import blake2b

from cypd.accounts.names import canonical
from cypd.accounts.ports import AccountStore, Hasher, User
from cypd.accounts.throttle import Throttle
from cypd.refusals import Code, Refusal, invalid

# NIST SP 800-63B section 5.1.1: at least 8, and at least 64 must be allowed; hashing a megabyte of
# password is somebody's attack.
MIN_PASSWORD, MAX_PASSWORD = 8, 1024
_MEMORY_SECONDS = 60.0
_MEMORY_ENTRIES = 1024
_AT_ONCE, _MOST_WAITING = 2, 64


def require_good(password: str, name: str, field: str = "password") -> None:
    """Raise VALIDATION_FAILED for a password that nobody should have."""
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise invalid(field, f"a password has {MIN_PASSWORD} to {MAX_PASSWORD} characters")
    if canonical(password) == name:
        raise invalid(field, "a password is not the user's name")


class Passwords:
    """Tells whose password one is.

    CI jobs send theirs with each request: one that was right is remembered, by a keyed hash of what
    was sent, and for the very password hash it was checked against. So a changed password is
    forgotten at once, whichever process changed it.
    """

    def __init__(self, store: AccountStore, hasher: Hasher, throttle: Throttle, decoy: str) -> None:
        """``decoy``: a hash of no password, checked for names that do not exist."""
        self._store = store
        self._hasher = hasher
        self._throttle = throttle
        self._decoy = decoy
        self._key = secrets.token_bytes(32)
        self._memory: OrderedDict[bytes, tuple[str, float]] = OrderedDict()
        self._checking: dict[tuple[bytes, str], Future[bool]] = {}
        self._turns = Semaphore(_AT_ONCE)

    async def owner(self, login: str, password: str, address: str) -> User:
        """Return the user of that name or email address, if that is their password.

        Raises WRONG_PASSWORD, for a name that does not exist too and in the same time;
        ACCOUNT_DISABLED once the password was right; TOO_MANY_FAILURES, ADDRESS_BLOCKED,
        TOO_MANY_REQUESTS.
        """
        account = canonical(login)
        user = self._store.user_by_name(account) or self._store.user_by_email(account)
        account = user.name if user else account
        expected = user.password_hash if user else self._decoy
        proof = self._proof(account, password)
        if not self._remembers(proof, expected):
            self._throttle.require_patience(account, address)
            if not await self._check(proof, user, password, account, address) or user is None:
                raise Refusal(Code.WRONG_PASSWORD)
            self._remember(proof, expected)
            if not user.has_second_factor:  # else it clears: half a proof buys no more guesses
                await self._throttle.clear(account)
        if user is None:
            raise Refusal(Code.WRONG_PASSWORD)
        if not user.is_active:
            raise Refusal(Code.ACCOUNT_DISABLED)
        return user

    def _proof(self, account: str, password: str) -> bytes:
        # The account's length first: bytes must not move from one part to the other.
        text = f"{len(account)} {account}{password}".encode(errors="replace")
        return blake2b(text, key=self._key, digest_size=32).digest()

    async def _check(
        self, proof: bytes, user: User | None, password: str, account: str, address: str
    ) -> bool:
        """Hash once, and count one failure, for all who send the same at the same time.

        The jobs of a pipeline do, and a password that is stale in all of them is no attack.
        """
        key = proof, user.password_hash if user else self._decoy
        running = self._checking.get(key)
        if running is None:
            if len(self._checking) >= _MOST_WAITING:
                raise Refusal(Code.TOO_MANY_REQUESTS, headers={"Retry-After": "1"})
            running = ensure_future(self._verify(user, password, account, address))
            self._checking[key] = running
            running.add_done_callback(lambda done: self._forget(key, done))
        return await shield(running)  # one that goes away does not cancel it for the rest

    def _forget(self, key: tuple[bytes, str], done: Future[bool]) -> None:
        del self._checking[key]
        if not done.cancelled():
            done.exception()  # of interest to nobody, if all who waited have gone

    async def _verify(self, user: User | None, password: str, account: str, address: str) -> bool:
        expected = user.password_hash if user else self._decoy
        async with self._turns:
            # Those that came at once were all let in: as each has its turn, it counts what the
            # others were.
            self._throttle.require_patience(account, address)
            right = len(password) <= MAX_PASSWORD and await self._hasher.verify(expected, password)
            if user is not None and right:
                return True
            await self._throttle.count(account, address)
            return False

    def _remembers(self, proof: bytes, password_hash: str) -> bool:
        known = self._memory.get(proof)
        return known is not None and known[0] == password_hash and known[1] > time.monotonic()

    def _remember(self, proof: bytes, password_hash: str) -> None:
        self._memory[proof] = password_hash, time.monotonic() + _MEMORY_SECONDS
        self._memory.move_to_end(proof)
        if len(self._memory) > _MEMORY_ENTRIES:
            self._memory.popitem(last=False)
