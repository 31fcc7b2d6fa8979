"""The second factor: enrolled, proved, and gone."""

import asyncio
import base64
from pathlib import Path

import pyotp
import pytest

from cypd.accounts.ports import User
from cypd.metadata.lmdb import LmdbMetadata
from cypd.refusals import Code
from tests.accounts.house import HOME, PASSWORD, Clock, House, code_at, refused

pytestmark = pytest.mark.usefixtures("clock")


def current(house: House) -> User:
    """Return the user as they are stored."""
    return house.users.find("ada")


async def test_an_enrolment_is_what_an_app_needs(house: House) -> None:
    """A secret of 160 bits, its URI with the user's name, and the URI as a picture."""
    user = await house.person("ada")
    enrolment = await house.second_factor.enrol(user.id)

    assert len(base64.b32decode(enrolment.secret)) >= 20
    parsed = pyotp.parse_uri(enrolment.otpauth_uri)
    assert ("ada", "cypd") == (parsed.name, parsed.issuer)
    assert enrolment.secret == parsed.secret
    scheme, _, encoded = enrolment.qr_png.partition(",")
    assert "data:image/png;base64" == scheme
    assert base64.b64decode(encoded, validate=True).startswith(b"\x89PNG\r\n\x1a\n")


async def test_it_holds_once_it_is_proved(house: House) -> None:
    """An enrolment that nobody finished locks nobody out; another one takes its place."""
    user = await house.person("ada")
    old = pyotp.TOTP((await house.second_factor.enrol(user.id)).secret)
    assert not current(house).has_second_factor
    await house.login(user)
    new = pyotp.TOTP((await house.second_factor.enrol(user.id)).secret)
    assert old.secret != new.secret
    for wrong in (code_at(old), "", "x", "１２３４５６", code_at(new, 2), code_at(new) + " 1"):
        await refused(Code.SECOND_FACTOR_WRONG, house.second_factor.activate(user.id, wrong))
    assert not current(house).has_second_factor
    codes = await house.second_factor.activate(user.id, code_at(new))

    assert current(house).has_second_factor
    assert 10 == len(set(codes))
    await refused(Code.NOT_IN_THIS_STATE, house.second_factor.activate(user.id, code_at(new, 1)))
    await refused(Code.NOT_IN_THIS_STATE, house.second_factor.enrol(user.id))


async def test_who_has_none_proves_none(house: House) -> None:
    """Nothing is activated that was not enrolled, nor consumed that was removed meanwhile."""
    user = await house.person("ada")
    await refused(Code.NOT_IN_THIS_STATE, house.second_factor.activate(user.id, "000000"))
    await refused(Code.NOT_IN_THIS_STATE, house.second_factor.consume(user, "000000", HOME))


async def test_a_code_is_taken_once(house: House, clock: Clock) -> None:
    """Neither it nor one of an earlier step is taken again, also if it proved the enrolment."""
    totp, _ = await house.enrolled(await house.person("ada"))  # with the code of step -1
    consume = house.second_factor.consume
    await refused(Code.SECOND_FACTOR_WRONG, consume(current(house), code_at(totp, -1), HOME))
    await consume(current(house), code_at(totp, 1), HOME)
    for step in (1, 0, -1):
        await house.throttle.clear("ada")
        await refused(Code.SECOND_FACTOR_WRONG, consume(current(house), code_at(totp, step), HOME))
    clock.now += 60
    await house.throttle.clear("ada")
    await consume(current(house), code_at(totp), HOME)


async def test_a_code_sent_again_is_no_guess(house: House, clock: Clock) -> None:
    """However often a used code is repeated, the owner's next one is taken."""
    totp, _ = await house.enrolled(await house.person("ada"))
    consume = house.second_factor.consume
    await consume(current(house), code_at(totp), HOME)
    for _ in range(20):
        await refused(Code.SECOND_FACTOR_WRONG, consume(current(house), code_at(totp), HOME))

    await consume(current(house), code_at(totp, 1), HOME)


