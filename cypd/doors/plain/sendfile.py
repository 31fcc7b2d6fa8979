"""Files to sockets with ``sendfile(2)``: the only way a file's bytes take through the door.

uvloop has no ``sendfile``, and its transports own their descriptor, so a transfer works on a
duplicate of it: bytes go out through the duplicate only while the transport has nothing queued,
and nothing is given to the transport before the transfer is over. That keeps their order.

aiofastnet's transports can do this too. Measured side by side for 256 MiB from the page cache
(median of five, CPU-seconds of the server per GB): nginx 0.25, this 0.26, aiofastnet 0.26. At the
same price this one sends the head with the first bytes of the file, gives way after each slice,
and never waits for a disk on the loop.
"""

import asyncio
import errno
import os
import socket
import sys
from typing import TYPE_CHECKING, Final

from cypd.doors import page_cache

if TYPE_CHECKING:
    from cypd.doors.plain.protocol import Connection

# The most that one connection sends before another has its turn. nginx: sendfile_max_chunk 2m.
SLICE: Final = 1024 * 1024
# Up to here a file is a small answer, which waits for no other.
SMALL: Final = 256 * 1024
# What the kernel queues at most before it can send it (tcp(7), TCP_NOTSENT_LOWAT), until a client
# has taken more than a small answer: megabytes for each of thousands that read nothing cost the
# kernel 0.5 ms a client to queue, and as much to free.
UNSENT: Final = 128 * 1024

# A socket that is heard of so often before its turn has come is not listened to until then.
_OFTEN: Final = 8

# What TCP says of a client that has gone without a word (tcp(7), ip(7)).
_UNREACHABLE: Final = frozenset((errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH))


async def send(connection: "Connection", head: bytes, file: int, offset: int, count: int) -> None:
    """Send ``head``, then ``count`` bytes of ``file`` from ``offset``.

    Raises ConnectionError if the client has gone, EOFError if the file is shorter than that and
    OSError if it cannot be read; the response is cut off in all cases. ``file`` must stay open.
    """
    await connection.flushed()
    pump = Pump(connection, head, file, offset, count)
    connection.pump = pump
    try:
        await pump.run()
    except BaseException:
        connection.abort()  # no later byte could be framed rightly
        raise
    finally:
        connection.pump = None
        pump.close()


class Pump:
    """One transfer. The writer stays armed from its first full socket buffer to its end, since
    arming and disarming for each slice would cost two ``epoll_ctl`` a slice.
    """

    __slots__ = (
        "_client",
        "_done",
        "_file",
        "_head",
        "_heard",
        "_is_armed",
        "_left",
        "_loop",
        "_offset",
        "_sock",
        "_trusted_at",
        "_turns",
        "_warm_until",
        "_warming",
    )

    def __init__(
        self, connection: "Connection", head: bytes, file: int, offset: int, count: int
    ) -> None:
        self._loop = connection.door.loop
        self._turns = connection.door.turns
        self._client = connection.source
        self._heard = 0  # how often the socket has asked for this turn
        self._is_armed = False
        self._sock: socket.socket = connection.transport.get_extra_info("socket").dup()
        self._head = head
        self._file = file
        self._offset = offset
        self._left = count
        self._trusted_at = offset + SMALL
        self._warm_until = offset  # up to here the file was found in the page cache
        self._warming = False
        self._done: asyncio.Future[None] = self._loop.create_future()

    async def run(self) -> None:
        if self._left <= SMALL:
            self.take_turn()
        else:
            self._ask()
        await self._done

    def stop(self, error: BaseException | None = None) -> None:
        """End the transfer, with ``error`` if it is not whole."""
        if self._done.done():
            return
        if error is None:
            self._done.set_result(None)
        else:
            self._done.set_exception(error)

    def close(self) -> None:
        # libuv would go on polling the descriptor if it were closed first.
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()

    def _ask(self) -> None:
        """The socket takes more."""
        self._heard += 1
        if self._heard == 1:
            self._turns.ask(self._client, self)
        elif self._heard == _OFTEN:
            self._disarm()

    def take_turn(self) -> None:
        """Send up to a slice, or as much as the socket takes."""
        self._heard = 0
        try:
            self._send()
        except BlockingIOError:
            pass
        except (OSError, EOFError) as error:
            if isinstance(error, OSError) and error.errno in _UNREACHABLE:
                error = ConnectionAbortedError("the client can't be reached any more")
            self.stop(error)
        if not (self._is_armed or self._warming or self._done.done()):
            self._is_armed = True
            self._loop.add_writer(self._sock.fileno(), self._ask)

    def _disarm(self) -> None:
        self._is_armed = False
        self._loop.remove_writer(self._sock.fileno())

    def _send(self) -> None:
        if self._done.done():
            return
        if self._offset >= self._warm_until:
            if page_cache.is_cold(self._file, self._offset, min(SLICE, self._left)):
                self._warm()
                return
            self._warm_until = self._offset + SLICE
        if self._head:
            # MSG_MORE: the head leaves in one segment with the first bytes of the file.
            self._head = self._head[self._sock.send(self._head, socket.MSG_MORE) :]
            if self._head:
                return
        # Once a turn: less than asked for means that the socket is full, and asking again would
        # only be told so.
        sent = os.sendfile(self._sock.fileno(), self._file, self._offset, min(SLICE, self._left))
        if not sent:
            raise EOFError("the file is shorter than its response")
        self._offset += sent
        self._left -= sent
        if self._offset >= self._trusted_at:
            self._trusted_at = sys.maxsize
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 0)
        if not self._left:
            self.stop()

    def _warm(self) -> None:
        """Read the next slice into the page cache, off the loop."""
        self._warming = True
        self._disarm()
        size = min(SLICE, self._left)
        work = page_cache.warm(self._loop, self._file, self._offset, size, self._left)
        work.add_done_callback(self._warmed)

    def _warmed(self, work: "asyncio.Future[None]") -> None:
        self._warming = False
        if self._done.done():
            return
        if work.exception() is not None:
            self.stop(work.exception())
        else:
            self._warm_until = self._offset + SLICE
            self._ask()
