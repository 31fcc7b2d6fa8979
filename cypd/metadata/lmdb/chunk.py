"""A chunk of names as a row, which tells much of them before it is taken apart.

The row begins with how many names there are, and how many bytes all of them begin with: 2 bytes and
one. In a chunk of ``SIGNED`` names or more a signature follows: a bit for each three characters
that stand in a name, several for one bit, after Bloom (1970). What a search looks for is in no name
if one of its own bits lacks. The names follow, ascending, with a NUL between.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from struct import Struct
from typing import Self

FULL = 256
"""Names a chunk has at most."""
SIGNED = 64
"""Names from which on reading a signature costs less than reading the names."""

Row = bytes | memoryview

_HEAD = Struct(">HB")
_SIGNATURE_BYTES = 256
_BITS = 2039  # the largest prime below: remainders of threes of letters spread over all of them
_UNSIGNED = b"!\"#$%&'()*+,;<=>"  # a time before a tag: nobody searches for it


class Chunk:
    """Some names of a set, to be changed."""

    def __init__(self, names: list[bytes], signature: Row = b"") -> None:
        self.names = names
        self._signature = bytearray(signature)

    @classmethod
    def of(cls, row: Row) -> Self:
        """Return the chunk of a row."""
        return cls(names_of(row), row[_HEAD.size : _start(size_of(row))])

    def row(self) -> bytes:
        """Return the row of the chunk."""
        shared = _shared(self.names[0], self.names[-1])
        if len(self.names) >= SIGNED and not self._signature:
            self._signature = bytearray(_SIGNATURE_BYTES)
            _sign(self._signature, self.names)
        return _HEAD.pack(len(self.names), shared) + self._signature + b"\0".join(self.names)

    def add(self, name: bytes) -> bool:
        """Put a name in; return ``False`` if it is there."""
        at = bisect_left(self.names, name)
        if self.names[at : at + 1] == [name]:
            return False
        self.names.insert(at, name)
        if self._signature:
            _sign(self._signature, [name])
        return True

    def remove(self, name: bytes) -> bool:
        """Take a name out; return ``False`` if it is not there. Its bits stay until a split."""
        if name not in self.names:
            return False
        self.names.remove(name)
        if len(self.names) < SIGNED:
            self._signature.clear()
        return True

    def split(self, added: bytes) -> "Chunk | None":
        """Return a second chunk for what is too much after a name was added, if it is."""
        if len(self.names) <= FULL:
            return None
        # What comes in order fills its chunks: times do, and most version numbers.
        cut = FULL if added == self.names[-1] else FULL // 2
        rest = Chunk(self.names[cut:])
        if cut < FULL:
            self._signature.clear()
        del self.names[cut:]
        return rest


class Wanted:
    """What a search looks for: ASCII without NUL; with ``ignore_case`` it is in lower case."""

    def __init__(self, text: str, *, ignore_case: bool) -> None:
        self._text = text
        self._bytes = text.encode()
        self._ignore_case = ignore_case
        self._bits = [(_HEAD.size + at, bit) for at, bit in _bits_of([self._bytes])]

    def may_be_in(self, row: Row) -> bool:
        """Return ``False`` only for a chunk that has no such name."""
        if size_of(row) >= SIGNED:
            for at, bit in self._bits:
                if not row[at] & bit:
                    return False
        return True

    def is_in_all(self, row: Row) -> bool:
        """Return ``True`` only for a chunk whose names all hold it, in what they begin with."""
        count, shared = _HEAD.unpack_from(row)
        start = _start(count)
        beginning = bytes(row[start : start + shared])
        return self._bytes in (beginning.lower() if self._ignore_case else beginning)

    def names_in(self, row: Row) -> list[bytes]:
        """Return the names that hold it."""
        # A search in str takes a seventh of one in bytes, in names as short as these.
        text = str(row[_start(size_of(row)) :], "ascii")
        folded = text.lower() if self._ignore_case else text
        if self._text not in folded:
            return []
        pairs = zip(text.split("\0"), folded.split("\0"), strict=True)
        return [name.encode() for name, searched in pairs if self._text in searched]


def size_of(row: Row) -> int:
    """Return how many names a row has."""
    return row[0] << 8 | row[1]


def names_of(row: Row) -> list[bytes]:
    """Return the names of a row."""
    return bytes(row[_start(size_of(row)) :]).split(b"\0")


def _shared(first: bytes, last: bytes) -> int:
    """Return how many bytes two names begin with alike, and so all between them."""
    pairs = zip(first, last, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(last)))


def _start(size: int) -> int:
    return _HEAD.size + (_SIGNATURE_BYTES if size >= SIGNED else 0)


def _sign(signature: bytearray, names: Iterable[bytes]) -> None:
    for at, bit in _bits_of(names):
        signature[at] |= bit


def _bits_of(names: Iterable[bytes]) -> Iterator[tuple[int, int]]:
    """Yield where the bits of names stand: (byte, bit in it)."""
    searched = (name.lstrip(_UNSIGNED).lower() for name in names)
    for three in {name[i : i + 3] for name in searched for i in range(len(name) - 2)}:
        number = int.from_bytes(three, "big") % _BITS
        yield number >> 3, 1 << (number & 7)
