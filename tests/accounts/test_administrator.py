"""The first administrator: made once, with a password that only its owner can read."""

from pathlib import Path

from cypd.accounts.administrator import ADMINISTRATOR, ensure_administrator
from cypd.accounts.ports import User
from cypd.metadata.memory.accounts import MemoryAccounts
from cypd.refusals import Code
from tests.accounts.house import HOME, House, refused


async def start(house: House, folder: Path, configured: str = "") -> Path | None:
    """Do what each start of the daemon does."""
    return await ensure_administrator(
        house.store,
        house.users,
        house.hasher,
        configured_password=configured,
        password_file=folder / "admin-password",
    )


async def owner(house: House, password: str) -> User:
    """Return the administrator, if that is the password."""
    return await house.passwords.owner(ADMINISTRATOR, password, HOME)


async def test_a_password_is_made_up_once(house: House, tmp_path: Path) -> None:
    """The first start writes a random one, 0600, over whatever stood there; the next does not."""
    old = tmp_path / "admin-password"
    old.write_text("known\n")
    old.chmod(0o666)

    assert old == await start(house, tmp_path)
    assert old.stat().st_mode & 0o777 == 0o600
    password = old.read_text().strip()
    assert len(password) >= 32
    user = await owner(house, password)
    assert user.is_admin
    assert await start(house, tmp_path) is None
    assert user == house.store.user(user.id)


async def test_two_registries_have_two_passwords(tmp_path: Path) -> None:
    """There is no default credential."""
    passwords = set()
    for _ in range(2):
        written = await start(House(MemoryAccounts()), tmp_path)
        assert written
        passwords.add(written.read_text())

    assert len(passwords) == 2


async def test_a_configured_password_holds_at_every_start(house: House, tmp_path: Path) -> None:
    """It is written nowhere in the clear, replaces an older one, and is kept if it is the same."""
    for password in ("password one", "password one", "password two"):
        assert await start(house, tmp_path, password) is None
        assert (await owner(house, password)).is_admin
    await refused(Code.WRONG_PASSWORD, owner(house, "password one"))
    before = house.store.user_by_name(ADMINISTRATOR)
    for configured in ("password two", ""):
        await start(house, tmp_path, configured)
        assert before == house.store.user_by_name(ADMINISTRATOR)
    assert not list(tmp_path.iterdir())


async def test_a_password_changed_by_hand_stays_without_a_configured_one(
    house: House, tmp_path: Path
) -> None:
    """What the administrator chose is not undone by the next start."""
    await start(house, tmp_path)
    user = house.users.find(ADMINISTRATOR)
    await house.users.set_password(user.id, "chosen by hand")
    await start(house, tmp_path)

    await owner(house, "chosen by hand")


async def test_an_administrator_who_was_removed_stays_away(house: House, tmp_path: Path) -> None:
    """Where others look after the registry, no start makes an account that nobody asked for."""
    await start(house, tmp_path)
    await house.users.create("ada", "", "another password", is_admin=True)
    await house.users.delete(house.users.find(ADMINISTRATOR).id)
    (tmp_path / "admin-password").unlink()

    assert await start(house, tmp_path) is None
    assert await start(house, tmp_path, "configured password") is None
    assert house.store.user_by_name(ADMINISTRATOR) is None
    assert not list(tmp_path.iterdir())
