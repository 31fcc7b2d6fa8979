"""Keys, and what their order means.

Everything of a repository is keyed by its id, 8 bytes, big-endian, given at its first push and
never again. (A hash of the name would save the look-up of the id, but xxh3 is no cryptographic
hash: who finds two names of one hash reads another's repository.) Projects, users, their tokens and
their sessions are the 16 bytes of their UUIDs.

================  ==========================================  =====================================
database          key                                         value
================  ==========================================  =====================================
repositories      name                                        id
tags              id, tag                                     digest
tagged            id, digest, tag                             (nothing)
manifests         id, digest                                  ``ManifestRecord``
references        id, digest                                  ``References``: what it points at
listed_by         id, digest, digest of the listing one       (nothing)
referrers         id, subject's digest, digest                descriptor, JSON
links             id, digest                                  ``Link``, two numbers
loose             since when, id, digest                      (nothing)
holders           digest, id                                  name of the repository
uploads           session id                                  ``Upload``
shelves           set, name of a chunk                        a chunk of names, see ``shelf``
repository_facts  id                                          ``RepositoryFacts``
tag_facts         id, tag                                     ``TagFacts``
manifest_facts    id, digest                                  ``ManifestFacts``
referrer_counts   id, subject's digest                        how many, 8 bytes
users             user's id                                   ``User``
user_names        name                                        user's id
user_emails       email address                               user's id
tokens            SHA-256 of a personal access token          ``PersonalToken``
tokens_of         user's id, token's id                       SHA-256 of the token
sessions          session's id                                ``Session``
sessions_of       user's id, session's id                     (nothing)
failures          hash of an account or address               count, since when
projects          project                                     ``Project``
project_names     name                                        project
members           project, user                               ``Member``
charges           digest, project                             size, how many rows hold it
usage             project                                     ``Usage``, 4 numbers
events            number                                      ``Event``
events_of         project, number                             (nothing)
webhooks          webhook's id                                ``Webhook``
webhooks_of       project, webhook's id                       (nothing)
deliveries        webhook's id, number                        ``Delivery``
delivery_ids      webhook's id, delivery's id                 number
due               webhook's id, hash of repository, number    when to try, 8 bytes
hook_cursors      webhook's id                                number of the last event told to it
hook_statistics   webhook's id                                ``Statistics``
audit             number                                      ``Entry``
audit_of          project, number                             (nothing)
scans             number                                      ``ScanRow``
scan_ids          scan's id                                   number
scans_of          id, digest, number                          (nothing)
scanned           id, digest                                  number of its newest good scan
scan_findings     number, digest of an image                  findings, compressed
scan_logs         number, line's number, 4 bytes              line
guarded           name of a project that refuses some pulls   (nothing)
meta              ``schema``, ``repositories``,               version, last id given,
                  ``uploads:`` owner,                         how many are open,
                  ``uploads in:`` project, ``totals``,        how many are open, ``Totals``
                  ``events``, ``deliveries``, ``audit``,      last number given
                  ``scans``,
                  ``scan_pushes``                             number of the last event looked at
================  ==========================================  =====================================
"""

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple, Self

import lmdb
import msgspec

from cypd.oci.digest import Digest

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_LINK = struct.Struct(">QQ")
_ALGORITHMS = {"sha256": b"\x01", "sha512": b"\x02"}


def digest_key(digest: Digest) -> bytes:
    """Return a digest as one byte for the algorithm and the raw hash. Orders as the text does."""
    return _ALGORITHMS[digest.algorithm] + bytes.fromhex(digest.hex)


def digest_of(key: bytes) -> Digest:
    """Return the digest of a key."""
    return Digest(f"{'sha256' if key[0] == 1 else 'sha512'}:{key[1:].hex()}")


def uuid_key(text: str) -> bytes | None:
    """Return a UUID as its 16 bytes; ``None`` for every text but its one canonical spelling."""
    return bytes.fromhex(text.replace("-", "")) if _UUID.fullmatch(text) else None


def number(value: int) -> bytes:
    """Return a number as 8 bytes that order as the numbers do."""
    return value.to_bytes(8, "big")


class ManifestRecord(msgspec.Struct, frozen=True, array_like=True):
    """What a pull needs of a manifest, in one value."""

    media_type: str
    size: int
    content: bytes | None


class Link(NamedTuple):
    """A blob that a repository links."""

    size: int
    loose_since: int = 0
    """Microseconds, unix time, since no manifest of the repository lists it; 0: one does."""

    @classmethod
    def of(cls, record: bytes) -> Self:
        """Return the link of a record."""
        return cls(*_LINK.unpack(record))

    @property
    def record(self) -> bytes:
        """Its record."""
        return _LINK.pack(*self)


class References(msgspec.Struct, frozen=True, array_like=True):
    """What a manifest points at, as digest keys: needed only to take it out again."""

    subject: bytes | None
    listed: list[bytes]


def scan(
    transaction: lmdb.Transaction, database: "lmdb._Database", prefix: bytes, after: bytes = b""
) -> Iterator[tuple[bytes, bytes]]:
    """Yield (the rest of the key, value) of each key with that prefix, from past ``after``."""
    with transaction.cursor(db=database) as cursor:
        found = cursor.set_range(prefix + after)
        if found and after and cursor.key() == prefix + after:
            found = cursor.next()
        while found:
            key = bytes(cursor.key())
            if not key.startswith(prefix):
                return
            yield key[len(prefix) :], bytes(cursor.value())
            found = cursor.next()
