"""One embedded Granian on one of our sockets."""

import asyncio
import socket
from typing import Any

from granian.constants import Interfaces, SSLProtocols
from granian.http import HTTP1Settings, HTTP2Settings
from granian.log import LogLevels
from granian.net import SocketHolder  # type: ignore[attr-defined]
from granian.server.embed import Server

from cypd.doors.asgi import Application
from cypd.doors.plain.limits import Limits
from cypd.doors.tls.certificates import Certificates
from cypd.doors.tls.sockets import stop_accepting

# HTTP/2: what a client may send ahead of the application. The frame is Go's largest (x/net/http2
# splits at 512 KiB), so that docker's uploads come in few pieces.
_FRAME_BYTES = 512 * 1024
_STREAM_WINDOW = 2 * 1024 * 1024
_CONNECTION_WINDOW = 4 * 1024 * 1024


class Granian(Server):
    """Granian on a socket that is bound already, its log lines where all others go.

    It installs no signal handlers; who makes it starts and stops it. Without ``certificates`` it
    speaks no TLS.
    """

    def __init__(
        self,
        app: Application,
        sock: socket.socket,
        certificates: Certificates | None,
        limits: Limits,
    ) -> None:
        super().__init__(
            app,
            interface=Interfaces.ASGINL,
            websockets=False,
            backlog=limits.backlog,
            backpressure=limits.connections,
            http1_settings=HTTP1Settings(header_read_timeout=round(limits.keep_alive * 1000)),
            http2_settings=HTTP2Settings(
                initial_connection_window_size=_CONNECTION_WINDOW,
                initial_stream_window_size=_STREAM_WINDOW,
                keep_alive_interval=round(limits.keep_alive * 1000),
                max_frame_size=_FRAME_BYTES,
                max_headers_size=limits.head_bytes,
            ),
            # "incremental" leaves the process's handlers alone; only the level is set.
            log_dictconfig={"incremental": True, "handlers": {}, "loggers": {}},
            log_level=LogLevels.warning,
            **(_tls(certificates) if certificates else {}),
        )
        # A descriptor of its own, which Rust closes when it stops listening.
        self._descriptor = sock.dup().detach()
        self._is_local = sock.family == socket.AF_UNIX

    def _init_shared_socket(self) -> None:
        """Instead of binding one with SO_REUSEPORT."""
        self._ssp: Any = None
        self._shd: Any = SocketHolder(self._descriptor, self._is_local, self.backlog)  # type: ignore[call-arg]  # the stub has no __new__

    async def start(self) -> None:
        """Listen. The certificates have passed ``check``: on others rustls aborts the process."""
        self.startup(self._spawn_asgi_worker, self.target)
        await asyncio.sleep(0)  # the worker's task begins, and listens

    def stop_accepting(self) -> None:
        """Leave new connections to others; those that are go on."""
        stop_accepting(self._descriptor)

    async def stop(self) -> None:
        """Accept no more, close idle connections, return when running requests have ended."""
        await self.shutdown()


def _tls(certificates: Certificates) -> dict[str, Any]:
    return {
        "ssl_cert": certificates.certificate,
        "ssl_key": certificates.key,
        "ssl_protocol_min": SSLProtocols.tls12,
        "ssl_ca": certificates.client_ca,
        "ssl_client_verify": certificates.client_ca is not None,
    }
