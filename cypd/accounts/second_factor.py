"""The second factor: codes by time (TOTP, RFC 6238), and codes on paper for when it is lost."""

import base64
import io
import secrets
import time
from collections.abc import Callable
from hashlib import sha256
from hmac import compare_digest
from typing import NamedTuple

import pyotp
import segno
from msgspec.structs import replace

from cypd.accounts.passwords import Passwords
from cypd.accounts.ports import AccountStore, User
from cypd.accounts.throttle import Throttle
from cypd.refusals import Code, Refusal

_STEP_SECONDS = 30
_STEPS = (-1, 0, 1)  # RFC 6238 section 5.2: one step either way for clocks that differ
_RECOVERY_CODES = 10
_ISSUER = "cypd"


class Enrolment(NamedTuple):
    """What an authenticator app is given."""

    secret: str
    otpauth_uri: str
    qr_png: str
    """A data URI."""


class SecondFactor:
    """Enrolling, proving and removing it."""

    def __init__(self, store: AccountStore, passwords: Passwords, throttle: Throttle) -> None:
        self._store = store
        self._passwords = passwords
        self._throttle = throttle

    async def enrol(self, user_id: str) -> Enrolment:
        """Return a new secret; it holds once ``activate`` proves that an app has it."""
        secret = pyotp.random_base32()

        def change(user: User) -> User:
            if user.has_second_factor:
                raise Refusal(Code.NOT_IN_THIS_STATE)
            return replace(user, totp_pending=secret)

        user = await self._store.update_user(user_id, change)
        uri = pyotp.TOTP(secret).provisioning_uri(name=user.name, issuer_name=_ISSUER)
        picture = io.BytesIO()
        segno.make(uri).save(picture, kind="png", scale=6)
        encoded = base64.b64encode(picture.getvalue()).decode()
        return Enrolment(secret, uri, f"data:image/png;base64,{encoded}")

    async def activate(self, user_id: str, code: str) -> list[str]:
        """Put the enrolled secret in force; return the recovery codes, shown this once."""
        codes = [_new_recovery_code() for _ in range(_RECOVERY_CODES)]

        def change(user: User) -> User:
            if not user.totp_pending:
                raise Refusal(Code.NOT_IN_THIS_STATE)
            step = _matching_step(user.totp_pending, code, after=0)
            if step is None:
                raise Refusal(Code.SECOND_FACTOR_WRONG)
            return replace(
                user,
                totp_secret=user.totp_pending,
                totp_pending="",
                totp_step=step,
                recovery_hashes=tuple(_hash(it) for it in codes),
            )

        await self._store.update_user(user_id, change)
        return codes

    async def remove(self, user_id: str, password: str, code: str, address: str) -> None:
        """Do without it from now on; raises as ``Passwords.owner`` and ``consume``."""
        user = self._store.user(user_id)
        if user is None or not user.has_second_factor:
            raise Refusal(Code.NOT_IN_THIS_STATE)
        await self._passwords.owner(user.name, password, address)
        await self.consume(user, code, address)
        await self._store.update_user(user_id, without_second_factor)

    async def consume(self, user: User, code: str, address: str) -> User:
        """Take a code, which is then used up; raise SECOND_FACTOR_WRONG, or as the throttle does.

        Of requests that send the same code at once, one gets through: the store runs ``change``
        for one after the other.
        """
        self._throttle.require_patience(user.name, address)
        try:
            changed = await self._store.update_user(user.id, _consuming(code))
        except Refusal as refusal:
            if refusal.code is Code.SECOND_FACTOR_WRONG and _is_guess(user, code):
                await self._throttle.count(user.name, address)
            raise
        await self._throttle.clear(user.name)
        return changed


def without_second_factor(user: User) -> User:
    """Return a user who signs in with the password alone."""
    return replace(user, totp_secret="", totp_pending="", recovery_hashes=())


def _consuming(code: str) -> Callable[[User], User]:
    def change(user: User) -> User:
        if not user.has_second_factor:  # any longer: removed since the caller looked
            raise Refusal(Code.NOT_IN_THIS_STATE)
        step = _matching_step(user.totp_secret, code, after=user.totp_step)
        if step is not None:
            return replace(user, totp_step=step)
        hashed = _hash(code)
        left = tuple(it for it in user.recovery_hashes if not compare_digest(it, hashed))
        if len(left) == len(user.recovery_hashes):
            raise Refusal(Code.SECOND_FACTOR_WRONG)
        return replace(user, recovery_hashes=left)

    return change


def _is_guess(user: User, code: str) -> bool:
    # One that was right and is used up is the owner's own, sent twice.
    return _matching_step(user.totp_secret, code, after=0) is None


def _matching_step(secret: str, code: str, *, after: int) -> int | None:
    """Return the time step that a code is of; none up to ``after`` is taken again."""
    now = int(time.time()) // _STEP_SECONDS
    totp = pyotp.TOTP(secret, interval=_STEP_SECONDS)
    for step in (now + offset for offset in _STEPS):
        if step > after and compare_digest(totp.generate_otp(step).encode(), code.encode()):
            return step
    return None


def _new_recovery_code() -> str:
    text = base64.b32encode(secrets.token_bytes(10)).decode().lower()  # 80 bits
    return "-".join(text[start : start + 4] for start in range(0, len(text), 4))


def _hash(code: str) -> str:
    plain = code.replace("-", "").replace(" ", "").lower()
    return sha256(plain.encode(errors="replace")).hexdigest()
