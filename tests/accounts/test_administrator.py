"""The first administrator: made once, with a password that only its owner can read."""

from pathlib import Path

from cypd.accounts.administrator import ADMINISTRATOR, ensure_administrator
from cypd.metadata.memory.accounts import MemoryAccounts


async def ensure(store: MemoryAccounts, folder: Path, configured: str = "") -> Path | None:
    """Ensure the administrator, with hashes that can be read."""
    return await ensure_administrator(
        store,
        lambda password: f"hash of {password}",
        lambda password_hash, password: password_hash == f"hash of {password}",
        configured_password=configured,
        password_file=folder / "admin-password",
    )


async def test_a_password_is_made_up_once(tmp_path: Path) -> None:
    """The first start writes a random one, 0600, over whatever stood there; the next does not."""
    old = tmp_path / "admin-password"
    old.write_text("known\n")
    old.chmod(0o666)
    store = MemoryAccounts()
    written = await ensure(store, tmp_path)

    assert written == old
    assert old.stat().st_mode & 0o777 == 0o600
    password = old.read_text().strip()
    assert len(password) >= 32
    user = store.user(ADMINISTRATOR)
    assert user is not None
    assert (f"hash of {password}", True) == (user.password_hash, user.is_admin)
    assert await ensure(store, tmp_path) is None
    assert user is store.user(ADMINISTRATOR)


async def test_two_registries_have_two_passwords(tmp_path: Path) -> None:
    """There is no default credential."""
    passwords = set()
    for _ in range(2):
        written = await ensure(MemoryAccounts(), tmp_path)
        assert written
        passwords.add(written.read_text())

    assert len(passwords) == 2


async def test_a_configured_password_holds_at_every_start(tmp_path: Path) -> None:
    """It is written nowhere in the clear, replaces an older one, and is kept if it is the same."""
    store = MemoryAccounts()
    for password in ("one", "one", "two"):
        assert await ensure(store, tmp_path, password) is None
        user = store.user(ADMINISTRATOR)
        assert user is not None
        assert f"hash of {password}" == user.password_hash
    assert not list(tmp_path.iterdir())
    before = store.user(ADMINISTRATOR)
    await ensure(store, tmp_path)
    assert before is store.user(ADMINISTRATOR)
