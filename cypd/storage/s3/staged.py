"""The bytes of one upload while a request writes to them: through a file, part by part, away.

They are appended to a file of this machine, as the filesystem's engine has it, so that a part that
the store does not take can be sent again, and a chunk that was refused can be forgotten. What has
arrived at the store is cut out of the file (a hole, fallocate(2)), so the file takes a few parts of
room however long it says it is.
"""

import asyncio
import ctypes
import os
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from cypd.registry.ports import Unavailable
from cypd.storage.s3.journal import Journal, Part
from cypd.storage.s3.store import StoreRefused
from cypd.storage.staged import Progress, StagedFile

Send = Callable[[int, int, int, Callable[[], AsyncIterator[bytearray]]], Awaitable[Part]]
"""Stores a part: its number, where it starts, its size, and its bytes, anew for each attempt."""

# Parts on their way at once: one has a gap between its end and the next one's start.
_MOVING = 2
# S3 takes 10,000 parts. They double after each thousand: 5 MiB at first are 5 TB at the end, and
# 16 MiB have become 64 at 100 GB.
_STEP = 1000
_LARGEST_PART = 5 << 30
_PIECE_BYTES = 256 << 10
_KEEP_SIZE_PUNCH_HOLE = 0x03  # linux/falloc.h

_fallocate = ctypes.CDLL(None, use_errno=True).fallocate
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class StagedParts(StagedFile):
    """A ``StagedBlob`` on a file that is open and locked, and on the parts that have left it."""

    def __init__(
        self,
        path: Path,
        descriptor: int,
        progress: Progress,
        offload: Callable[..., "asyncio.Future[Any]"],
        *,
        journal: Journal,
        send: Send,
        part_size: int,
    ) -> None:
        super().__init__(path, descriptor, progress, offload)
        # for the whole life
        self.journal = journal
        self._send = send
        self._part_size = part_size
        self._noted_before = journal.size
        self._origin_size = progress.size
        # what leaves
        self._moving: deque[asyncio.Task[None]] = deque()
        self._next_number = len(journal.parts)
        self._next_start = journal.stored
        punch(descriptor, 0, journal.stored)

    @property
    def has_parts(self) -> bool:
        """Tell whether anything has left the file, or is about to."""
        return self._next_number > 0

    async def write(self, data: bytes | memoryview) -> None:
        await self.settle()  # from here on the hash is at rest, and nothing is written
        await self._move()
        await super().write(data)

    async def rollback(self) -> None:
        await self._stop_moving()
        self.journal.cut(self._noted_before)
        self._next_number = len(self.journal.parts)
        self._next_start = self.journal.stored
        await super().rollback()

    async def move_all(self) -> list[Part]:
        """Send what is left in the file, and return all parts when they are in the store."""
        await self.flush()
        await self._move()
        if self._next_start < self.size:
            self._begin(self.size - self._next_start)
        while self._moving:
            await self._moving[0]
            self._moving.popleft()
        return self.journal.parts

    async def close(self) -> Progress | None:
        try:
            await self._wind_down()
        finally:
            reached = await super().close()
        return reached

    async def _wind_down(self) -> None:
        try:
            if not self.is_broken:
                await self.flush()
            await self._move_quietly()
        except BaseException:
            await self._stop_moving()
            raise
        if self.has_parts and not self.is_broken:
            self.journal.note_hash(self._hashed)
        punch(self.descriptor, 0, self.journal.stored)

    async def _move_quietly(self) -> None:
        # What the store does not take now is in the file, and has its turn with the next request.
        with suppress(Unavailable, StoreRefused):
            await self._move()
        for task in self._moving:
            await asyncio.wait([task])
            task.exception()
        self._moving.clear()

    async def _move(self) -> None:
        """Send the parts that are complete; wait for earlier ones where too many are under way."""
        while self._hashed.size - self._next_start >= self._next_size():
            if not self._next_number:
                self.journal.begin()
            while len(self._moving) >= _MOVING:
                await self._moving[0]
                self._moving.popleft()
            self._begin(self._next_size())
            self.journal.note_hash(self._hashed)

    def _next_size(self) -> int:
        return part_bytes(self._next_number, self._part_size)

    def _begin(self, size: int) -> None:
        part = self._move_part(self._next_number, self._next_start, size)
        self._moving.append(asyncio.ensure_future(part))
        self._next_number += 1
        self._next_start += size

    async def _move_part(self, number: int, start: int, size: int) -> None:
        part = await self._send(number, start, size, lambda: self.region(start, size))
        self.journal.add(part)
        # What was there before this request is kept until it is over: it may be called back.
        punch(self.descriptor, self._origin_size, self.journal.stored)

    async def _stop_moving(self) -> None:
        for task in self._moving:
            task.cancel()
        if self._moving:
            await asyncio.wait(self._moving)
        for task in self._moving:
            if not task.cancelled():
                task.exception()  # of no interest any more
        self._moving.clear()

    async def region(self, offset: int, size: int) -> AsyncIterator[bytearray]:
        """Yield bytes of the file."""
        stop = offset + size
        while offset < stop:
            count = min(_PIECE_BYTES, stop - offset)
            piece = _read_cached(self.descriptor, count, offset)
            if piece is None:
                piece = await asyncio.to_thread(_read, self.descriptor, count, offset)
            offset += len(piece)
            yield piece


def part_bytes(number: int, first: int) -> int:
    """Return how large the part of that number is, where the first one has ``first`` bytes."""
    return min(_LARGEST_PART, first << number // _STEP)


def _read(descriptor: int, count: int, offset: int) -> bytearray:
    piece = bytearray(count)
    if os.preadv(descriptor, [piece], offset) != count:
        raise OSError(f"the file of an upload ends before {offset + count}")
    return piece


def _read_cached(descriptor: int, count: int, offset: int) -> bytearray | None:
    """Return bytes of a file if that takes no disk (preadv2(2), RWF_NOWAIT)."""
    piece = bytearray(count)
    try:
        found = os.preadv(descriptor, [piece], offset, os.RWF_NOWAIT)
    except OSError:  # not in the page cache, or a file system that can't tell
        return None
    return piece if found == count else None


def punch(descriptor: int, start: int, stop: int) -> None:
    """Give back the room of a file's bytes. A file system that can't goes on having them."""
    if start < stop:
        _fallocate(descriptor, _KEEP_SIZE_PUNCH_HOLE, start, stop - start)
