"""Layers, unpacked as a stream within bounds. Nothing is written anywhere.

What a layer is packed with is told by its first bytes, as container runtimes do: its media type is
only what somebody claims.
"""

import io
import os
import posixpath
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterator

from cypd.scanning.limits import Limits
from cypd.scanning.ports import ScanFailed

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_PIECE = 64 << 10
_CHUNK = 256 << 10
# RFC 8878 3.1.1.1.2: decoders should bound the window. 128 MiB is the most that the zstd command
# writes unless it is told otherwise, and what it reads.
_WINDOW_LOG = 27
# A layer's first MiBs may be zeros; attacks need more than that.
_RATIO_FROM = 16 << 20
# Headers of one archive entry (pax, long names): the kernel's longest path has 4 KiB.
_MAX_HEADER = 1 << 20
_MAX_NAME = 4096


class Budget:
    """What a scan may still unpack."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._bytes = limits.max_bytes
        self._files = limits.max_files

    def take_bytes(self, count: int) -> None:
        """Count unpacked bytes; raise ScanFailed if there are too many."""
        self._bytes -= count
        if self._bytes < 0:
            raise ScanFailed(
                f"the image unpacks to more than {self._limits.max_bytes} bytes "
                "(scanning.max_bytes)"
            )

    def take_file(self) -> None:
        """Count an entry of an archive; raise ScanFailed if there are too many."""
        self._files -= 1
        if self._files < 0:
            raise ScanFailed(
                f"the image has more than {self._limits.max_files} files (scanning.max_files)"
            )

    def require_ratio(self, packed: int, unpacked: int, what: str) -> None:
        """Raise ScanFailed if so few bytes became so many."""
        if unpacked > _RATIO_FROM and unpacked > packed * self._limits.max_ratio:
            raise ScanFailed(
                f"{what} unpacks to more than {self._limits.max_ratio} times its size "
                "(scanning.max_ratio)"
            )


class Unpacked:
    """The unpacked bytes of a layer, read once and forward: what ``tarfile`` needs of a file."""

    def __init__(self, descriptor: int, name: str, budget: Budget) -> None:
        self._name = name
        self._budget = budget
        self._packed = 0
        self._position = 0
        self._pieces = filter(None, self._unpack(descriptor))
        self._rest = memoryview(next(self._pieces, b""))
        self._tail = b""

    @property
    def is_empty(self) -> bool:
        """Whether there is not a single byte."""
        return not self._position and not self._rest

    @property
    def ended_well(self) -> bool:
        """Whether what was read last is how an archive ends: by a block of zeros, or by nothing."""
        return not self._tail.strip(b"\0")

    def tell(self) -> int:
        """Return how many bytes were read."""
        return self._position

    def seek(self, position: int) -> None:
        """Read on until there."""
        if position < self._position:
            raise ScanFailed(f"{self._name} is damaged: an entry's size can't be")
        while self._position < position:
            if not self._take(position - self._position):
                return

    def finish(self) -> None:
        """Read on until the end, where the packing's checksum stands."""
        while self._take(_CHUNK):
            pass

    def read(self, size: int) -> bytes:
        """Return the next bytes, all that were asked for unless the layer ends."""
        if not 0 <= size <= _MAX_HEADER:
            raise ScanFailed(f"{self._name} has an entry whose header takes {size} bytes")
        taken = self._take(size)
        if len(taken) == size:
            self._tail = bytes(taken)
            return self._tail
        parts = [bytes(taken)]
        missing = size - len(taken)
        while missing and (taken := self._take(missing)):
            parts.append(bytes(taken))
            missing -= len(taken)
        self._tail = b"".join(parts)
        return self._tail

    def peek(self, size: int) -> bytes:
        """Return the next bytes, to be read again; fewer only where the layer ends."""
        while len(self._rest) < size and (piece := next(self._pieces, b"")):
            self._rest = memoryview(bytes(self._rest) + piece)
        return bytes(self._rest[:size])

    def copy(self, size: int) -> io.BytesIO:
        """Return the next ``size`` bytes as a file in memory."""
        file = io.BytesIO()
        while size and (taken := self._take(size)):
            file.write(taken)
            size -= len(taken)
        if size:
            raise ScanFailed(f"{self._name} is damaged: it ends within a file")
        file.seek(0)
        return file

    def _take(self, size: int) -> memoryview:
        if not self._rest:
            self._rest = memoryview(next(self._pieces, b""))
        taken, self._rest = self._rest[:size], self._rest[size:]
        self._position += len(taken)
        return taken

    def _unpack(self, descriptor: int) -> Iterator[bytes]:
        unpacked = 0
        try:
            for piece in _unpack(self._read(descriptor)):
                unpacked += len(piece)
                self._budget.take_bytes(len(piece))
                self._budget.require_ratio(self._packed, unpacked, self._name)
                yield piece
        except (zlib.error, zstd.ZstdError, EOFError) as error:
            raise ScanFailed(f"{self._name} is damaged: {error}") from None

    def _read(self, descriptor: int) -> Iterator[bytes]:
        while piece := os.pread(descriptor, _PIECE, self._packed):
            self._packed += len(piece)
            yield piece


