"""Wrong passwords slow down whoever sends them, and whoever they are sent for."""

import pytest

from cypd.accounts.throttle import Throttle
from cypd.metadata.memory.accounts import MemoryAccounts
from cypd.refusals import Code, Refusal
from tests.accounts.house import ELSEWHERE, HOME, PASSWORD, WINDOW, Clock, House, refused


@pytest.fixture
def throttle(clock: Clock) -> Throttle:
    """Three failures of an account and five of an address are borne."""
    return Throttle(MemoryAccounts(), 3, 5, WINDOW)


def verdict(throttle: Throttle, account: str, address: str) -> Code | None:
    """Return what is refused, if anything."""
    try:
        throttle.require_patience(account, address)
    except Refusal as refusal:
        assert 429 == refusal.code.status
        assert 1 <= int(refusal.headers["Retry-After"]) <= WINDOW
        return refusal.code
    return None


async def test_an_account_is_throttled_wherever_it_is_guessed_at(throttle: Throttle) -> None:
    """The failures of all addresses add up; another account is not concerned."""
    for number in range(3):
        assert verdict(throttle, "ada", HOME) is None
        await throttle.count("ada", f"203.0.113.{number}")

    assert Code.TOO_MANY_FAILURES is verdict(throttle, "ada", HOME)
    assert verdict(throttle, "bob", HOME) is None


async def test_an_address_is_throttled_whatever_it_guesses_at(throttle: Throttle) -> None:
    """The failures for all accounts add up, of names that do not exist too."""
    for number in range(5):
        assert verdict(throttle, "ada", HOME) is None
        await throttle.count(f"nobody-{number}", HOME)

    assert Code.ADDRESS_BLOCKED is verdict(throttle, "ada", HOME)
    assert verdict(throttle, "ada", ELSEWHERE) is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", True),
        ("2001:db8::1", "2001:0DB8:0:0::2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("fe80::1%eth0", "fe80::1%eth1", True),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("192.0.2.1", "192.0.2.2", False),
        ("", "unix", False),
        ("\ud800", "192.0.2.2", False),
    ],
)
async def test_what_one_customer_has_is_one_address(
    throttle: Throttle, one: str, other: str, same: bool
) -> None:
    """A /64 of IPv6 is one; an IPv4 address is one, also as IPv6 wraps it."""
    for number in range(5):
        await throttle.count(f"nobody-{number}", one)

    assert Code.ADDRESS_BLOCKED is verdict(throttle, "ada", one)
    assert (Code.ADDRESS_BLOCKED if same else None) is verdict(throttle, "ada", other)


async def test_it_is_over_when_it_says(throttle: Throttle, clock: Clock) -> None:
    """``Retry-After`` is what is left of the window, in whole seconds, and then it is over."""
    for _ in range(3):
        await throttle.count("ada", HOME)
    clock.now += 100.5
    with pytest.raises(Refusal) as refusal:
        throttle.require_patience("ada", ELSEWHERE)
    assert "500" == refusal.value.headers["Retry-After"]
    clock.now += 499.4
    assert Code.TOO_MANY_FAILURES is verdict(throttle, "ada", ELSEWHERE)
    clock.now += 0.2
    assert verdict(throttle, "ada", ELSEWHERE) is None
    await throttle.count("ada", HOME)
    assert verdict(throttle, "ada", ELSEWHERE) is None  # counted from one anew


async def test_a_clock_that_was_set_back_locks_nobody_out(throttle: Throttle, clock: Clock) -> None:
    """Failures of the future do not count."""
    for _ in range(3):
        await throttle.count("ada", HOME)
    clock.now -= 1000

    assert verdict(throttle, "ada", HOME) is None


async def test_a_restart_forgets_nothing(throttle: Throttle) -> None:
    """Another throttle over the same store, of another process or of the next one, counts on."""
    for _ in range(3):
        await throttle.count("ada", HOME)

    assert Code.TOO_MANY_FAILURES is verdict(Throttle(throttle.store, 3, 5, WINDOW), "ada", HOME)


async def test_success_forgives_the_account_and_not_the_address(house: House, clock: Clock) -> None:
    """One right password of one's own buys no guesses at those of others."""
    await house.person("ada")
    for _ in range(3):
        for _ in range(2):
            await refused(Code.WRONG_PASSWORD, house.passwords.owner("ada", "wrong", HOME))
        await House(house.store).passwords.owner("ada", PASSWORD, HOME)
    for name in ("one", "two"):
        await refused(Code.WRONG_PASSWORD, house.passwords.owner(name, "wrong", HOME))

    await refused(Code.ADDRESS_BLOCKED, house.passwords.owner("ada", PASSWORD, HOME))


async def test_spellings_share_their_failures(house: House, clock: Clock) -> None:
    """An account is guessed at by name and by address three times in all, not each."""
    await house.person("ada", "ada@example.org")
    for login in ("ada", "ADA", "ada@example.org"):
        await refused(Code.WRONG_PASSWORD, house.passwords.owner(login, "wrong", HOME))

    refusal = await refused(
        Code.TOO_MANY_FAILURES, house.passwords.owner("ａｄａ", PASSWORD, ELSEWHERE)
    )
    assert str(int(WINDOW)) == refusal.headers["Retry-After"]
    assert 3 == len(house.hasher.verified)  # and no hash is made for those who are sent away
