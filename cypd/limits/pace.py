"""The bytes of one request, held to the pace of its client and its project."""

import asyncio
from collections.abc import Callable
from typing import Final

from cypd.doors.asgi import REQUEST_SLABS, ZEROCOPY_SEND, Message, Receive, Scope, Send

Pay = Callable[[int], float]
"""Takes a number of bytes, returns the seconds to wait for them."""

# A file goes out in pieces of a quarter of a second, so that nobody waits long for the next byte.
_PIECE_SECONDS: Final = 0.25
_LEAST: Final = 256 * 1024
_MOST: Final = 16 * 1024 * 1024


def paced(
    scope: Scope, receive: Receive, send: Send, rate: float, pay: Pay
) -> tuple[Receive, Send]:
    """Return what an application is called with so that it keeps to ``pay``.

    ``rate`` (bytes a second) says how large the pieces of a file are. Changes the scope's
    ``extensions``.
    """
    piece = int(min(max(rate * _PIECE_SECONDS, _LEAST), _MOST))

    def paced_receive(inner: Receive) -> Receive:
        async def receive_and_pay() -> Message:
            message = await inner()
            await _wait(pay(len(message.get("body", b""))))
            return message

        return receive_and_pay

    async def paced_send(message: Message) -> None:
        kind = message["type"]
        if kind == ZEROCOPY_SEND:
            await _send_pieces(send, message, piece, pay)
            return
        if kind == "http.response.body":
            await _wait(pay(len(message.get("body", b""))))
        await send(message)

    slabs = scope["extensions"].get(REQUEST_SLABS)
    if slabs is not None:
        extension = {"receive": paced_receive(slabs["receive"])}
        scope["extensions"] = {**scope["extensions"], REQUEST_SLABS: extension}
    return paced_receive(receive), paced_send


async def _send_pieces(send: Send, message: Message, piece: int, pay: Pay) -> None:
    offset, left = message["offset"], message["count"]
    while left > piece:
        await _wait(pay(piece))
        await send({**message, "offset": offset, "count": piece, "more_body": True})
        offset += piece
        left -= piece
    await _wait(pay(left))
    await send({**message, "offset": offset, "count": left})


async def _wait(seconds: float) -> None:
    if seconds:
        await asyncio.sleep(seconds)
