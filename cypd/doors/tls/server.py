"""The door: listening sockets in, an ASGI application behind, Granian between."""

import asyncio
import logging
import socket
from typing import Any

from cypd.doors.asgi import Application, Receive, Scope, Send
from cypd.doors.plain.limits import Limits
from cypd.doors.tls import sockets as kernel
from cypd.doors.tls.certificates import Certificates
from cypd.doors.tls.exchange import Exchange
from cypd.doors.tls.granian import Granian

_log = logging.getLogger(__name__)


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
        self._sockets: list[socket.socket] = []
        self._workers: list[Granian] = []
        self._retiring: dict[asyncio.Task[None], Granian] = {}
        self._running: set[asyncio.Task[Any]] = set()

    def __repr__(self) -> str:
        return f"<TlsDoor {self.connections} connections, {self.active} active>"

    @property
    def connections(self) -> int:
        """Open connections, those in their handshake included."""
        return sum(1 for sock in self._sockets for _ in kernel.connections(sock))

    @property
    def active(self) -> int:
        """Requests whose application runs. A whole file goes out after that (``pathsend``)."""
        return len(self._running)

    async def start(self, sockets: list[socket.socket]) -> None:
        """Listen on bound ``sockets``, which belong to the door from now on.

        Raises CertificateError.
        """
        self._sockets = sockets
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
        workers = await self._open()
        retired, self._workers = self._workers, workers
        for worker in retired:
            task = asyncio.create_task(worker.retire())
            self._retiring[task] = worker
            task.add_done_callback(self._retiring.pop)

    async def _open(self) -> list[Granian]:
        self._certificates.check()
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
        stopping = [asyncio.create_task(worker.stop()) for worker in self._workers]
        for task, worker in self._retiring.items():
            worker.hurry()
            stopping.append(task)
        if stopping:
            _, late = await asyncio.wait(stopping, timeout=deadline)
            if late:
                await self._cut()
                await asyncio.wait(late)
        while self._sockets:
            self._sockets.pop().close()

    async def _cut(self) -> None:
        """Cancel what still runs, wait until it has cleaned up behind itself, and hang up."""
        running = tuple(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        for sock in self._sockets:
            for connection in kernel.connections(sock):
                connection.shutdown(socket.SHUT_RDWR)
