"""The door: listening sockets in, an ASGI application behind."""

import asyncio
import socket
import time
from collections import Counter

from cypd.doors.asgi import Application
from cypd.doors.plain.acceptor import Acceptor
from cypd.doors.plain.eager import run_as_task, run_eagerly
from cypd.doors.plain.limits import Limits
from cypd.doors.plain.protocol import Connection
from cypd.doors.plain.response import date_line
from cypd.doors.plain.sendfile import UNSENT
from cypd.doors.plain.slabs import SlabPool
from cypd.doors.plain.turns import Turns

_SCRATCH_BYTES = 64 * 1024
# Connections that are looked at in one turn of the loop: so many, or more if that is late.
_LOOKS, _MOST_LOOKS = 16, 256
# Seconds until the next turn when one was ended. That costs more, in the kernel as well, which has
# megabytes of a slow reader to free; nobody shall wait while thousands end at once.
_END_PAUSE = 0.001


def bind(host: str, port: int) -> socket.socket:
    """A TCP socket bound to ``host`` (IPv4 or IPv6, a name takes its first address) and ``port``.

    No SO_REUSEPORT: a worker that closes would drop the connections queued on its socket.
    Raises OSError.
    """
    family, _, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


class PlainDoor:
    """An HTTP/1.1 server for one ASGI application on the running event loop.

    ``eager``: run the application at once inside the callback that received its request, and make
    a task only if it waits. That is what makes small answers cheap. The price: up to the first
    wait ``asyncio.current_task()`` is None, so ``asyncio.timeout`` and anyio do not work there.
    Applications that need them from their first line on get ``eager=False``.

    ``await start(sockets)`` begins, ``await drain(deadline)`` ends. The door closes the sockets.
    """

    def __init__(
        self,
        app: Application,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        *,
        eager: bool = True,
    ) -> None:
        # For the door's life
        self.app = app
        self.limits = limits
        self.run = run_eagerly if eager else run_as_task
        self.slabs = SlabPool(limits.slab_bytes, limits.spare_slabs)
        self.scratch = memoryview(bytearray(_SCRATCH_BYTES))
        # From start to drain
        self.loop: asyncio.AbstractEventLoop
        self.turns: Turns
        self._acceptors: list[Acceptor] = []
        self._connections: set[Connection] = set()
        self._of_client: Counter[str] = Counter()  # connections, while there is a limit
        self._unseen: list[Connection] = []  # by the present sweep
        self._pace = 0.0  # seconds between two of its steps, as a rule
        self._pause = 0.0  # seconds until the next one
        self._timer: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()
        self.closing = False
        # Kept by the steps of a sweep
        self.now = 0.0  # loop time of the last one
        self.date = b""  # the Date field line, to the second

    def __repr__(self) -> str:
        return f"<PlainDoor {len(self._connections)} connections, {self.active} active>"

    @property
    def connections(self) -> int:
        """Open connections, and those whose application runs on without its client."""
        return len(self._connections)

    @property
    def active(self) -> int:
        """Connections with a request being answered."""
        return sum(connection.exchange is not None for connection in self._connections)

    async def start(self, sockets: list[socket.socket]) -> None:
        """Listen on bound ``sockets``, which belong to the door from now on."""
        self.loop = asyncio.get_running_loop()
        self.turns = Turns(self.loop)
        self._sweep()
        patience = round(2 * self.limits.rate_window * 1000)
        for sock in sockets:
            # tcp(7): the kernel, which holds the end of an answer when the door has closed already,
            # gives up who takes nothing for so long. Before that the door does, so that the client
            # is told. Connections inherit it.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, patience)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)
            acceptor = Acceptor(self.loop, sock, self._take, shared=self.limits.shared)
            acceptor.start(self.limits.backlog)
            self._acceptors.append(acceptor)

    async def drain(self, deadline: float) -> None:
        """Stop accepting, let running requests finish for ``deadline`` seconds, cut the rest."""
        self.closing = True
        while self._acceptors:
            self._acceptors.pop().stop()
        await asyncio.sleep(0)  # what was accepted in this turn is made known in the next
        for connection in tuple(self._connections):
            connection.stop()
        try:
            async with asyncio.timeout(deadline):
                await self._wait_empty()
        except TimeoutError:
            await self._cut()
        if self._timer is not None:
            self._timer.cancel()

    async def _wait_empty(self) -> None:
        if self._connections:
            self._empty.clear()
            await self._empty.wait()

    async def _cut(self) -> None:
        """Cancel what still runs, and wait until it has cleaned up behind itself."""
        tasks = [task for each in self._connections if (task := each.task) is not None]
        for connection in tuple(self._connections):
            connection.abort()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._wait_empty()

    # What acceptors and connections call

    def _take(self, sock: socket.socket, address: object) -> bool:
        connection = Connection(self, address)
        if not self._has_room(connection):
            return False
        # Sends nothing and waits for nothing but the next turn of the loop.
        taking = self.loop.connect_accepted_socket(lambda: connection, sock)
        run_eagerly(self.loop, taking)
        return True

    def _has_room(self, connection: Connection) -> bool:
        most = self.limits.connections_per_client
        if most and self._of_client[connection.source] >= most:
            return False
        return len(self._connections) < self.limits.connections

    def admit(self, connection: Connection) -> None:
        """Count ``connection``."""
        self._connections.add(connection)
        if self.limits.connections_per_client:
            self._of_client[connection.source] += 1

    def dismiss(self, connection: Connection) -> None:
        """Count ``connection`` no more."""
        self._connections.discard(connection)
        if self.limits.connections_per_client:
            self._of_client[connection.source] -= 1
            if not self._of_client[connection.source]:
                del self._of_client[connection.source]
        if not self._connections:
            self._empty.set()

    def _sweep(self) -> None:
        """Look at every connection once in ``limits.sweep``, a few at a time; later if many end.

        One timer for all connections: a timer a request would cost more than the request. In small
        steps, so that nobody's request waits while thousands are looked at, or even closed.
        """
        now, sweep = self.loop.time(), self.limits.sweep
        late = now - self.now - self._pause
        if int(now) != int(self.now):
            self.date = date_line(time.time())
        if not self._unseen:
            self._unseen = list(self._connections)
            self._pace = sweep / max(1, -(-len(self._unseen) // _LOOKS))
        self.now, self._pause = now, self._pace
        missed = len(self._connections) * max(late, 0.0) / sweep
        for _ in range(min(_LOOKS + int(missed), _MOST_LOOKS, len(self._unseen))):
            if self._unseen.pop().look(now):
                self._pause = min(self._pace, _END_PAUSE)
                break
        self._timer = self.loop.call_later(self._pause, self._sweep)
