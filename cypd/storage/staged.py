"""The file of one upload while a request writes to it: hashed and written off the event loop."""

import asyncio
import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

from cypd.oci.digest import Algorithm, hasher

# Up to this much waits in memory for what comes next: a small blob is then written, checked and
# placed in one trip to a thread.
_HOLD_BYTES = 64 << 10
# How much is handed to the disk at a time while an upload runs, so that the fdatasync at its end
# finds little left to wait for.
_WRITEBACK_BYTES = 32 << 20
_REREAD_BYTES = 1 << 20
_SYNC_FILE_RANGE_WRITE = 2  # linux/fs.h: start the write-out, do not wait

_sync_file_range = ctypes.CDLL(None, use_errno=True).sync_file_range
_sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


class RunningHash(Protocol):
    """What an upload needs of a ``hashlib`` object."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Hash more bytes."""
        ...

    def copy(self) -> Self:
        """Return another one that has seen the same bytes."""
        ...

    def hexdigest(self) -> str:
        """Return the hash of all bytes so far, in hex."""
        ...


class Progress(NamedTuple):
    """How far the bytes of an upload are hashed."""

    size: int
    algorithm: Algorithm
    hash: RunningHash


def hash_file(descriptor: int, size: int, algorithm: Algorithm) -> Progress:
    """Return the progress of a file that nothing is remembered of, by reading it once."""
    return hash_rest(descriptor, size, Progress(0, algorithm, hasher(algorithm)))


def hash_rest(descriptor: int, size: int, progress: Progress) -> Progress:
    """Return the progress of a file of which the beginning is hashed, by reading what follows."""
    offset, algorithm, running = progress
    while offset < size:
        piece = os.pread(descriptor, min(_REREAD_BYTES, size - offset), offset)
        if not piece:
            break
        running.update(piece)
        offset += len(piece)
    return Progress(offset, algorithm, running)


class StagedFile:
    """A ``StagedBlob`` on a file that is open and locked.

    While one piece is hashed and written in a thread, the next one is received; ``write`` returns
    when the piece before it is done.
    """

    def __init__(
        self,
        path: Path,
        descriptor: int,
        progress: Progress,
        offload: Callable[..., "asyncio.Future[Any]"],
    ) -> None:
        # for the whole life
        self.path = path
        self.descriptor = descriptor
        self._offload = offload
        self._origin = progress._replace(hash=progress.hash.copy())
        # what was written
        self.size = progress.size
        self._hashed = progress
        self._held = b""
        self._running: asyncio.Future[Any] | None = None
        self.is_broken = False

    async def write(self, data: bytes | memoryview) -> None:
        await self.settle()
        self.size += len(data)
        if not self._held and len(data) <= _HOLD_BYTES:
            self._held = bytes(data)
            return
        held, self._held = self._held, b""
        self.start(self._append, held, data)

    async def flush(self) -> None:
        await self.settle()
        if self._held:
            held, self._held = self._held, b""
            self.start(self._append, held)
            await self.settle()

    async def rollback(self) -> None:
        await self.settle()
        self._held = b""
        self.size = self._origin.size
        self._hashed = self._origin._replace(hash=self._origin.hash.copy())
        os.ftruncate(self.descriptor, self.size)

    def start(self, function: Callable[..., Any], *arguments: Any) -> "asyncio.Future[Any]":
        """Run a function in a thread, as the one thing that is under way with this file."""
        self._running = self._offload(function, *arguments)
        return self._running

    async def settle(self) -> None:
        """Return when nothing is under way any more; raise what it raised."""
        if (running := self._running) is not None:
            try:
                # Shielded: a cancelled future would look done while its thread goes on writing.
                await asyncio.shield(running)
            finally:
                if running.done():
                    self._running = None

    def finish(self) -> str:
        """Write what is held and return the hash of all bytes, in hex. Blocks."""
        held, self._held = self._held, b""
        self._append(held)
        return self._hashed.hash.hexdigest()

    async def close(self) -> Progress | None:
        """Flush and close; return how far it came, ``None`` if that is not known for sure.

        Also when the task is being cancelled: the descriptor must not be closed, and its number
        given to another file, while a thread still writes to it.
        """
        cancelled: asyncio.CancelledError | None = None
        while self._running is not None and not self._running.done():
            try:
                await asyncio.wait([self._running])
            except asyncio.CancelledError as error:
                cancelled = error
        if self._running is not None:
            self._running.exception()  # told already to who waited; nobody else wants it
        try:
            if self._held and not cancelled:
                self._append(self._held)  # at most _HOLD_BYTES, into the page cache
        finally:
            os.close(self.descriptor)
        if cancelled:
            raise cancelled
        return None if self.is_broken else self._hashed

    def _append(self, *pieces: bytes | memoryview) -> None:
        size, algorithm, running = self._hashed
        try:
            for piece in pieces:
                _write_all(self.descriptor, piece, size)
                running.update(piece)
                _start_writeback(self.descriptor, size, size + len(piece))
                size += len(piece)
        except BaseException:
            self.is_broken = True
            raise
        self._hashed = Progress(size, algorithm, running)


def _write_all(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view = view[written:]
        offset += written


def _start_writeback(descriptor: int, before: int, after: int) -> None:
    start = before // _WRITEBACK_BYTES * _WRITEBACK_BYTES
    stop = after // _WRITEBACK_BYTES * _WRITEBACK_BYTES
    if stop > start:
        # Advice only: a file system that can't do it writes everything at the fdatasync.
        _sync_file_range(descriptor, start, stop - start, _SYNC_FILE_RANGE_WRITE)
