"""The application called directly, as a door would call it, and what comes back."""

import json
import os
from collections.abc import Iterable
from typing import Any, NamedTuple

from cypd.doors.asgi import REQUEST_SLABS, ZEROCOPY_SEND, Application, Message
from tests.daemon import basic


class Response(NamedTuple):
    """An answer."""

    status: int
    headers: dict[str, str]
    body: bytes
    used: list[str]
    """The types of the messages that brought the body."""
    pieces_read: int
    """How much of the request's body was asked for."""

    def json(self) -> Any:
        """Return the body's document."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The error code of the body."""
        code: str = self.json()["errors"][0]["code"]
        return code


class Cut(Exception):
    """Put into a body's pieces: here the client goes away."""


class Client:
    """Sends requests to an ASGI application as somebody, through a door with these extensions."""

    def __init__(
        self,
        application: Application,
        user: str = "",
        password: str = "",
        extensions: Iterable[str] = (ZEROCOPY_SEND, REQUEST_SLABS),
    ) -> None:
        self._application = application
        self._extensions = extensions
        self.server = ("192.0.2.1", 5000)
        self.scheme = "http"
        self._authorization = basic(user, password) if user else None

    async def request(
        self,
        method: str,
        url: str,
        body: bytes | Iterable[bytes | Cut] = b"",
        headers: dict[str, str] | None = None,
    ) -> Response:
        """Send a request; a body in pieces is sent without a Content-Length."""
        path, _, query = url.partition("?")
        fields = {key.lower(): value for key, value in (headers or {}).items()}
        if self._authorization:
            fields.setdefault("authorization", self._authorization)
        if isinstance(body, bytes):
            if body or method in ("PUT", "PATCH", "POST"):
                fields.setdefault("content-length", str(len(body)))
            body = [body]
        exchange = _Exchange(body)
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "server": self.server,
            "scheme": self.scheme,
            "headers": [(k.encode(), v.encode("latin-1")) for k, v in fields.items()],
            "extensions": {name: {"receive": exchange.receive} for name in self._extensions},
        }
        await self._application(scope, exchange.receive, exchange.send)
        return exchange.response()


class _Exchange:
    def __init__(self, pieces: Iterable[bytes | Cut]) -> None:
        self._pieces = [*pieces, b""]
        self._status = 0
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self._is_complete = False
        self.used: list[str] = []
        self.pieces_read = 0

    async def receive(self) -> Message:
        self.pieces_read += 1
        piece = self._pieces.pop(0) if self._pieces else Cut()
        if isinstance(piece, Cut):
            self._pieces.clear()
            return {"type": "http.disconnect"}
        body = memoryview(bytearray(piece))
        return {"type": "http.request", "body": body, "more_body": bool(self._pieces)}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            for key, value in message["headers"]:
                name = key.decode()
                before = f"{self._headers[name]}, " if name in self._headers else ""
                self._headers[name] = before + value.decode()
            return
        self.used.append(message["type"])
        if message["type"] == ZEROCOPY_SEND:
            count, offset = message["count"], message["offset"]
            self._body += os.pread(message["file"], count, offset)
        else:
            self._body += message["body"]
        self._is_complete = not message.get("more_body")

    def response(self) -> Response:
        if self._status:
            assert self._is_complete, "the answer has no end"
        body = bytes(self._body)
        return Response(self._status, self._headers, body, self.used, self.pieces_read)
