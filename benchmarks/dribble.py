"""Run as a program: clients that take their time, of three kinds in equal parts.

    python -m benchmarks.dribble PORT COUNT BLOB AUTHORIZATION [ROOT]

By TLS if there is a file of whose certificates to trust.
Some send a request's header byte by byte, some its body, some read a large blob by the hundred
bytes. When all are closed it prints, as JSON, how many there were and after how many seconds the
last one was.
"""

import json
import resource
import socket
import ssl
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

PATIENCE = 60.0  # seconds after which what is still open stays open
_OPENED_PER_SECOND = 1000
_OPENED_BY_TLS = 100  # a handshake takes a millisecond of either side
_BEAT = 2.0  # seconds between two signs of life of one client
_STEPS = 200  # of a beat, so that they do not all come at once
_WINDOW = 4096  # of a reader, bytes


@dataclass
class Client:
    """One slow connection."""

    socket: socket.socket
    since: float
    reads: bool
    """It reads by the hundred bytes; else it sends, one at a time."""

    def live(self) -> bool:
        """Give a sign of life; False if the server has closed."""
        try:
            if self.reads:  # what it has not read yet would come before the news of a reset
                broken = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                return not broken and self.socket.recv(100) != b""
            self.socket.send(b"x")
            while self.socket.recv(4096):
                pass
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False
        return False


def run(
    port: int, count: int, blob: str, authorization: str, root: str | None = None
) -> dict[str, float]:
    """Open so many, dribble until all are closed or patience ends; return what came of it."""
    groups: list[list[Client]] = [[] for _ in range(_STEPS)]
    longest, closed = 0.0, 0
    opened_per_second = _OPENED_BY_TLS if root else _OPENED_PER_SECOND
    opening = _open(port, count, blob, authorization, root)
    begun, step = time.monotonic(), 0
    while time.monotonic() - begun < PATIENCE + count / opened_per_second:
        due = begun + step * _BEAT / _STEPS
        time.sleep(max(0.0, due - time.monotonic()))
        group = groups[step % _STEPS]
        for client in list(group):
            if not client.live():
                client.socket.close()
                group.remove(client)
                closed += 1
                longest = max(longest, time.monotonic() - client.since)
        for _ in range(int(opened_per_second * _BEAT / _STEPS)):
            if (new := next(opening, None)) is not None:
                group.append(new)
        if closed == count:
            break
        step += 1
    return {"clients": count, "closed": closed, "longest": longest}


def _open(
    port: int, count: int, blob: str, authorization: str, root: str | None
) -> Iterator[Client]:
    context = ssl.create_default_context(cafile=root) if root else None
    digest = "sha256:" + "0" * 64
    starts = (
        b"GET /v2/ HTTP/1.1\r\nHost: a\r\nSlow: ",
        f"POST /v2/benchmarks/slow/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: a\r\n"
        f"Authorization: {authorization}\r\nContent-Length: 100000\r\n\r\n".encode(),
        f"GET {blob} HTTP/1.1\r\nHost: a\r\nAuthorization: {authorization}\r\n\r\n".encode(),
    )
    for number in range(count):
        start = starts[number % len(starts)]
        sock = socket.socket()
        reads = start is starts[-1]
        if reads:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _WINDOW)
        sock.connect(("127.0.0.1", port))
        if context:
            sock = context.wrap_socket(sock, server_hostname="127.0.0.1")
        sock.sendall(start)
        sock.setblocking(False)
        yield Client(sock, time.monotonic(), reads)


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    outcome = run(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
    sys.stdout.write(json.dumps(outcome) + "\n")
