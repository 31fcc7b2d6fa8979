"""Ordered sets of names that know positions, so that a page costs the same wherever it is.

A B-tree knows the next key, not the hundred-thousandth. So names lie in chunks: a walk to any
position reads 2 bytes for some hundred names, from whichever end is nearer, and a search only the
beginnings of the chunks that have nothing to be found.
"""

from collections.abc import Iterator

import lmdb

from cypd.metadata.lmdb.chunk import Chunk, Row, Wanted, names_of, size_of
from cypd.metadata.lmdb.keys import number

# What every name of a set lies between.
_FIRST, _END = b"\0", b"\xff"


class Shelf:
    """Many sets in one LMDB database: a name is 1 to 255 bytes of ASCII without NUL.

    A set is its prefix, which must not be the beginning of another's. Below the prefix alone lies
    how many names there are; a chunk lies below a name that none of its own is less than.
    """

    def __init__(self, database: "lmdb._Database") -> None:
        self.database = database

    # --- writes ---------------------------------------------------------------------------------

    def add(self, txn: lmdb.Transaction, prefix: bytes, name: bytes) -> bool:
        """Put a name in; return ``False`` if it is there."""
        key, chunk = self._chunk_for(txn, prefix, name)
        if not chunk.add(name):
            return False
        rest = chunk.split(name)
        if rest is not None:
            txn.put(prefix + rest.names[0], rest.row(), db=self.database)
        txn.put(key, chunk.row(), db=self.database)
        self._count(txn, prefix, +1)
        return True

    def remove(self, txn: lmdb.Transaction, prefix: bytes, name: bytes) -> bool:
        """Take a name out; return ``False`` if it is not there."""
        key, chunk = self._chunk_for(txn, prefix, name)
        if not chunk.remove(name):
            return False
        if chunk.names:
            txn.put(key, chunk.row(), db=self.database)
        else:
            txn.delete(key, db=self.database)
        self._count(txn, prefix, -1)
        return True

    def _chunk_for(self, txn: lmdb.Transaction, prefix: bytes, name: bytes) -> tuple[bytes, Chunk]:
        """Return the chunk that a name belongs to, with its key; an empty one if there is none."""
        with txn.cursor(db=self.database) as cursor:
            if not cursor.set_range(prefix + name):
                cursor.last()
            elif cursor.key() != prefix + name:
                cursor.prev()
            key = bytes(cursor.key())
            if not _is_chunk(key, prefix):
                return prefix + _FIRST, Chunk([])
            return key, Chunk.of(cursor.value())

    def _count(self, txn: lmdb.Transaction, prefix: bytes, step: int) -> None:
        count = self.count(txn, prefix) + step
        if count:
            txn.put(prefix, number(count), db=self.database)
        else:
            txn.delete(prefix, db=self.database)

    # --- reads ----------------------------------------------------------------------------------

    def count(self, txn: lmdb.Transaction, prefix: bytes) -> int:
        """Return how many names there are."""
        return int.from_bytes(txn.get(prefix, db=self.database) or b"", "big")

    def page(
        self,
        txn: lmdb.Transaction,
        prefix: bytes,
        offset: int,
        limit: int,
        *,
        reverse: bool = False,
    ) -> list[bytes]:
        """Return the names from a position on; with ``reverse`` positions count from the end."""
        total = self.count(txn, prefix)
        start, stop = offset, min(offset + limit, total)
        if reverse:
            start, stop = max(0, total - offset - limit), total - offset
        if start >= stop:
            return []
        with txn.cursor(db=self.database) as cursor:
            at = _seek(cursor, prefix, start, total)
            names = names_of(cursor.value())
            while at + len(names) < stop:
                cursor.next()
                names += names_of(cursor.value())
        found = names[start - at : stop - at]
        return found[::-1] if reverse else found

    def search(
        self,
        txn: lmdb.Transaction,
        prefix: bytes,
        wanted: Wanted,
        offset: int,
        limit: int,
        *,
        reverse: bool = False,
    ) -> tuple[list[bytes], int]:
        """Return as ``page`` those of the names that hold what is wanted, and how many do."""
        found: list[bytes] = []
        total = 0
        stop = offset + limit
        for row in self._chunks(txn, prefix, reverse=reverse):
            if not wanted.may_be_in(row):
                continue
            size = size_of(row)
            if not offset - size < total < stop and wanted.is_in_all(row):
                total += size
                continue
            names = wanted.names_in(row)
            if reverse:
                names.reverse()
            if total < stop:
                found += names[max(0, offset - total) : stop - total]
            total += len(names)
        return found, total

    def _chunks(self, txn: lmdb.Transaction, prefix: bytes, *, reverse: bool) -> Iterator[Row]:
        with txn.cursor(db=self.database) as cursor:
            if reverse:
                _go_last(cursor, prefix)
                rows = cursor.iterprev()
            else:
                cursor.set_range(prefix + _FIRST)
                rows = cursor.iternext()
            for key, value in rows:
                if not _is_chunk(key, prefix):
                    return
                yield value


def _seek(cursor: lmdb.Cursor, prefix: bytes, position: int, total: int) -> int:
    """Go to the chunk that holds a position; return the position of its first name."""
    if 2 * position < total:
        at = 0
        cursor.set_range(prefix + _FIRST)
        while at + (size := size_of(cursor.value())) <= position:
            at += size
            cursor.next()
        return at
    _go_last(cursor, prefix)
    at = total - size_of(cursor.value())
    while at > position:
        cursor.prev()
        at -= size_of(cursor.value())
    return at


def _go_last(cursor: lmdb.Cursor, prefix: bytes) -> None:
    """Go to the last chunk."""
    if cursor.set_range(prefix + _END):
        cursor.prev()
    else:
        cursor.last()


def _is_chunk(key: Row, prefix: bytes) -> bool:
    return len(key) > len(prefix) and bytes(key[: len(prefix)]) == prefix
