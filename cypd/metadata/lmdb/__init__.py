"""LMDB: one memory-mapped file, read on the event loop, written by one thread."""

from cypd.metadata.lmdb.store import LmdbMetadata

__all__ = ["LmdbMetadata"]
