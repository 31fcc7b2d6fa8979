"""Several processes that serve one listening socket, as the daemon's workers do."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import pytest

from cypd.doors.plain import bind
from tests.authority import Authority

PATIENCE = 20.0
CROWD = 40
ROOT = Path(__file__).parents[2]


class Workers:
    """Processes on one socket that this one holds too, so that nothing queued on it is lost."""

    def __init__(self, authority: Authority | None) -> None:
        self.authority = authority
        self.socket = bind("127.0.0.1", 0)
        self.socket.listen(100)
        self.address = self.socket.getsockname()
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        """Start one more; return when it listens."""
        descriptor = self.socket.fileno()
        files = self.authority.files if self.authority else None
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.doors.worker", str(descriptor)),
                *([str(files.certificate), str(files.key)] if files else []),
            ],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[descriptor],
        )
        self.running.append(process)
        expect(process, b"ready\n")
        return process

    def connect(self) -> socket.socket:
        """Connect; the handshake of TLS waits for the first use."""
        return self.secure(socket.create_connection(self.address, timeout=PATIENCE))

    def secure(self, sock: socket.socket) -> socket.socket:
        """Return the connection as requests go through it."""
        if self.authority is None:
            return sock
        return self.authority.context().wrap_socket(
            sock, server_hostname="127.0.0.1", do_handshake_on_connect=False
        )

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let nobody run meanwhile."""
        for process in self.running:
            process.send_signal(signal.SIGSTOP)
        yield
        for process in self.running:
            process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End all."""
        for process in self.running:
            process.kill()
            process.communicate(timeout=PATIENCE)
        self.socket.close()


def expect(process: subprocess.Popen[bytes], line: bytes) -> None:
    """Read one line of what a worker says."""
    assert process.stdout
    assert process.stdout.readline() == line


def ask(sock: socket.socket, path: str = "/") -> None:
    """Send a request."""
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())


def answer(sock: socket.socket) -> bytes:
    """Read the answer: the process that gave it."""
    response = http.client.HTTPResponse(sock)
    response.begin()
    assert response.status == 200
    return response.read()


@pytest.fixture(params=["plain", "tls"])
def workers(request: pytest.FixtureRequest, authority: Authority) -> Iterator[Workers]:
    """Nobody yet, for a socket of either kind."""
    started = Workers(authority if request.param == "tls" else None)
    yield started
    started.close()


@pytest.fixture
def crowd(workers: Workers) -> Iterator[Callable[[], list[socket.socket]]]:
    """Opens many connections at once; they close after the test."""
    with contextlib.ExitStack() as stack:

        def connect() -> list[socket.socket]:
            with workers.held():
                crowd = [stack.enter_context(workers.connect()) for _ in range(CROWD)]
            time.sleep(0.1)  # leave the cores to them
            return crowd

        yield connect


@pytest.mark.parametrize("workers", ["plain"], indirect=True)
def test_a_burst_is_shared(workers: Workers, crowd: Callable[[], list[socket.socket]]) -> None:
    """Of forty connections at once no process of two takes more than three quarters.

    In most bursts: who has the only core that is free has to take more.
    """
    for _ in range(2):
        workers.start()
    shares = []
    for _ in range(7):
        sockets = crowd()
        for sock in sockets:
            ask(sock)
        shares.append(max(Counter(answer(sock) for sock in sockets).values()))

    assert median(shares) <= CROWD * 3 / 4


def test_who_drains_leaves_the_queue(workers: Workers) -> None:
    """A connection that nobody has taken when its only process drains is taken by the next one."""
    first = workers.start()
    with workers.connect() as busy:
        ask(busy, "/slow")
        expect(first, b"asked\n")
        os.kill(first.pid, signal.SIGTERM)
        expect(first, b"draining\n")
        waiting = socket.create_connection(workers.address, timeout=0.5)
        with pytest.raises(TimeoutError):
            waiting.recv(1)
        second = workers.start()
        waiting.settimeout(PATIENCE)
        with workers.secure(waiting) as taken:
            ask(taken)
            assert answer(taken) == b"%d" % second.pid
        first.communicate(b"!", timeout=PATIENCE)
        assert first.returncode == 0
        assert answer(busy) == b"%d" % first.pid
