"""One request and its response: ASGI as the plaintext door speaks it, over ASGI as Granian does.

Granian's ``send`` neither fails when the client has gone nor looks at what it is given: a body
that is no ``bytes`` becomes an empty one, a body to HEAD is sent, a wrong length as well.
"""

import asyncio
import logging
import os
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from cypd.doors import page_cache
from cypd.doors.asgi import (
    ZEROCOPY_SEND,
    Application,
    FileRange,
    Message,
    Receive,
    Scope,
    Send,
    file_range,
)
from cypd.doors.plain.body import DISCONNECT
from cypd.doors.plain.h1 import RequestError
from cypd.doors.plain.limits import Limits
from cypd.doors.plain.response import ResponseHead, read_head
from cypd.doors.tls.request import read_scope
from cypd.logs import trace_id

_log = logging.getLogger(__name__)

_SERVER = (b"server", b"cypd")  # without one, Granian writes its own name
_WITH_BODY = frozenset(("PUT", "POST", "PATCH"))
_UNSENT = frozenset((b"transfer-encoding", b"keep-alive"))
# Of a file, read and given to Granian at once, which keeps about six of them for a client beside
# what it keeps anyway (0.5 MiB). With 64 KiB a byte costs a sixth more: they are for who may read
# nothing, as long as the kernel can have most of what was sent. 128 KiB to 1 MiB cost the same.
_PIECE_BYTES, _FIRST_PIECE_BYTES = 256 * 1024, 64 * 1024
_TRUSTED_BYTES = 4 * 1024 * 1024
_WARM_BYTES = 1024 * 1024


