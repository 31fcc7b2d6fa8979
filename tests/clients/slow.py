"""A slow way to the registry."""

import socket
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

from tests.daemon import free_port

_PIECE = 16 << 10


class SlowWay:
    """Forwards connections to ``port``; what clients send arrives at ``rate`` bytes a second."""

    def __init__(self, port: int, rate: float) -> None:
        self.port = free_port()
        self._target = port
        self._rate = rate
        self._listening = socket.create_server(("127.0.0.1", self.port))

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._target)) as server:
            back = threading.Thread(target=_forward, args=(server, client, None), daemon=True)
            back.start()
            _forward(client, server, self._rate)
            back.join()


def _forward(source: socket.socket, target: socket.socket, rate: float | None) -> None:
    with suppress(OSError):  # either side may hang up
        while piece := source.recv(_PIECE):
            if rate:
                time.sleep(len(piece) / rate)
            target.sendall(piece)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
