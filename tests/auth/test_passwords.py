"""argon2id, and the threads it is worked out in."""

import asyncio
import os
import threading
from collections.abc import Iterator

import pytest

from cypd.auth import passwords
from cypd.auth.passwords import PasswordPool, hash_password, verify_password
from cypd.refusals import Code, Refusal

PASSWORD = "päss:word"


@pytest.fixture
def pool() -> Iterator[PasswordPool]:
    """A pool, closed afterwards."""
    pool = PasswordPool()
    yield pool
    pool.close()


def test_passwords_are_argon2id() -> None:
    """OWASP's parameters, a salt for each hash, and what is no hash never matches."""
    password_hash = hash_password(PASSWORD)

    assert password_hash.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert password_hash != hash_password(PASSWORD)
    assert verify_password(password_hash, PASSWORD)
    for wrong in ("", "other", PASSWORD + "\0", PASSWORD.upper()):
        assert not verify_password(password_hash, wrong)
    for broken in ("", "nonsense", "$argon2id$v=19$m=19456,t=2,p=1$", password_hash[:-4]):
        assert not verify_password(broken, PASSWORD)


async def test_a_pool_hashes_and_verifies(pool: PasswordPool) -> None:
    """Off the event loop, and with the same answers."""
    password_hash = await pool.hash(PASSWORD)

    assert await pool.verify(password_hash, PASSWORD)
    assert not await pool.verify(password_hash, "other")


async def test_who_comes_when_many_wait_is_sent_away(
    pool: PasswordPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixty-four are waited for; the next is told to come again, and may once there is room."""
    gate = threading.Event()
    monkeypatch.setattr(passwords, "verify_password", lambda *_: gate.wait(30))
    waiting = [asyncio.create_task(pool.verify("hash", PASSWORD)) for _ in range(64)]
    await asyncio.sleep(0)
    for call in (pool.verify("hash", PASSWORD), pool.hash(PASSWORD)):
        with pytest.raises(Refusal) as refusal:
            await call
        assert Code.TOO_MANY_REQUESTS is refusal.value.code
        assert int(refusal.value.headers["Retry-After"]) > 0
    gate.set()

    assert [True] * 64 == await asyncio.gather(*waiting)
    assert await pool.verify("hash", PASSWORD)


async def test_a_check_that_fails_makes_room(
    pool: PasswordPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever becomes of those who waited, their places are free again."""

    def fail(*_: str) -> bool:
        raise MemoryError

    monkeypatch.setattr(passwords, "verify_password", fail)
    for _ in range(2):
        answers = await asyncio.gather(
            *(pool.verify("hash", PASSWORD) for _ in range(64)), return_exceptions=True
        )
        assert all(isinstance(it, MemoryError) for it in answers)


async def test_threads_give_way(pool: PasswordPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are nicer than the one that serves requests, which stays as it was."""
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    nice: list[int] = []

    def note(*_: str) -> bool:
        nice.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return True

    monkeypatch.setattr(passwords, "verify_password", note)
    await pool.verify("hash", PASSWORD)

    assert [max(10, before)] == nice
    assert before == os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
