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
from cypd.doors.tls.request import address_of
from cypd.doors.tls.watch import Watch

# Seconds that Granian gets to notice that its connections were cut. Out of descriptors it never
# does: it asks for the next connection over and over, and does nothing else.
_LAST_WAIT = 5.0
_LOOK_SECONDS = 0.1
# Seconds in which a connection that ends moves something, if there is somebody.
_SILENCE = 5.0


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
        self._addresses: list[kernel.Address] = []
        self._workers: list[Granian] = []
        self._running: set[asyncio.Task[Any]] = set()
        self._watch: Watch
        self._watching: asyncio.Task[None]

    def __repr__(self) -> str:
        return f"<TlsDoor {self.connections} connections, {self.active} active>"

    @property
    def connections(self) -> int:
        """Open connections, those in their handshake included."""
        return sum(1 for _ in kernel.connections(self._addresses))

    @property
    def active(self) -> int:
        """Requests that are being answered."""
        return len(self._running)

    async def start(self, sockets: list[socket.socket]) -> None:
        """Listen on bound ``sockets``, which belong to the door from now on.

        The certificates must have passed their ``check``.
        """
        self._sockets = sockets
        self._addresses = [sock.getsockname()[:2] for sock in sockets]
        self._watch = Watch(self._addresses, self._limits)
        self._watching = asyncio.create_task(self._watch.run())
        for sock in sockets:
            # As at the plaintext door: who takes nothing is ended before that, and told of it.
            patience = round(2 * self._limits.rate_window * 1000)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, patience)
            worker = Granian(self._serve, sock, self._certificates, self._limits)
            self._workers.append(worker)
            await worker.start()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 (Granian makes one for each request)
        self._running.add(task)
        client = address_of(scope["client"])
        self._watch.heard(client)
        exchange = Exchange(self._limits, scope, receive, send)
        try:
            await exchange.run(self._app)
        finally:
            self._running.discard(task)
            if exchange.lost and scope["http_version"] != "2":  # where others may be under way
                self._watch.give_up(client)

    async def drain(self, deadline: float) -> None:
        """Stop accepting, let running requests finish for ``deadline`` seconds, cut the rest."""
        while self._sockets:
            self._sockets.pop().close()
        for worker in self._workers:
            worker.stop_accepting()
        ended = asyncio.create_task(self._end())
        if not await self._has_ended(ended, deadline):
            await self._cut()
            await asyncio.wait({ended}, timeout=_LAST_WAIT)
        self._watching.cancel()

    async def _end(self) -> None:
        await self._linger()
        await asyncio.gather(*(worker.stop() for worker in self._workers))
        while self._running:  # applications whose client has gone
            await asyncio.wait(self._running)

    async def _linger(self) -> None:
        """Let who came a moment ago ask for something.

        Stopped at once, Granian would cut handshakes, and connections before their first request.
        """
        looks = round(self._limits.linger / _LOOK_SECONDS)
        while self.connections and (looks := looks - 1) >= 0:  # noqa: ASYNC110 (see ``kernel``)
            await asyncio.sleep(_LOOK_SECONDS)

    async def _has_ended(self, ended: asyncio.Task[None], deadline: float) -> bool:
        """Wait, and hang up on clients of HTTP/2 that do not answer to GOAWAY.

        hyper waits for their PING, as long as it takes.
        """
        loop = asyncio.get_running_loop()
        end, silent = loop.time() + deadline, dict[object, kernel.Progress]()
        while not ended.done() and (left := end - loop.time()) > 0:
            await asyncio.wait({ended}, timeout=min(left, _SILENCE))
            before, silent = silent, dict[object, kernel.Progress]()
            if self._running:
                continue  # whoever it is for may be silent
            for connection in kernel.connections(self._addresses):
                with suppress(OSError):  # the client was faster
                    peer, progress = connection.getpeername(), kernel.progress(connection)
                    if progress.is_sending:
                        continue
                    if before.get(peer) == progress:
                        connection.shutdown(socket.SHUT_RDWR)
                    else:
                        silent[peer] = progress
        return ended.done()

    async def _cut(self) -> None:
        """Hang up, cancel what still runs, and wait until it has cleaned up behind itself."""
        for connection in kernel.connections(self._addresses):
            with suppress(OSError):  # the client was faster
                connection.shutdown(socket.SHUT_RDWR)
        running = tuple(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
