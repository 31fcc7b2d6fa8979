"""The door: listening sockets in, an ASGI application behind, Granian between."""

import asyncio
import socket
from contextlib import suppress
from typing import Any

from cypd.doors.asgi import Application, Receive, Scope, Send
from cypd.doors.plain.limits import Limits
from cypd.doors.tls import sockets as kernel
from cypd.doors.tls.certificates import Certificates
from cypd.doors.tls.exchange import Exchange
from cypd.doors.tls.granian import Granian

# Seconds that Granian gets to notice that its connections were cut. Out of descriptors it never
# does: it asks for the next connection over and over, and does nothing else.
_LAST_WAIT = 5.0


class TlsDoor:
    """An HTTP/1.1 and HTTP/2 server over TLS 1.2 and 1.3 for one ASGI application.

    ``await start(sockets)`` begins, ``await drain(deadline)`` ends. The door closes the sockets.
    """

    def __init__(
        self,
        app: Application,
        certificates: Certificates,
        limits: Limits = Limits(),  # noqa: B008 - frozen
    ) -> None:
        self._app = app
        self._certificates = certificates
        self._limits = limits
        self._sockets: list[socket.socket] = []  # for Granian to duplicate
        self._addresses: list[kernel.Address] = []
        self._workers: list[Granian] = []
        self._retiring: dict[asyncio.Task[None], Granian] = {}
        self._running: set[asyncio.Task[Any]] = set()

    def __repr__(self) -> str:
        return f"<TlsDoor {self.connections} connections, {self.active} active>"

    @property
    def connections(self) -> int:
        """Open connections, those in their handshake included."""
        return sum(1 for address in self._addresses for _ in kernel.connections(address))

    @property
    def active(self) -> int:
        """Requests whose application runs. A whole file goes out after that (``pathsend``)."""
        return len(self._running)

    async def start(self, sockets: list[socket.socket]) -> None:
        """Listen on bound ``sockets``, which belong to the door from now on.

        The certificates must have passed their ``check``.
        """
        self._sockets = sockets
        self._addresses = [sock.getsockname()[:2] for sock in sockets]
        for sock in sockets:
            # Granian can't tell that a client has stopped reading, the kernel can (tcp(7)); the
            # connections inherit it.
            window = round(self._limits.rate_window * 1000)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, window)
        self._workers = await self._open()

    async def reload(self) -> None:
        """Read the certificates again, for the connections to come; those that are go on.

        Raises CertificateError, and nothing has changed then.
        """
        await asyncio.to_thread(self._certificates.check)
        workers = await self._open()
        retired, self._workers = self._workers, workers
        for worker in retired:
            task = asyncio.create_task(worker.retire())
            self._retiring[task] = worker
            task.add_done_callback(self._retiring.pop)

    async def _open(self) -> list[Granian]:
        workers: list[Granian] = []
        for sock in self._sockets:
            worker = Granian(self._serve, sock, self._certificates, self._limits)
            workers.append(worker)
            await worker.start()
        return workers

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 (Granian makes one for each request)
        self._running.add(task)
        try:
            await Exchange(self._limits, scope, receive, send).run(self._app)
        finally:
            self._running.discard(task)

    async def drain(self, deadline: float) -> None:
        """Stop accepting, let running requests finish for ``deadline`` seconds, cut the rest."""
        while self._sockets:
            self._sockets.pop().close()
        ended = asyncio.create_task(self._end())
        await asyncio.wait({ended}, timeout=deadline)
        if not ended.done():
            await self._cut()
            await asyncio.wait({ended}, timeout=_LAST_WAIT)

    async def _end(self) -> None:
        for worker in self._retiring.values():
            worker.hurry()
        await asyncio.gather(*self._retiring, *(worker.stop() for worker in self._workers))
        while self._running:  # applications whose client has gone
            await asyncio.wait(self._running)

    async def _cut(self) -> None:
        """Hang up, cancel what still runs, and wait until it has cleaned up behind itself."""
        for address in self._addresses:
            for connection in kernel.connections(address):
                with suppress(OSError):  # the client was faster
                    connection.shutdown(socket.SHUT_RDWR)
        running = tuple(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
