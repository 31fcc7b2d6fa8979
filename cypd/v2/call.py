"""One request and its answer, as the handlers see them."""

import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qsl

import orjson

from cypd.access import ANONYMOUS, Act
from cypd.doors.asgi import REQUEST_SLABS, Receive, Scope, Send
from cypd.logs import trace_id
from cypd.oci.digest import Digest
from cypd.oci.endpoints import Reference, Target
from cypd.oci.errors import Code, OCIError
from cypd.oci.names import RepositoryName

Headers = list[tuple[bytes, bytes]]

# On every answer: docker looks for the first; the others keep a browser from running what somebody
# pushed (Harbor CVE-2025-32019, Gitea CVE-2024-6886).
COMMON: Headers = [
    (b"docker-distribution-api-version", b"registry/2.0"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"sandbox"),
]
JSON = b"application/json"


class ClientGone(Exception):
    """The connection ended before the request's body did."""


class Call:
    """A request that was parsed and authenticated, and the way to answer it."""

    __slots__ = ("_receive", "_send", "has_started", "is_head", "principal", "scope", "target")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.target: Target
        self.principal = ANONYMOUS
        self.is_head = scope["method"] == "HEAD"
        self.has_started = False
        self._receive = receive
        self._send = send

    # --- the request ----------------------------------------------------------------------------

    @property
    def repository(self) -> RepositoryName:
        """The repository that the path names."""
        assert self.target.repository is not None  # noqa: S101 (the endpoint has one)
        return self.target.repository

    @property
    def reference(self) -> Reference:
        """The tag or digest that the path names."""
        assert self.target.reference is not None  # noqa: S101 (the endpoint has one)
        return self.target.reference

    @property
    def digest(self) -> Digest:
        """The digest that the path names."""
        assert isinstance(self.target.reference, Digest)  # noqa: S101 (the endpoint has one)
        return self.target.reference

    def header(self, name: bytes) -> str | None:
        """Return a header, lower-case ``name``; several of one name as a list (RFC 9110 5.3)."""
        found = [value for key, value in self.scope["headers"] if key == name]
        return b", ".join(found).decode("latin-1") if found else None

    @property
    def address(self) -> str:
        """The address that the request came from."""
        client = self.scope.get("client")
        return client[0] if client else ""

    @property
    def act(self) -> Act:
        """Who asks, now and from where."""
        principal, trace = self.principal, trace_id(self.scope)
        return Act(time.time(), principal.user_id, principal.name, self.address, trace)

    def query(self) -> dict[str, list[str]]:
        """Return the query's parameters, each with all its values."""
        query = self.scope["query_string"]
        found: dict[str, list[str]] = {}
        try:
            pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict")
        except ValueError:
            raise OCIError(Code.UNSUPPORTED, "the query is not well formed", status=400) from None
        for key, value in pairs:
            found.setdefault(key, []).append(value)
        return found

    def content_length(self) -> int | None:
        """Return how long the body says it is; the door lets only whole numbers through."""
        text = self.header(b"content-length")
        return int(text) if text else None

    async def body(self) -> AsyncIterator[bytes | memoryview]:
        """Yield the body's pieces; raise ClientGone where it breaks off.

        A piece stays as it is until the second next one is asked for.
        """
        slabs = self.scope["extensions"].get(REQUEST_SLABS)
        receive = slabs["receive"] if slabs else self._receive
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            if message.get("body"):
                yield message["body"]
            more = message.get("more_body", False)

    # --- the answer -----------------------------------------------------------------------------

    async def start(self, status: int, headers: Headers) -> None:
        """Send status and headers; the body follows by ``send``."""
        self.has_started = True
        message = {"type": "http.response.start", "status": status, "headers": COMMON + headers}
        await self._send(message)

    async def send(self, message: dict[str, Any]) -> None:
        """Send a piece of the body, as ASGI or one of its extensions has it."""
        await self._send(message)

    async def answer(self, status: int, headers: Headers, body: bytes = b"") -> None:
        """Send a whole answer."""
        await self.start(status, [*headers, (b"content-length", b"%d" % len(body))])
        await self._send({"type": "http.response.body", "body": body})

    async def answer_head(self, headers: Headers, size: int) -> None:
        """Send what GET would say of ``size`` bytes, without them (RFC 9110 9.3.2)."""
        await self.start(200, [*headers, (b"content-length", b"%d" % size)])
        await self._send({"type": "http.response.body", "body": b""})

    async def answer_empty(self, status: int, headers: Headers) -> None:
        """Send an answer that has no body and no length by definition: 204 or 304."""
        await self.start(status, headers)
        await self._send({"type": "http.response.body", "body": b""})

    async def answer_json(self, document: Any, headers: Headers | None = None) -> None:
        """Send a JSON document with status 200."""
        await self.answer(200, [(b"content-type", JSON), *(headers or [])], orjson.dumps(document))
