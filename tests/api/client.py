"""The application called as a door would call it, directly or through the real door."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from cypd.doors.asgi import Application, Message
from tests.doors.client import Client as Wire

Body = bytes | Iterable[bytes]


class Response(NamedTuple):
    """An answer."""

    status: int
    headers: dict[str, str]
    """By lower-case name."""
    body: bytes

    def json(self) -> Any:
        """Return the whole envelope."""
        return json.loads(self.body)

    @property
    def data(self) -> Any:
        """What the envelope carries."""
        return self.json()["data"]

    @property
    def code(self) -> int:
        """The envelope's code."""
        code: int = self.json()["code"]
        return code

    @property
    def field(self) -> str:
        """The field that the first error names."""
        field: str = self.data["errors"][0]["field"]
        return field


class Transport(Protocol):
    """Brings one request to the application and an answer back."""

    async def __call__(
        self, method: str, url: str, headers: Mapping[str, str], body: Body
    ) -> Response: ...


class Client:
    """Sends requests as somebody: ``authorization`` is the header, None for nobody."""

    def __init__(self, transport: Transport, authorization: str | None = None) -> None:
        self._transport = transport
        self._authorization = authorization

    async def request(
        self,
        method: str,
        url: str,
        json_body: Any = None,
        *,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Send a request: a JSON document, or a raw body; pieces are sent without a length.

        Pieces that raise ConnectionError are those of a client that goes away (directly only).
        """
        fields = dict(headers or {})
        if self._authorization is not None:
            fields.setdefault("authorization", self._authorization)
        if body is None:
            body = b"" if json_body is None else json.dumps(json_body).encode()
        if body:
            fields.setdefault("content-type", "application/json")
        if isinstance(body, bytes) and body:
            fields.setdefault("content-length", str(len(body)))
        return await self._transport(method, url, fields, body)

    async def get(self, url: str, **options: Any) -> Response:
        """Send a GET."""
        return await self.request("GET", url, **options)


def direct(application: Application, address: str = "192.0.2.7") -> Transport:
    """Call the application in this task, without a door."""

    async def transport(method: str, url: str, headers: Mapping[str, str], body: Body) -> Response:
        path, _, query = url.partition("?")
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(k.lower().encode(), v.encode("latin-1")) for k, v in headers.items()],
            "client": (address, 50000),
            "extensions": {},
        }
        pieces = iter([body] if isinstance(body, bytes) else body)
        answer: list[Message] = []

        async def receive() -> Message:
            try:
                return {"type": "http.request", "body": next(pieces), "more_body": True}
            except StopIteration:
                return {"type": "http.request", "body": b"", "more_body": False}
            except ConnectionError:
                return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            answer.append(message)

        await application(scope, receive, send)
        start, *parts = answer
        fields = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}
        assert len(fields) == len(start["headers"]), "a header is there twice"
        return Response(start["status"], fields, b"".join(part["body"] for part in parts))

    return transport


def through_door(address: tuple[str, int]) -> Transport:
    """Send each request on a connection of its own."""

    async def transport(method: str, url: str, headers: Mapping[str, str], body: Body) -> Response:
        wire = await Wire.connect(address)
        lines = [f"{method} {url} HTTP/1.1", "host: a"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if not isinstance(body, bytes):
            lines.append("transfer-encoding: chunked")
            body = b"".join(b"%x\r\n%b\r\n" % (len(it), it) for it in body if it) + b"0\r\n\r\n"
        await wire.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        answer = await wire.answer(to_head=method == "HEAD")
        wire.close()
        fields = {name.decode(): value.decode() for name, value in answer.headers.items()}
        return Response(answer.status, fields, answer.body)

    return transport
