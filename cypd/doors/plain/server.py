"""The door: listening sockets in, an ASGI application behind."""

import asyncio
import socket
import time

from cypd.doors.asgi import Application
from cypd.doors.plain.eager import run_as_task, run_eagerly
from cypd.doors.plain.limits import Limits
from cypd.doors.plain.protocol import Connection
from cypd.doors.plain.response import date_line
from cypd.doors.plain.slabs import SlabPool

_SCRATCH_BYTES = 64 * 1024


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
        self._servers: list[asyncio.Server] = []
        self._connections: set[Connection] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()
        self.closing = False
        # Set anew by each sweep
        self.now = 0.0  # loop time
        self.date = b""  # the Date field line

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
        self._sweep()
        for sock in sockets:
            server = await self.loop.create_server(
                lambda: Connection(self), sock=sock, backlog=self.limits.backlog
            )
            self._servers.append(server)

    async def drain(self, deadline: float) -> None:
        """Stop accepting, let running requests finish for ``deadline`` seconds, cut the rest."""
        self.closing = True
        for server in self._servers:
            server.close()
        await asyncio.sleep(
            0
        )  # what was accepted in this turn of the loop is made known in the next
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

    # What connections call

    def admit(self, connection: Connection) -> bool:
        """Count ``connection``; False if there is no room for it."""
        if len(self._connections) >= self.limits.connections:
            return False
        self._connections.add(connection)
        return True

    def dismiss(self, connection: Connection) -> None:
        """Count ``connection`` no more."""
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    def _sweep(self) -> None:
        """One timer for all connections: a timer a request would cost more than the request."""
        self.now = self.loop.time()
        self.date = date_line(time.time())
        for connection in tuple(self._connections):
            connection.look(self.now)
        self._timer = self.loop.call_later(self.limits.sweep, self._sweep)
