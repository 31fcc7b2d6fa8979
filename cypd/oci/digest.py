"""Digests: content's identity, ``sha256:<64 hex>`` or ``sha512:<128 hex>``."""

import hashlib
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, Self

from cypd.oci.errors import Code, OCIError

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

Algorithm = Literal["sha256", "sha512"]
ALGORITHMS: tuple[Algorithm, ...] = ("sha256", "sha512")

# image-spec, descriptor.md, Registered Algorithms: the encoded part is lower-case hex, of exactly
# the hash's length. One canonical form, so one blob never has two names.
_DIGEST = re.compile(r"sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}")


class Digest(str):
    """A digest, valid by construction and in its one canonical form."""

    __slots__ = ()

    @classmethod
    @lru_cache(maxsize=4096)
    def parse(cls, text: str) -> Self:
        """Return ``text`` as a digest; raise DIGEST_INVALID for any other form or algorithm."""
        if not _DIGEST.fullmatch(text):
            raise OCIError(
                Code.DIGEST_INVALID, "a digest is sha256: or sha512: and lower-case hexadecimal"
            )
        return cls(text)

    @classmethod
    def of(cls, content: bytes, algorithm: Algorithm = "sha256") -> Self:
        """Return the digest of ``content``."""
        return cls(f"{algorithm}:{hasher(algorithm, content).hexdigest()}")

    @property
    def algorithm(self) -> Algorithm:
        """The part before the colon."""
        return "sha256" if self[3] == "2" else "sha512"

    @property
    def hex(self) -> str:
        """The part after the colon."""
        return self[7:]


def hasher(algorithm: Algorithm, content: bytes = b"") -> "Hash":
    """Return a running hash of ``algorithm`` that has seen ``content``."""
    return hashlib.sha256(content) if algorithm == "sha256" else hashlib.sha512(content)


def parse_algorithm(text: str) -> Algorithm:
    """Return ``text`` as an algorithm; raise DIGEST_INVALID for one that is not offered."""
    for algorithm in ALGORITHMS:
        if text == algorithm:
            return algorithm
    raise OCIError(Code.DIGEST_INVALID, f"digest algorithms are {' and '.join(ALGORITHMS)}")
