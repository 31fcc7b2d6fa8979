"""Wrong passwords and codes slow down whoever sends them, and whoever they are sent for.

Counted in the metadata store, so that neither a restart nor another process starts anew. Personal
access tokens are not asked about here: nobody can guess one, so nobody can lock its owner out.
"""

import time
from dataclasses import dataclass
from hashlib import blake2b
from math import ceil

from cypd.accounts.ports import AccountStore
from cypd.refusals import Code, Refusal
from cypd.sources import source


@dataclass(frozen=True)
class Throttle:
    """How many failures are borne, and for how long one counts (seconds)."""

    store: AccountStore
    per_account: int
    per_address: int
    window: float

    def require_patience(self, account: str, address: str) -> None:
        """Raise TOO_MANY_FAILURES or ADDRESS_BLOCKED, each with ``Retry-After``."""
        self._require(_account(account), self.per_account, Code.TOO_MANY_FAILURES)
        self._require(_source(address), self.per_address, Code.ADDRESS_BLOCKED)

    def _require(self, key: bytes, most: int, code: Code) -> None:
        number, since = self.store.failures(key)
        left = since + self.window - time.time()
        if number >= most and 0 < left <= self.window:
            raise Refusal(code, headers={"Retry-After": str(ceil(left))})

    async def count(self, account: str, address: str) -> None:
        """Count a failure, of names that do not exist as of those that do."""
        keys = [_account(account), _source(address)]
        await self.store.count_failure(keys, now=time.time(), window=self.window)

    async def clear(self, account: str) -> None:
        """Forget an account's failures: it was its owner after all."""
        if self.store.failures(_account(account)).number:
            await self.store.clear_failures(_account(account))


def _account(name: str) -> bytes:
    return blake2b(b"account " + name.encode(errors="replace"), digest_size=16).digest()


def _source(address: str) -> bytes:
    return blake2b(f"address {source(address)}".encode(errors="replace"), digest_size=16).digest()
