"""Applications that tests put behind a door."""

import asyncio
from typing import Any

from cypd.doors.asgi import REQUEST_SLABS, Receive, Scope, Send


async def answer(send: Send, body: bytes = b"", status: int = 200, **headers: str) -> None:
    """Send a whole response; ``content_length="5"`` becomes a header."""
    fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


async def hello(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Answer without looking."""
    await answer(send, b"hello")


async def whole_body(receive: Receive) -> tuple[bytes, bool]:
    """All of a request body, and whether the client stayed to its end."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return body, False
        body += bytes(message["body"])
        if not message["more_body"]:
            return body, True


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the whole body, through slabs if there are any, and send it back."""
    slabs = scope["extensions"].get(REQUEST_SLABS)
    body, _ = await whole_body(slabs["receive"] if slabs else receive)
    await answer(send, body)


class Recorder:
    """Notes every request with its body as it came, and answers with their count."""

    def __init__(self, *, slabs: bool = True) -> None:
        self.slabs = slabs
        self.scopes: list[Scope] = []
        self.bodies: list[tuple[bytes, bool]] = []
        self.heard = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        extension = scope["extensions"].get(REQUEST_SLABS) if self.slabs else None
        self.bodies.append(await whole_body(extension["receive"] if extension else receive))
        self.heard.set()
        await answer(send, b"%d" % len(self.scopes))

    def only(self, key: str) -> Any:
        """A value from the scope of the only request."""
        (scope,) = self.scopes
        return scope[key]