class Exchange:
    """Runs the application for one request; ``receive`` and ``send`` are what it is given."""

    def __init__(self, limits: Limits, scope: Scope, receive: Receive, send: Send) -> None:
        self._limits = limits
        self._given = scope
        self._receive = receive
        self._send = send
        # Request
        self._is_head = scope["method"] == "HEAD"
        self._unread: Message | None = None  # taken by the watch, and the application's still
        self._body_done = False
        self._asked = False  # for the body
        self.lost = False  # the client has gone, or is too slow to wait for
        self._too_slow = False
        self._waited = 0.0  # seconds for the client in this window of rate, and
        self._arrived = 0  # bytes that came meanwhile
        # Response
        self._headers: list[tuple[bytes, bytes]] = []
        self._response: ResponseHead | None = None
        self._started = False
        self._complete = False
        self._left = 0  # bytes that the declared length still promises
        self._handed = 0  # bytes of the body that Granian has got
        self._watch: asyncio.Task[None] | None = None

    # Life

    async def run(self, app: Application) -> None:
        """Run the application to its end, whatever that is.

        Where a response is begun and not complete, Granian cuts it off when this returns.
        """
        scope = self._given
        try:
            scope = read_scope(self._given, self._limits, self.receive_slab)
            await app(scope, self.receive, self.send)
            if not self._complete and not self.lost:
                self._failed(RuntimeError("the application did not complete its response"), scope)
                await self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, "no answer")
        except RequestError as error:
            await self._answer(error.status, error.reason)
        except asyncio.CancelledError:
            await self._answer(HTTPStatus.SERVICE_UNAVAILABLE, "the server stops")
        except Exception as error:  # noqa: BLE001 - whatever an application raises
            if not (self.lost and isinstance(error, ConnectionError)):
                trace = self._failed(error, scope)
                await self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, f"trace {trace}")
        finally:
            if self._watch is not None:
                self._watch.cancel()
        await self._linger()

    def _failed(self, error: Exception, scope: Scope) -> str:
        trace = trace_id(scope)
        method, path = self._given["method"], self._given["raw_path"]  # a query may hold a secret
        _log.error("request failed: %s %r trace=%s", method, path, trace, exc_info=error)
        return trace

    async def _answer(self, status: HTTPStatus, reason: str) -> None:
        """Answer in the door's own name, if nothing was sent yet."""
        if self._started or self.lost:
            return
        text = f"{status.value} {status.phrase}: {reason}\n".encode("ascii", "replace")
        self._response = None
        headers = [
            (b"content-type", b"text/plain; charset=us-ascii"),
            (b"content-length", b"%d" % len(text)),
            (b"connection", b"close"),
        ]
        await self.send({"type": "http.response.start", "status": status.value, "headers": headers})
        await self.send({"type": "http.response.body", "body": text})

    async def _linger(self) -> None:
        """Read a little of a body that nobody wanted: the client may be sending it still.

        If the connection closed on what it sends, the reset could overtake the answer.
        """
        if self._body_done or self.lost or not self._complete or not self._may_send_more():
            return
        left = self._limits.linger_bytes
        try:
            async with asyncio.timeout(self._limits.linger):
                while left > 0 and (message := await self._receive()).get("more_body"):
                    left -= len(message["body"])
        except TimeoutError:
            pass

    def _may_send_more(self) -> bool:
        """Is there a body at all, and was the client not waiting to be asked for it?

        RFC 9110 section 10.1.1: who waited for 100 and got a refusal sends none. Clients of HTTP/2
        do not wait.
        """
        fields = dict(self._given["headers"])
        if not fields.keys() & {b"content-length", b"transfer-encoding"}:
            return self._given["http_version"] == "2" and self._given["method"] in _WITH_BODY
        waits = fields.get(b"expect", b"").lower() == b"100-continue"
        return self._asked or not waits or self._given["http_version"] == "2"

    # ASGI: the request

    async def receive(self) -> Message:
        """ASGI's ``receive``: the body, then ``http.disconnect`` once the client has gone."""
        if self.lost:
            return DISCONNECT
        if self._body_done:
            message = await self._receive()
        elif self._unread is not None:
            message, self._unread = self._unread, None
        else:
            message = await self._receive_body()
        if message["type"] == "http.disconnect":
            self.lost = not self._complete
        elif not message["more_body"]:
            self._body_done = True
        return message

    async def _receive_body(self) -> Message:
        """Wait for a piece, as long as the client keeps to the least rate while it is awaited."""
        self._asked = True
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None  # noqa: S101 (Granian makes one for each request)
        began = loop.time()
        # No asyncio.timeout: what Granian has taken from the client is lost in a cancelled future.
        timer = loop.call_later(self._limits.rate_window - self._waited, self._judge, task)
        try:
            message = await self._receive()
        except asyncio.CancelledError:
            if not self._too_slow:
                raise
            task.uncancel()
            return DISCONNECT
        finally:
            timer.cancel()
        self._waited += loop.time() - began
        self._arrived += len(message.get("body", b""))
        if self._waited >= self._limits.rate_window:
            if self._is_slow():
                return DISCONNECT
            self._waited, self._arrived = 0.0, 0
        return message

    def _is_slow(self) -> bool:
        return self._arrived < self._limits.rate * self._limits.rate_window

    def _judge(self, waiting: asyncio.Task[Any]) -> None:
        if self._is_slow():
            self._too_slow = True
            waiting.cancel()

    async def receive_slab(self) -> Message:
        """The ``receive`` of the extension ``cypd.request.slabs``.

        Frames of HTTP/2 are often 16 KiB: an application that goes to a thread for each piece of
        a body had better get larger ones.
        """
        pieces: list[bytes] = []
        size, more = 0, True
        while more and size < self._limits.slab_bytes:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                if not pieces:
                    return message
                break
            pieces.append(message["body"])
            size += len(message["body"])
            more = message["more_body"]
        body = memoryview(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        return {"type": "http.request", "body": body, "more_body": more}

    # ASGI: the response

    async def send(self, message: Message) -> None:
        """ASGI's ``send``. Raises OSError once the client has gone, ValueError and RuntimeError
        for messages that cannot become a well-framed response.
        """
        if self.lost:
            raise ConnectionResetError("the client has gone")
        kind = message["type"]
        if kind == "http.response.start":
            if self._response is not None:
                raise RuntimeError("the response has been started already")
            self._response = read_head(message["status"], message.get("headers", ()))
            self._headers = _sendable(message.get("headers", ()), self._response)
            self._left = self._response.length or 0
        elif self._response is None or self._complete:
            raise RuntimeError(f"unexpected ASGI message {kind!r}")
        elif kind == "http.response.body":
            body = bytes(message.get("body", b""))
            await self._send_body(self._response, body, more=message.get("more_body", False))
        elif kind == ZEROCOPY_SEND:
            piece, more = file_range(message), bool(message.get("more_body"))
            await self._send_file(self._response, piece, more=more)
        else:
            raise RuntimeError(f"unknown ASGI message {kind!r}")

    def _has_body(self, response: ResponseHead) -> bool:
        return response.may_have_body() and not self._is_head

    async def _begin(self, response: ResponseHead, size: int | None) -> None:
        """Send the head; ``size`` is the length of the whole body if it is known already."""
        if response.length is None and response.may_have_body() and size is not None:
            response.length = size
            if size or not self._is_head:
                self._headers.append((b"content-length", b"%d" % size))
        self._started = True
        head = {"type": "http.response.start", "status": response.status, "headers": self._headers}
        await self._send(head)

    def _account(self, response: ResponseHead, size: int, *, more: bool) -> None:
        """Hold the application to the length it has declared."""
        if response.length is not None and self._has_body(response):
            self._left -= size
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("the response body does not have its declared length")

    async def _send_body(self, response: ResponseHead, body: bytes, *, more: bool) -> None:
        self._account(response, len(body), more=more)
        if not self._started:
            await self._begin(response, None if more else len(body))
        await self._put(response, body, more=more)

    async def _put(self, response: ResponseHead, body: bytes, *, more: bool) -> None:
        """Give Granian bytes of the body, and wait until there is room for others."""
        if not self._has_body(response):
            body = b""
            if more:
                return
        if self.lost:
            raise ConnectionResetError("the client has gone")
        if more and self._watch is None:
            self._watch = asyncio.create_task(self._watch_client())
        self._complete = not more
        self._handed += len(body)
        try:
            async with asyncio.timeout(self._limits.rate_window + len(body) / self._limits.rate):
                await self._send({"type": "http.response.body", "body": body, "more_body": more})
        except TimeoutError:
            self.lost = True
            raise ConnectionResetError("the client does not read") from None

    async def _send_file(self, response: ResponseHead, piece: FileRange, *, more: bool) -> None:
        """Send a piece of a file in smaller ones, as the client takes them."""
        file, start, stop = piece
        self._account(response, stop - start, more=more)
        if not self._started:
            await self._begin(response, None if more else stop - start)
        if start == stop or not self._has_body(response):
            await self._put(response, b"", more=more)
            return
        warm_until = start
        while start < stop:
            if start >= warm_until:
                warm_until = await _warm(file, start, stop)
            most = _PIECE_BYTES if self._handed >= _TRUSTED_BYTES else _FIRST_PIECE_BYTES
            body = os.pread(file, min(most, stop - start), start)
            if not body:
                raise EOFError("the file is shorter than its response")
            start += len(body)
            await self._put(response, body, more=more or start < stop)

    async def _watch_client(self) -> None:
        """While a body is streamed: notice that nobody is there to get it."""
        message: Message = {"type": "http.request", "more_body": False}
        while message["type"] != "http.disconnect":
            message = await self._receive()
            if message.get("body") and not self._body_done:
                self._unread = message
                return  # the client is there, and sends
            self._body_done = True
        self.lost = not self._complete


async def _warm(file: int, start: int, stop: int) -> int:
    """Have the page cache read ahead where it has to; return up to where it has the file then."""
    size = min(_WARM_BYTES, stop - start)
    if page_cache.is_cold(file, start, size):
        await page_cache.warm(asyncio.get_running_loop(), file, start, size, stop - start)
    return start + size


def _sendable(
    headers: Iterable[tuple[bytes, bytes]], response: ResponseHead
) -> list[tuple[bytes, bytes]]:
    """The fields as Granian takes them, without those that are the door's own."""
    sent = [_SERVER]
    for name, value in headers:
        key = bytes(name).lower()
        if key not in _UNSENT and not (key == b"content-length" and response.status == 204):
            sent.append((key, bytes(value)))
    return sent
