"""A way to the store on which some requests can be held up, as a network or a proxy may."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self


class Gate:
    """Passes connections on to a port of the loopback.

    A request for which ``holds`` says so, by its first bytes, waits until ``release``, also when
    its client is gone meanwhile: it is on its way.
    """

    def __init__(self, target: int, holds: Callable[[bytes], bool]) -> None:
        self._target = target
        self._holds = holds
        self._server = socket.create_server(("127.0.0.1", 0))
        self._released = threading.Event()
        self.port: int = self._server.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.held = threading.Event()
        """Set when the first request is held."""
        self.answered: list[bytes] = []
        """How the answers to what was held begin."""

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()
        self._server.close()

    def release(self) -> None:
        """Pass on what was held, and hold nothing any more."""
        self._released.set()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._target)) as store:
            answers = threading.Thread(target=_copy, args=(store, client), daemon=True)
            answers.start()
            with suppress(OSError):
                # A client waits for its answer, so a request begins a piece of its own.
                while piece := client.recv(1 << 20):
                    if self._holds(piece) and not self._released.is_set():
                        self.held.set()
                        self._released.wait()
                        self._carry_out(piece)
                        return
                    store.sendall(piece)
                store.shutdown(socket.SHUT_WR)
            answers.join()

    def _carry_out(self, request: bytes) -> None:
        """Send a request that was held on a connection of its own, and read its answer."""
        with socket.create_connection(("127.0.0.1", self._target), timeout=30) as store:
            store.sendall(request)
            self.answered.append(store.recv(4096))


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(1 << 20):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)
