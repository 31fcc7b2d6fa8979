"""argon2id in a few threads that give way to everything else."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from cypd.refusals import Code, Refusal

T = TypeVar("T")

# OWASP's Password Storage Cheat Sheet, the minimum for argon2id. RFC 9106's second recommendation
# (64 MiB, 3 passes) takes 7 times as long: 0.2 s of a core for each login, and for each guess.
_hasher = PasswordHasher(time_cost=2, memory_cost=19 << 10, parallelism=1)
_THREADS = 2
_MOST_WAITING = 64
_NICENESS = 10


def hash_password(password: str) -> str:
    """Return the PHC string of a password. Takes tens of milliseconds and 19 MiB."""
    return _hasher.hash(password)


def verify_password(password_hash: str, password: str) -> bool:
    """Tell whether it is that password. Takes tens of milliseconds and 19 MiB."""
    try:
        return _hasher.verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False


class PasswordPool:
    """The ``Hasher``: two threads, and a bounded number of those that wait for one.

    Wrong passwords must not take the machine: so the threads are nice (on Linux a thread has a
    niceness of its own), and who comes when many wait is sent away.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(
            _THREADS, thread_name_prefix="argon2", initializer=_give_way
        )
        self._waiting = 0

    async def hash(self, password: str) -> str:
        return await self._run(hash_password, password)

    async def verify(self, password_hash: str, password: str) -> bool:
        return await self._run(verify_password, password_hash, password)

    async def _run(self, function: Callable[..., T], *arguments: str) -> T:
        if self._waiting >= _MOST_WAITING:
            raise Refusal(Code.TOO_MANY_REQUESTS, headers={"Retry-After": "1"})
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._pool, function, *arguments)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _give_way() -> None:
    with contextlib.suppress(OSError):  # a sandbox may forbid it; then they compete
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
