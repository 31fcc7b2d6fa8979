"""Answers that end when nobody listens any more."""

import asyncio
from collections.abc import AsyncGenerator

from cypd.doors.asgi import Receive


async def until_gone(
    pieces: AsyncGenerator[bytes, None], receive: Receive
) -> AsyncGenerator[bytes, None]:
    """Yield the pieces until there are no more, or the client has hung up.

    What is silent for long would otherwise notice that only when it speaks.
    """
    gone = asyncio.create_task(_wait_until_gone(receive))
    try:
        while True:
            step = asyncio.ensure_future(anext(pieces, None))
            await asyncio.wait({step, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not step.done():
                step.cancel()
                await asyncio.wait({step})
                return
            if (piece := await step) is None:
                return
            yield piece
    finally:
        gone.cancel()
        await pieces.aclose()


async def _wait_until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
