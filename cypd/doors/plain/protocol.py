"""One client connection: bytes in, requests out in their order, and an orderly end.

A connection is in one of three states:

- between requests: ``exchange`` is None; what arrives is collected in ``pending``
- answering: ``exchange`` is set; up to ``pipelined_bytes`` are read ahead, and a body only while
  the application asks for it (``arm``)
- closing: ``lingering``; the last answer is written, the client has the time to read it
"""

import asyncio
import socket
import struct
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

from cypd.doors.plain.acceptor import reset
from cypd.doors.plain.body import Body
from cypd.doors.plain.exchange import Exchange
from cypd.doors.plain.h1 import RequestError, find_head, parse_head
from cypd.doors.plain.response import plain_text
from cypd.sources import source

if TYPE_CHECKING:
    from cypd.doors.plain.sendfile import Pump
    from cypd.doors.plain.server import PlainDoor

# struct tcp_info: tcpi_bytes_acked, RFC 4898 tcpEStatsAppHCThruOctetsAcked, Linux 4.1
_ACKED = struct.Struct("=120xQ")


class Connection(asyncio.BufferedProtocol):
    """The protocol of one connection."""

    __slots__ = (
        "_armed",
        "_disconnected",
        "_draining",
        "_eof",
        "_fresh",
        "_lingered",
        "_mark",
        "_running",
        "_since",
        "_turn_due",
        "_waiters",
        "client",
        "closing",
        "door",
        "exchange",
        "lingering",
        "lost",
        "pending",
        "pump",
        "server",
        "source",
        "task",
        "transport",
        "write_paused",
    )

    def __init__(self, door: "PlainDoor", address: object) -> None:
        # For the connection's life
        self.door = door
        self.transport: asyncio.Transport = cast("asyncio.Transport", None)
        self.client = _address(address)
        self.source = source(self.client[0]) if self.client else ""
        self.server: tuple[str, int] | None = None
        self.pending = b""  # received, not understood yet
        self.write_paused = False
        self.closing = False  # no request is accepted after the present one
        self.lingering = False
        self.lost = False  # nothing can be sent any more
        self._disconnected = False  # the transport has ended
        self._eof = False  # the client has sent its last byte
        self._fresh = True  # no request has come yet
        self._lingered = 0  # bytes thrown away since
        self._since = 0.0  # door.now when the present state began
        self._running = False  # inside _advance
        self._turn_due = False  # _advance is called soon; others have their turn before
        # For one exchange
        self.exchange: Exchange | None = None
        self.task: asyncio.Task[None] | None = None
        self.pump: Pump | None = None
        self._armed: Body | None = None
        self._waiters: list[asyncio.Future[None]] = []  # for the client's going
        self._draining: list[asyncio.Future[None]] = []  # for its reading
        self._mark: tuple[str, float, int] | None = None  # phase, time, bytes: see _too_slow

    def __repr__(self) -> str:
        return f"<Connection {self.client} {self.exchange} lost={self.lost}>"

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.door.admit(self)
        self._since = self.door.now
        self.server = _address(transport.get_extra_info("sockname"))

    def get_buffer(self, _hint: int) -> memoryview:
        # Nothing runs between get_buffer and buffer_updated, so that all connections share one
        # buffer for everything but bodies: an idle connection holds none.
        return self.door.scratch if self._armed is None else self._armed.space()

    def buffer_updated(self, size: int) -> None:
        if self._armed is not None:
            self._take_body(self._armed, size)
        elif self.lingering:
            self._throw_away(size)
        else:
            if not self.pending and self.exchange is None:
                self._since = self.door.now
            self.pending += bytes(self.door.scratch[:size])
            if self.exchange is None:
                self._advance()
            if len(self.pending) >= self.door.limits.pipelined_bytes:
                self.transport.pause_reading()

    def eof_received(self) -> bool:
        """Keep the socket open while an answer is due: a client may close its sending side."""
        self._eof = True
        if self._armed is not None:
            self._armed.break_off()
        return (self.exchange is not None or self._turn_due) and not self.lingering

    def connection_lost(self, _error: Exception | None) -> None:
        self.lost = self._disconnected = True
        if self.exchange is None:
            self.door.dismiss(self)
        if self.pump is not None:
            self.pump.stop(ConnectionResetError("the client has gone"))
        if self.exchange is not None and self.exchange.body is not None:
            self.exchange.body.break_off()
        self._wake(self._waiters)
        self._wake(self._draining)

    def pause_writing(self) -> None:
        self.write_paused = True

    def resume_writing(self) -> None:
        self.write_paused = False
        self._wake(self._draining)
        if self.exchange is None:
            self._advance()

    # Requests

    def _advance(self) -> None:
        """Answer what is pending, in order, as far as it goes without waiting."""
        if self._running or self._turn_due:
            return
        self._running = True
        try:
            for _ in range(self.door.limits.pipelined_turns):
                if not self._start_request():
                    break
            else:
                self._turn_due = True
                self.door.loop.call_soon(self._take_turn)
                return
        except RequestError as error:
            self.refuse(error)
        finally:
            self._running = False
        if self._eof and self.exchange is None and not self.write_paused:
            self.transport.close()

    def _take_turn(self) -> None:
        self._turn_due = False
        self._advance()

    def _start_request(self) -> bool:
        """Start the first pending request; False if there is none or its turn has not come."""
        pending, door = self.pending, self.door
        if not pending or self.exchange is not None or self.write_paused:
            return False
        if self.closing or self.lost:
            return False
        if pending.startswith(b"\r\n"):  # RFC 9112 section 2.2: ignore an empty line
            self.pending = pending = pending[2:]
        end = find_head(pending, door.limits)
        if not end:
            return False
        self.pending = pending[end:]
        self._fresh = False
        self.closing = door.closing
        self.exchange = exchange = Exchange(self, parse_head(pending[:end], door.limits))
        if exchange.body is not None and not exchange.body.decoder.done:
            self.transport.pause_reading()
        self.task = door.run(door.loop, exchange.run())
        return True

    def exchange_done(self, exchange: Exchange) -> None:
        """Go on after ``exchange``: its application has returned."""
        self.exchange = self.task = self._mark = None
        if self._disconnected:
            self.door.dismiss(self)
        if self.lost:
            return
        self._since = self.door.now
        self.wake_waiters()
        if self.closing or not exchange.keep_alive:
            self._linger()
            return
        if not self._eof and len(self.pending) < self.door.limits.pipelined_bytes:
            self.transport.resume_reading()
        self._advance()

    # The body

    def arm(self, body: Body) -> None:
        """Read into ``body`` from now on."""
        self._armed = body
        self.transport.resume_reading()

    def disarm(self, body: Body) -> None:
        """Read nothing more into ``body`` for now."""
        self._armed = None
        if not self.lost and not self.lingering and not body.decoder.done:
            self.transport.pause_reading()

    def _take_body(self, body: Body, size: int) -> None:
        try:
            body.filled(size)
        except RequestError as error:
            self.refuse(error)
            return
        if body.decoder.done:
            self._armed = None
        elif not body.space():
            self.transport.pause_reading()

    # Writing

    def write(self, data: bytes) -> None:
        """Send ``data`` or queue it behind what is queued."""
        if not self.lost:
            self.transport.write(data)

    def write_many(self, pieces: tuple[bytes, ...]) -> None:
        """Send ``pieces`` in one system call if the socket takes them."""
        if not self.lost:
            self.transport.writelines(pieces)

    async def drained(self) -> None:
        """Wait until the client has read enough. Raises OSError if it has gone."""
        await self._wait(self._draining)
        if self.lost:
            raise ConnectionResetError("the client has gone")

    async def flushed(self) -> None:
        """Wait until nothing is queued. Raises OSError if the client has gone."""
        if not self.transport.get_write_buffer_size():
            return
        self.transport.set_write_buffer_limits(0)
        try:
            await self.drained()
        finally:
            self.transport.set_write_buffer_limits()

    async def gone(self) -> None:
        """Wait until the client has gone or the exchange is over."""
        if not self.lost and self.exchange is not None and not self.exchange.complete:
            await self._wait(self._waiters)

    def wake_waiters(self) -> None:
        """End what waits in ``gone``: the response is complete."""
        if self._waiters:
            self._wake(self._waiters)

    async def _wait(self, waiters: list[asyncio.Future[None]]) -> None:
        waiter = self.door.loop.create_future()
        waiters.append(waiter)
        await waiter

    def _wake(self, waiters: list[asyncio.Future[None]]) -> None:
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        waiters.clear()

    # The end

    def refuse(self, error: RequestError) -> None:
        """Answer in the door's own name if nothing was answered yet, and close."""
        exchange = self.exchange
        if exchange is not None and exchange.started:
            self.abort()
            return
        self.write(plain_text(error.status, error.reason, date=self.door.date))
        self._linger()

    def _linger(self) -> None:
        """Close so that the client can read the answer to its end.

        Closing a socket with unread bytes sends RST, and RST makes the client's kernel throw away
        what it has not read yet (RFC 9112 section 9.6). So the sending side closes first.
        """
        if self.lingering or self.lost:
            return
        self.closing = self.lingering = True
        self._since = self.door.now
        self.pending = b""
        if self.exchange is not None:  # refused in the middle of a body
            self._armed = None
            self.lost = True
            cast("Body", self.exchange.body).break_off()
        if self._eof:
            self.transport.close()
            return
        self.transport.write_eof()
        self.transport.resume_reading()

    def _throw_away(self, size: int) -> None:
        self._lingered += size
        if self._lingered >= self.door.limits.linger_bytes:
            self.transport.pause_reading()

    def abort(self) -> None:
        """Close at once; queued bytes are lost."""
        self.lost = True
        self.transport.abort()

    def _reset(self) -> None:
        """Close at once; bytes that the kernel holds are lost too.

        It would keep megabytes for somebody who does not take them (tcp(7), tcp_orphan_retries).
        """
        reset(self.transport.get_extra_info("socket"))
        self.abort()

    def stop(self) -> None:
        """Close after the present exchange; at once if there is none.

        But a connection that was just accepted has its first request under way, perhaps in the
        kernel already: closing it now would be a reset, although nobody told the client to go.
        """
        if self._fresh and self.door.now - self._since < self.door.limits.linger:
            return
        self.closing = True
        if self.exchange is None and not self.lingering:
            self.transport.close()

    # The clock

    def look(self, now: float) -> bool:
        """Called once a sweep: end what takes too long, and tell whether it did."""
        if self._disconnected:
            return False  # only the application is left, and that may take its time
        if self.lingering or self.transport.is_closing():
            return self._look_at_end(now)
        if self.exchange is not None:
            return self._look_at_exchange(now)
        return self._look_at_wait(now - self._since)

    def _look_at_wait(self, age: float) -> bool:
        limits = self.door.limits
        if self.pending:
            if age > limits.header:
                self.refuse(RequestError(HTTPStatus.REQUEST_TIMEOUT, "request head too slow"))
                return True
        elif age > (limits.linger if self.door.closing else limits.keep_alive):
            self.transport.close()
            return True
        return False

    def _look_at_end(self, now: float) -> bool:
        """The last answer first has to leave; then the client has ``linger`` to close."""
        if self.transport.get_write_buffer_size():
            self._since = now
            return self._end_slow_reader(now)
        if now - self._since <= self.door.limits.linger:
            return False
        self.abort()
        return True

    def _look_at_exchange(self, now: float) -> bool:
        if self._armed is not None:
            if self._too_slow("body", now, self._armed.received):
                self.refuse(RequestError(HTTPStatus.REQUEST_TIMEOUT, "request body too slow"))
                return True
            self._armed.hurry()
        elif self.pump is not None or self.transport.get_write_buffer_size():
            return self._end_slow_reader(now)
        elif self._mark is not None:
            # The application works: that has no limit here, and does not count for the client.
            phase, since, count = self._mark
            self._mark = (phase, since + self.door.limits.sweep, count)
        return False

    def _end_slow_reader(self, now: float) -> bool:
        if not self._too_slow("response", now, self._acked()):
            return False
        self._reset()
        return True

    def _too_slow(self, phase: str, now: float, count: int) -> bool:
        """True if ``phase`` has gone on for a window and moved less than the rate asks for."""
        mark, limits = self._mark, self.door.limits
        if mark is None or mark[0] != phase:
            self._mark = (phase, now, count)
            return False
        if now - mark[1] < limits.rate_window:
            return False
        self._mark = (phase, now, count)
        return count - mark[2] < limits.rate * limits.rate_window

    def _acked(self) -> int:
        """Bytes that the client's kernel has taken: what ours holds is not progress."""
        sock = self.transport.get_extra_info("socket")
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKED.size)
        return int(_ACKED.unpack(info)[0])


def _address(address: object) -> tuple[str, int] | None:
    """ASGI's form of an address: host and port."""
    return (address[0], address[1]) if isinstance(address, tuple) else None
