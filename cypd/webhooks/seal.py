"""Secrets that have to be read again, kept so that the metadata alone does not tell them."""

import hashlib
import secrets
from collections.abc import Mapping
from typing import NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE_BYTES = 12  # what NIST SP 800-38D is made for; random, for far fewer than 2^32 webhooks


class Secrets(NamedTuple):
    """What a webhook must not show."""

    secret: str
    headers: Mapping[str, str]


class Sealed(Exception):
    """It was sealed with another key: the secrets have to be given again."""


class Seal:
    """AES-256-GCM under a key of the state folder; each value is bound to what it belongs to."""

    def __init__(self, key: str) -> None:
        # Another key for another purpose: tokens are signed with the same file's.
        self._cipher = AESGCM(
            hashlib.blake2b(key.encode(), digest_size=32, person=b"webhook").digest()
        )

    def close(self, content: Secrets, owner: str) -> bytes:
        """Return the secrets of ``owner`` (an id), sealed."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, msgspec.json.encode(content), owner.encode())

    def open(self, sealed: bytes, owner: str) -> Secrets:
        """Return what was sealed for ``owner``; raise ``Sealed``."""
        nonce, text = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            content = self._cipher.decrypt(nonce, text, owner.encode())
        except (InvalidTag, ValueError):
            raise Sealed("it was sealed with another key") from None
        return msgspec.json.decode(content, type=Secrets)
