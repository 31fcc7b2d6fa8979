"""Content as pieces, whatever it is: for those who read all of it to the end."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

from cypd.registry.ports import Content, Inline, Remote

_PIECE_BYTES = 1 << 20


async def pieces(content: Content, offset: int = 0) -> AsyncIterator[bytes]:
    """Yield the content from ``offset`` on. It ends early if the content does."""
    if isinstance(content, Inline):
        yield content.data[offset:]
        return
    if isinstance(content, Remote):
        async with contextlib.aclosing(content.read(offset, content.size - offset)) as read:
            async for piece in read:
                yield piece
        return
    while piece := await asyncio.to_thread(os.pread, content.fileno(), _PIECE_BYTES, offset):
        offset += len(piece)
        yield piece
