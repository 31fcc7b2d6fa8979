"""One request and its response, in ASGI's words."""

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from cypd.doors.asgi import REQUEST_SLABS, ZEROCOPY_SEND, FileRange, Message, Scope, file_range
from cypd.doors.plain import sendfile
from cypd.doors.plain.body import DISCONNECT, Body
from cypd.doors.plain.h1 import Head
from cypd.doors.plain.response import (
    LAST_CHUNK,
    Framing,
    ResponseHead,
    frame,
    plain_text,
    read_head,
    serialise,
)
from cypd.logs import trace_id

if TYPE_CHECKING:
    from cypd.doors.plain.protocol import Connection

_log = logging.getLogger(__name__)

_ASGI = {"version": "3.0", "spec_version": "2.4"}
_EXTENSIONS: dict[str, dict[str, Any]] = {ZEROCOPY_SEND: {}}
# Up to here one copy behind the head is cheaper than a second buffer in writev(2).
_ONE_WRITE = 64 * 1024


class Exchange:
    """Runs the application for one request; ``receive`` and ``send`` are what it is given."""

    __slots__ = (
        "_framing",
        "_head",
        "_left",
        "_received",
        "body",
        "complete",
        "connection",
        "keep_alive",
        "response",
        "started",
    )

    def __init__(self, connection: "Connection", head: Head) -> None:
        """Raises RequestError for a body that is malformed from its start."""
        self.connection = connection
        # Request
        self._head = head
        self.body = Body(connection, head) if head.length or head.chunked else None
        self._received = False
        # Response
        self.response: ResponseHead | None = None
        self.started = False  # bytes of the response may be on their way
        self.complete = False
        self.keep_alive = head.keep_alive
        self._framing = Framing.NONE
        self._left = 0  # bytes that the declared length still promises

    def __repr__(self) -> str:
        return f"<Exchange {self._head!r} started={self.started} complete={self.complete}>"

    # Life

    async def run(self) -> None:
        """Run the application to its end, whatever that is."""
        connection, scope = self.connection, self._scope()
        try:
            await connection.door.app(scope, self.receive, self.send)
        except Exception as error:  # noqa: BLE001 - whatever an application raises
            self._failed(error, scope)
        except BaseException:
            connection.abort()  # cancelled: what was sent is not whole
            raise
        else:
            if not self.complete and not connection.lost:
                self._failed(RuntimeError("the application did not complete its response"), scope)
        finally:
            if self.body is not None:
                self.body.release()
            connection.exchange_done(self)

    def _failed(self, error: Exception, scope: Scope) -> None:
        connection = self.connection
        if connection.lost and isinstance(error, ConnectionError):
            return  # send() said that nobody listens any more
        trace = trace_id(scope)
        _log.error(
            "request failed: %s %r trace=%s",
            self._head.method,
            self._head.raw_path,  # a query may hold a secret
            trace,
            exc_info=error,
        )
        if self.started or connection.lost:
            connection.abort()  # the only way left to say that the response is not whole
            return
        self.started = self.complete = True
        self.keep_alive = False
        connection.write(
            plain_text(
                HTTPStatus.INTERNAL_SERVER_ERROR,
                f"trace {trace}",
                date=connection.door.date,
                head_only=self._head.method == "HEAD",
            )
        )

    def _scope(self) -> Scope:
        head, connection = self._head, self.connection
        extensions = _EXTENSIONS
        if self.body is not None:
            extensions = {**_EXTENSIONS, REQUEST_SLABS: {"receive": self.body.receive_slab}}
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": head.http_version,
            "method": head.method,
            "scheme": "http",
            "path": head.path,
            "raw_path": head.raw_path,
            "query_string": head.query,
            "root_path": "",
            "headers": head.headers,
            "client": connection.client,
            "server": connection.server,
            "extensions": extensions,
        }

    # ASGI

    async def receive(self) -> Message:
        """ASGI's ``receive``: the body, then ``http.disconnect`` once the client has gone."""
        if self.body is not None:
            return await self.body.receive()
        if self._received:
            await self.connection.gone()
            return DISCONNECT
        self._received = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: Message) -> None:
        """ASGI's ``send``. Raises OSError once the client has gone, ValueError and RuntimeError
        for messages that cannot become a well-framed response.
        """
        if self.connection.lost:
            raise ConnectionResetError("the client has gone")
        kind = message["type"]
        if kind == "http.response.start":
            if self.response is not None:
                raise RuntimeError("the response has been started already")
            self.response = read_head(message["status"], message.get("headers", ()))
        elif self.response is None or self.complete or self.connection.pump is not None:
            raise RuntimeError(f"unexpected ASGI message {kind!r}")
        elif kind == "http.response.body":
            self._send_body(
                self.response, message.get("body", b""), more=message.get("more_body", False)
            )
            if self.connection.write_paused:
                await self.connection.drained()
        elif kind == ZEROCOPY_SEND:
            piece, more = file_range(message), bool(message.get("more_body"))
            await self._send_file(self.response, piece, more=more)
        else:
            raise RuntimeError(f"unknown ASGI message {kind!r}")
        if self.complete:
            self.connection.wake_waiters()

    # Response

    def _begin(self, response: ResponseHead, body: int | None) -> bytes:
        """Settle framing and keep-alive; returns the head."""
        connection = self.connection
        self.started = True
        self._framing = frame(
            response, method=self._head.method, http_version=self._head.http_version, body=body
        )
        self._left = response.length or 0
        # What an unread body would leave in the connection is not a request.
        unread = self.body is not None and not self.body.decoder.done
        if response.close or unread or connection.closing or self._framing is Framing.CLOSE:
            self.keep_alive = False
        return serialise(
            response,
            self._framing,
            date=connection.door.date,
            http_version=self._head.http_version,
            keep_alive=self.keep_alive,
        )

    def _account(self, size: int, *, more: bool) -> None:
        """Hold the application to the length it has declared."""
        if self._framing is Framing.LENGTH:
            self._left -= size
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("the response body does not have its declared length")

    def _send_body(self, response: ResponseHead, body: bytes, *, more: bool) -> None:
        if not isinstance(body, bytes):
            body = bytes(body)  # the transport may keep it after the application changes it
        head = b"" if self.started else self._begin(response, None if more else len(body))
        self._account(len(body), more=more)
        self.complete = not more
        if self._framing is Framing.NONE:
            body = b""
        elif self._framing is Framing.CHUNKED:
            body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + (
                b"" if more else LAST_CHUNK
            )
        connection = self.connection
        if len(body) <= _ONE_WRITE:
            connection.write(head + body)
        else:
            connection.write_many((head, body))

    async def _send_file(self, response: ResponseHead, piece: FileRange, *, more: bool) -> None:
        file, start, stop = piece
        count = stop - start
        head = b"" if self.started else self._begin(response, None if more else count)
        self._account(count, more=more)
        if self._framing is Framing.NONE or not count:
            self.connection.write(head)
        elif self._framing is Framing.CHUNKED:
            await sendfile.send(self.connection, head + b"%x\r\n" % count, file, start, count)
            self.connection.write(b"\r\n")
        else:
            await sendfile.send(self.connection, head, file, start, count)
        if self._framing is Framing.CHUNKED and not more:
            self.connection.write(LAST_CHUNK)
        self.complete = not more
