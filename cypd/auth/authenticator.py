"""Who sent a request: HTTP Basic (RFC 7617) with a password, or Bearer (RFC 6750) with a token."""

import asyncio
import secrets
import time
from base64 import b64decode
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b

from cypd.access import ANONYMOUS, Principal, Token
from cypd.accounts.ports import AccountStore
from cypd.auth.passwords import hash_password, verify_password
from cypd.auth.tokens import LIFETIME_SECONDS, Tokens
from cypd.oci.errors import Code, OCIError

_CACHE_SECONDS = 60.0
_CACHE_ENTRIES = 1024
# NIST SP 800-63B asks for at least 64; hashing a megabyte of password is somebody's attack.
_MAX_PASSWORD = 1024


class UserAuthenticator:
    """Verifies passwords off the loop, and remembers for a minute that one was right.

    CI jobs send Basic with each request, and argon2id is slow by intent. The memory is keyed by
    a keyed hash of what was sent and holds for the very password hash it was checked against, so
    a changed password is forgotten at once, whichever process changed it.
    """

    def __init__(self, users: AccountStore, token_key: str) -> None:
        self._users = users
        self._tokens = Tokens(users, token_key)
        self._verified: OrderedDict[bytes, tuple[str, float]] = OrderedDict()
        self._checking: dict[tuple[bytes, str], asyncio.Future[bool]] = {}
        self._key = secrets.token_bytes(32)
        # Two at a time: 64 MiB each, and wrong passwords must not take the machine.
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="argon2")
        self._absent = hash_password(secrets.token_hex())

    def issue_token(self, principal: Principal) -> Token:
        """Return a token for somebody who proved who they are, or for nobody."""
        return Token(self._tokens.issue(principal), LIFETIME_SECONDS)

    async def authenticate(self, authorization: str | None, *, address: str = "") -> Principal:
        """Return who sent this ``Authorization``; raise UNAUTHORIZED unless it proves who."""
        if authorization is None:
            return ANONYMOUS
        scheme, _, credentials = authorization.partition(" ")
        if scheme.lower() == "bearer":
            return self._tokens.verify(credentials.strip())
        if scheme.lower() == "basic":
            return await self._authenticate_basic(authorization, *_decoded(credentials))
        raise _wrong()

    async def _authenticate_basic(self, authorization: str, name: str, password: str) -> Principal:
        user = self._users.user(name)
        # An unknown name costs the same hash as a wrong password, and gets the same answer.
        expected = user.password_hash if user else self._absent
        proof = blake2b(authorization.encode("latin-1"), key=self._key, digest_size=32).digest()
        if not self._remembers(proof, expected):
            right = await self._check(proof, expected, password)
            if user is None or not right:
                raise _wrong()
            self._remember(proof, expected)
        if user is None:
            raise _wrong()
        return Principal(name=user.name, is_admin=user.is_admin)

    async def _check(self, proof: bytes, password_hash: str, password: str) -> bool:
        """Hash once for all who send the same at the same time, as the jobs of a pipeline do."""
        running = self._checking.get((proof, password_hash))
        if running is None:
            loop = asyncio.get_running_loop()
            running = loop.run_in_executor(self._pool, verify_password, password_hash, password)
            self._checking[proof, password_hash] = running
            running.add_done_callback(lambda _: self._checking.pop((proof, password_hash), None))
        return await asyncio.shield(running)  # one that goes away does not cancel it for the rest

    def _remembers(self, proof: bytes, password_hash: str) -> bool:
        known = self._verified.get(proof)
        return known is not None and known[0] == password_hash and known[1] > time.monotonic()

    def _remember(self, proof: bytes, password_hash: str) -> None:
        self._verified[proof] = password_hash, time.monotonic() + _CACHE_SECONDS
        self._verified.move_to_end(proof)
        if len(self._verified) > _CACHE_ENTRIES:
            self._verified.popitem(last=False)

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _decoded(encoded: str) -> tuple[str, str]:
    try:
        name, colon, password = b64decode(encoded.strip(), validate=True).decode().partition(":")
    except ValueError:  # not ASCII, not base64 (binascii.Error), not UTF-8: all are of this type
        raise _wrong() from None
    if not colon or len(password) > _MAX_PASSWORD or len(name) > 255:
        raise _wrong()
    return name, password


def _wrong() -> OCIError:
    return OCIError(Code.UNAUTHORIZED, "wrong user name or password")
