"""A request body on its way from the socket to the application."""

import asyncio
from typing import TYPE_CHECKING, Final

from cypd.doors.asgi import Message
from cypd.doors.plain.h1 import ChunkedDecoder, Decoder, Head, LengthDecoder
from cypd.doors.plain.response import CONTINUE
from cypd.doors.plain.slabs import Slab

if TYPE_CHECKING:
    from cypd.doors.plain.protocol import Connection

_LOOKS: Final = 8  # of the door, before a part of a slab is handed over

DISCONNECT: Message = {"type": "http.disconnect"}


class Body:
    """The body of one request, read only while the application waits in ``receive``.

    Between two calls the kernel holds what arrives; when its buffer is full, the client waits.
    So memory is bounded by two slabs whatever the client sends.

    A slab is handed over when it is full, when the body ends, and after some sweeps of the door, so
    that a client may pause. ``receive`` in its plain form hands over copies of whatever is there.
    """

    __slots__ = (
        "_connection",
        "_early",
        "_expect_continue",
        "_fill",
        "_filling",
        "_finished",
        "_looks",
        "_minimum",
        "_slabs",
        "_turn",
        "_waiter",
        "broken",
        "decoder",
        "received",
    )

    def __init__(self, connection: "Connection", head: Head) -> None:
        """Decode what came together with the head. Raises RequestError."""
        self._connection = connection
        self.decoder: Decoder = ChunkedDecoder() if head.chunked else LengthDecoder(head.length)
        self.broken = False  # no more will come
        self.received = 0  # bytes from the socket, framing included
        self._expect_continue = head.expect_continue
        self._finished = False  # the last piece was handed over
        self._slabs: list[Slab | None] = [None, None]
        self._turn = 0  # the slab that is filled next or now
        self._filling: Slab  # the slab that is filled now
        self._fill = 0  # payload bytes in it
        self._minimum = 1  # payload bytes that end the present wait
        self._looks = 0  # of the door during it
        self._waiter: asyncio.Future[None] | None = None
        pending = bytearray(connection.pending)
        end, consumed = self.decoder.decode(pending, 0, len(pending))
        self._early = bytes(pending[:end])
        connection.pending = bytes(pending[consumed:])

    # What the application calls

    async def receive(self) -> Message:
        """ASGI's ``receive``."""
        return await self._receive(1)

    async def receive_slab(self) -> Message:
        """The ``receive`` of the extension ``cypd.request.slabs``."""
        return await self._receive(self._connection.door.slabs.size)

    async def _receive(self, minimum: int) -> Message:
        if self._finished:
            await self._connection.gone()
            return DISCONNECT
        if self.broken and not self._early:
            return DISCONNECT
        if self._expect_continue:
            self._ask_for_body()
        if self.decoder.done or self.broken or len(self._early) >= minimum:  # no slab is needed
            return self._message(memoryview(self._take_early()), copy=minimum == 1)
        slab = self._filling = self._next_slab()
        self._fill = len(self._early)
        slab.data[: self._fill] = self._take_early()
        await self._filled(minimum)
        if self.broken and not self._fill:
            return DISCONNECT
        self._turn = 1 - self._turn
        return self._message(slab.give(self._fill), copy=minimum == 1)

    def _message(self, body: memoryview, *, copy: bool) -> Message:
        self._finished = self.decoder.done
        return {
            "type": "http.request",
            "body": bytes(body) if copy else body,
            "more_body": not self._finished,
        }

    def _ask_for_body(self) -> None:
        """RFC 9110 section 10.1.1: 100 only if the body is wanted and has not come already."""
        self._expect_continue = False
        exchange = self._connection.exchange
        unanswered = exchange is not None and not exchange.started
        if unanswered and not self._early and not self.decoder.done:
            self._connection.write(CONTINUE)

    def _take_early(self) -> bytes:
        early, self._early = self._early, b""
        return early

    def _next_slab(self) -> Slab:
        """The slab that was given two calls ago, or a fresh one."""
        slab = self._slabs[self._turn]
        if slab is None or not slab.take_back():
            slab = self._slabs[self._turn] = self._connection.door.slabs.borrow()
        return slab

    async def _filled(self, minimum: int) -> None:
        self._minimum = minimum
        self._looks = 0
        self._waiter = self._connection.door.loop.create_future()
        self._connection.arm(self)
        try:
            await self._waiter
        finally:
            self._waiter = None
            self._connection.disarm(self)

    # What the connection calls

    def space(self) -> memoryview:
        """Where the next bytes of the body go."""
        data = self._filling.data
        free = len(data) - self._fill
        return memoryview(data)[self._fill : self._fill + self.decoder.wanted(free)]

    def filled(self, size: int) -> None:
        """Take ``size`` bytes that arrived in ``space``. Raises RequestError."""
        data = self._filling.data
        self.received += size
        stop = self._fill + size
        self._fill, consumed = self.decoder.decode(data, self._fill, stop)
        if consumed < stop:  # the beginning of the next request
            self._connection.pending += data[consumed:stop]
        if self._fill >= self._minimum or self.decoder.done:
            self._wake()

    def hurry(self) -> None:
        """Called once a sweep: hand over a part of a slab that does not get full.

        Not at once. An application goes to a thread and a disk for each part, which thousands of
        clients that send a byte now and then would have it do all the time.
        """
        self._looks += 1
        if self._fill and self._looks >= _LOOKS:
            self._wake()

    def break_off(self) -> None:
        """No more will come; what did come is handed over first."""
        self.broken = not self.decoder.done
        self._wake()

    def release(self) -> None:
        """Give the slabs back: the request is over."""
        for slab in self._slabs:
            if slab is not None:
                self._connection.door.slabs.give_back(slab)
        self._slabs = [None, None]

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