def _unpack(source: Iterator[bytes]) -> Iterator[bytes]:
    first = next(source, b"")
    unpack: Callable[[Iterator[bytes]], Iterator[bytes]] = iter
    if first.startswith(b"\x1f\x8b"):  # RFC 1952 2.3.1
        unpack = _gunzip
    elif first[:4] == b"\x28\xb5\x2f\xfd" or first[1:4] == b"\x2a\x4d\x18":  # RFC 8878 3.1
        unpack = _unzstd
    return unpack(_chain(first, source))


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _gunzip(source: Iterator[bytes]) -> Iterator[bytes]:
    """Unpack the members of a gzip file (RFC 1952 2.2: there may be many, as pigz writes them)."""
    decoder = None
    for piece in source:
        while piece:
            decoder = decoder or zlib.decompressobj(wbits=31)
            yield decoder.decompress(piece, _CHUNK)
            piece = decoder.unconsumed_tail  # noqa: PLW2901 (what is left of it)
            if decoder.eof:
                piece = decoder.unused_data.lstrip(b"\0")  # noqa: PLW2901 (padding)
                decoder = None
    if decoder is not None:
        raise EOFError("it is cut short")


def _unzstd(source: Iterator[bytes]) -> Iterator[bytes]:
    """Unpack the frames of a zstd file, those that only tell other tools something included."""
    decoder = None
    for piece in source:
        while piece or (decoder is not None and not decoder.needs_input):
            if decoder is None:
                options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _WINDOW_LOG}
                decoder = zstd.ZstdDecompressor(options=options)
            yield decoder.decompress(piece, _CHUNK)
            piece = b""  # noqa: PLW2901 (the decoder has it)
            if decoder.eof:
                piece = decoder.unused_data  # noqa: PLW2901 (the next frame)
                decoder = None
    if decoder is not None:
        raise EOFError("it is cut short")


class Archive:
    """The entries of a layer, in the order they have there."""

    def __init__(self, descriptor: int, name: str, budget: Budget) -> None:
        """Read the layer of that file; ``name`` is for messages."""
        self._budget = budget
        self._name = name
        self._descriptor = descriptor
        self.files = 0
        """How many entries were read."""
        self.size = 0
        """How many bytes they took, unpacked."""

    def __iter__(self) -> Iterator[tuple[str, tarfile.TarInfo, Unpacked]]:
        """Yield each entry's path, its header, and the layer, which stands at its content.

        A path has no leading slash and leads nowhere else: absolute names and ``..`` begin at the
        root, as runtimes take them. Raises ScanFailed.
        """
        try:
            yield from self._entries()
        except (tarfile.TarError, ValueError) as error:
            raise ScanFailed(f"{self._name} is damaged: {error}") from None

    def _entries(self) -> Iterator[tuple[str, tarfile.TarInfo, Unpacked]]:
        unpacked = Unpacked(self._descriptor, self._name, self._budget)
        if unpacked.is_empty:
            return
        # No type knows "read, tell and seek forward", which is all that reading takes.
        source: io.BufferedIOBase = unpacked  # type: ignore[assignment]
        try:
            archive = tarfile.TarFile(fileobj=source, encoding="utf-8", errors="replace")
        except tarfile.ReadError:
            raise ScanFailed(f"{self._name} is no tar archive") from None
        while (entry := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # it keeps them all, in 1 KiB each
            self._budget.take_file()
            self.files += 1
            yield rooted(entry.name), entry, unpacked
            self.size = unpacked.tell()
        if not unpacked.ended_well:  # tarfile takes a header that is none for the end
            raise ScanFailed(f"{self._name} is damaged: an entry's header is none")
        unpacked.finish()


def rooted(name: str) -> str:
    """Return a path of an archive as it is below the image's root."""
    return posixpath.normpath("/" + name[:_MAX_NAME]).lstrip("/")
