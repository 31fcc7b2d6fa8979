"""Answers that end when nobody listens any more."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from cypd.doors.asgi import Receive


async def until_gone(
    pieces: AsyncGenerator[bytes, None], receive: Receive
) -> AsyncGenerator[bytes, None]:
    """Yield the pieces until there are no more, or the client has hung up.

    What is silent for long would otherwise notice that only when it speaks.
    """
    gone = asyncio.create_task(_wait_until_gone(receive))
    step: asyncio.Future[bytes | None] = asyncio.ensure_future(anext(pieces, None))
    try:
        while True:
            either: set[asyncio.Future[Any]] = {step, gone}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not step.done() or (piece := step.result()) is None:
                return
            yield piece
            step = asyncio.ensure_future(anext(pieces, None))
    finally:
        gone.cancel()
        step.cancel()
        await asyncio.wait({step})  # a generator that still runs can't be closed
        await pieces.aclose()


async def _wait_until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