@pytest.mark.parametrize(
    ("step", "taken"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)]
)
async def test_clocks_may_differ_by_a_step(
    house: House, clock: Clock, step: int, taken: bool
) -> None:
    """The codes of the steps before and after are taken, those farther off are not."""
    totp, _ = await house.enrolled(await house.person("ada"))
    clock.now += 3600
    call = house.second_factor.consume(current(house), code_at(totp, step), HOME)
    if taken:
        await call
    else:
        await refused(Code.SECOND_FACTOR_WRONG, call)


async def test_a_recovery_code_is_taken_once(house: House) -> None:
    """Each of the ten, in any spelling of it; only hashes of them are kept."""
    _, codes = await house.enrolled(await house.person("ada"))
    for number, code in enumerate(codes):
        stored = repr([getattr(current(house), field) for field in User.__struct_fields__])
        assert code not in stored
        assert code.replace("-", "") not in stored
        spelled = (code, code.upper(), code.replace("-", ""), f" {code} ")[number % 4]
        await house.second_factor.consume(current(house), spelled, HOME)
        await refused(
            Code.SECOND_FACTOR_WRONG, house.second_factor.consume(current(house), code, HOME)
        )
        await house.throttle.clear("ada")
        house.throttle = House(house.store, per_address=100).throttle
        house.second_factor = House(house.store, per_address=100).second_factor
    assert not current(house).recovery_hashes


@pytest.mark.parametrize("kind", ["code", "recovery"])
async def test_of_many_at_once_one_gets_through(tmp_path: Path, kind: str) -> None:
    """Fifty that send the same code at the same time are one that sent it and 49 that are late."""
    metadata = LmdbMetadata(tmp_path / "metadata", 16 << 20)
    house = House(metadata.accounts, per_account=1000, per_address=1000)
    totp, recovery = await house.enrolled(await house.person("ada"))
    user, code = current(house), code_at(totp) if kind == "code" else recovery[3]
    answers = await asyncio.gather(
        *(house.second_factor.consume(user, code, HOME) for _ in range(50)), return_exceptions=True
    )
    metadata.close()

    assert 1 == sum(isinstance(answer, User) for answer in answers)
    assert 49 == sum(getattr(it, "code", None) is Code.SECOND_FACTOR_WRONG for it in answers)


async def test_wrong_codes_are_counted(house: House) -> None:
    """After three the right one is refused too, unheard: it is not used up by that."""
    totp, _ = await house.enrolled(await house.person("ada"))
    consume = house.second_factor.consume
    for _ in range(3):
        await refused(Code.SECOND_FACTOR_WRONG, consume(current(house), "abcdef", HOME))
    await refused(Code.TOO_MANY_FAILURES, consume(current(house), code_at(totp), HOME))
    await house.throttle.clear("ada")

    await consume(current(house), code_at(totp), HOME)


async def test_removing_it_takes_both_factors(house: House) -> None:
    """A password without a code is not enough, nor a code without the password."""
    user = await house.person("ada")
    remove = house.second_factor.remove
    await refused(Code.NOT_IN_THIS_STATE, remove(user.id, PASSWORD, "000000", HOME))
    totp, recovery = await house.enrolled(user)
    await refused(Code.WRONG_PASSWORD, remove(user.id, "wrong", code_at(totp), HOME))
    await refused(Code.SECOND_FACTOR_WRONG, remove(user.id, PASSWORD, "000000", HOME))
    assert current(house).has_second_factor
    await remove(user.id, PASSWORD, code_at(totp), HOME)
    assert not current(house).has_second_factor
    await house.login(user)

    again, _ = await house.enrolled(user)
    assert again.secret != totp.secret
    call = house.second_factor.consume(current(house), recovery[0], HOME)
    await refused(Code.SECOND_FACTOR_WRONG, call)


async def test_an_administrator_can_take_it_off(house: House) -> None:
    """Who lost everything signs in with the password again, and nothing of the old one is left."""
    user = await house.person("ada")
    await house.enrolled(user)
    await house.users.administer(user.id, reset_mfa=True)

    assert not current(house).recovery_hashes
    assert not current(house).totp_pending
    await house.login(user)
