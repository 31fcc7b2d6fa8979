"""Ordered sets of names that know positions, so that a page costs the same wherever it is.

A B-tree knows the next key, not the hundred-thousandth. So names lie in chunks, each a row that
begins with how many they are: a walk to any position reads 2 bytes for some hundred names, from
whichever end is nearer, and a search reads a chunk with one call into C.
"""

from bisect import bisect_left
from collections.abc import Iterator

import lmdb

from cypd.metadata.lmdb.keys import number

CHUNK = 256
"""Names a chunk holds at most."""
_Bytes = bytes | memoryview
_COUNT = 2
_SEPARATOR = b"\0"
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
        key, names = self._chunk_for(txn, prefix, name)
        at = bisect_left(names, name)
        if names[at : at + 1] == [name]:
            return False
        names.insert(at, name)
        if len(names) > CHUNK:
            # What comes in order fills its chunks: times do, and most version numbers.
            cut = CHUNK if at == CHUNK else CHUNK // 2
            self._put(txn, prefix + names[cut], names[cut:])
            del names[cut:]
        self._put(txn, key, names)
        self._count(txn, prefix, +1)
        return True

    def remove(self, txn: lmdb.Transaction, prefix: bytes, name: bytes) -> bool:
        """Take a name out; return ``False`` if it is not there."""
        key, names = self._chunk_for(txn, prefix, name)
        if name not in names:
            return False
        names.remove(name)
        if names:
            self._put(txn, key, names)
        else:
            txn.delete(key, db=self.database)
        self._count(txn, prefix, -1)
        return True

    def _chunk_for(
        self, txn: lmdb.Transaction, prefix: bytes, name: bytes
    ) -> tuple[bytes, list[bytes]]:
        """Return the chunk that a name belongs to, with its key; an empty one if there is none."""
        with txn.cursor(db=self.database) as cursor:
            if not cursor.set_range(prefix + name):
                cursor.last()
            elif cursor.key() != prefix + name:
                cursor.prev()
            key = bytes(cursor.key())
            if not _is_chunk(key, prefix):
                return prefix + _FIRST, []
            return key, _names(cursor.value())

    def _put(self, txn: lmdb.Transaction, key: bytes, names: list[bytes]) -> None:
        value = len(names).to_bytes(_COUNT, "big") + _SEPARATOR.join(names)
        txn.put(key, value, db=self.database)

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
            names = _names(cursor.value())
            while at + len(names) < stop:
                cursor.next()
                names += _names(cursor.value())
        found = names[start - at : stop - at]
        return found[::-1] if reverse else found

    def search(
        self,
        txn: lmdb.Transaction,
        prefix: bytes,
        needle: str,
        offset: int,
        limit: int,
        *,
        reverse: bool = False,
        ignore_case: bool = False,
    ) -> tuple[list[bytes], int]:
        """Return as ``page`` those of the names that hold ``needle``, and how many do.

        ``needle`` has no NUL; with ``ignore_case`` it is in lower case.
        """
        found: list[bytes] = []
        total = 0
        for chunk in self._chunks(txn, prefix, reverse=reverse):
            # A search in str takes a seventh of one in bytes, in names as short as these.
            text = str(chunk[_COUNT:], "ascii")
            folded = text.lower() if ignore_case else text
            if needle not in folded:
                continue
            names = _matching(text, folded, needle)
            if reverse:
                names.reverse()
            if total < offset + limit:
                window = names[max(0, offset - total) : offset + limit - total]
                found += [name.encode() for name in window]
            total += len(names)
        return found, total

    def _chunks(self, txn: lmdb.Transaction, prefix: bytes, *, reverse: bool) -> Iterator[_Bytes]:
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


def _matching(text: str, folded: str, needle: str) -> list[str]:
    names = text.split("\0")
    if folded is text:
        return [name for name in names if needle in name]
    pairs = zip(names, folded.split("\0"), strict=True)
    return [name for name, lowered in pairs if needle in lowered]


def _seek(cursor: lmdb.Cursor, prefix: bytes, position: int, total: int) -> int:
    """Go to the chunk that holds a position; return the position of its first name."""
    if 2 * position < total:
        at = 0
        cursor.set_range(prefix + _FIRST)
        while at + (size := _size(cursor.value())) <= position:
            at += size
            cursor.next()
        return at
    _go_last(cursor, prefix)
    at = total - _size(cursor.value())
    while at > position:
        cursor.prev()
        at -= _size(cursor.value())
    return at


def _go_last(cursor: lmdb.Cursor, prefix: bytes) -> None:
    """Go to the last chunk."""
    if cursor.set_range(prefix + _END):
        cursor.prev()
    else:
        cursor.last()


def _is_chunk(key: _Bytes, prefix: bytes) -> bool:
    return len(key) > len(prefix) and bytes(key[: len(prefix)]) == prefix


def _size(value: _Bytes) -> int:
    return int.from_bytes(value[:_COUNT], "big")


def _names(value: _Bytes) -> list[bytes]:
    return bytes(value[_COUNT:]).split(_SEPARATOR)
