"""Whose keys they are: one registry's, for another one's collector would take all of them away."""

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

from cypd.storage.s3.store import Store


class ForeignKeys(Exception):
    """The blobs are another registry's; the message says what to do."""


async def claim(store: Store, key: str, path: Path) -> None:
    """Raise ``ForeignKeys`` unless the object ``key`` says what the file ``path`` does.

    The first time, both are made.
    """
    own = _own_name(path)
    size = await store.size(key)
    if size is None:
        await store.put(key, len(own), lambda: _once(own))
    elif await store.get(key, size) != own:
        raise ForeignKeys(
            f"another registry keeps its blobs there, and this one would remove them as unused; "
            f"if that one is no more, and its blobs are yours, delete the object {key}"
        )


async def _once(content: bytes) -> AsyncIterator[bytearray]:
    yield bytearray(content)


def _own_name(path: Path) -> bytes:
    """Return what the file says, made whole by one process of those that start together."""
    draft = path.with_name(f".{path.name}-{os.getpid()}")
    if not path.exists():
        draft.write_bytes(secrets.token_hex(16).encode())
        with suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()
    return path.read_bytes()
