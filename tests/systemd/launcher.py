"""A service manager for one daemon: keeps its sockets, hears what it says, restarts it."""

import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import closing
from http.client import HTTPSConnection
from pathlib import Path
from types import TracebackType
from typing import Self

from cypd.oci.digest import Digest
from tests.authority import Authority
from tests.crash.mortal import Mortal
from tests.daemon import Supervised, basic

# The variables name a process id that is known only after the fork, and descriptors from 3 on.
_EXEC = """
import fcntl, os, sys
numbers = [int(number) for number in sys.argv[1].split(",")]
passed = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 100) for number in numbers]
for index, descriptor in enumerate(passed):
    os.dup2(descriptor, 3 + index)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""


class Launcher(Mortal, Supervised):
    """A service of two workers, on sockets that stay open over restarts, with somebody to notify.

    ``names``: what the sockets are called, one socket each; ``port`` is the first one's.
    """

    def __init__(
        self,
        directory: Path,
        environment: Mapping[str, str] | None = None,
        *,
        names: tuple[str, ...] = ("http",),
        watchdog: float = 0.0,
        notify: str = "",
    ) -> None:
        self.sockets = [socket.create_server(("127.0.0.1", 0), backlog=4096) for _ in names]
        address = notify or str(directory / "notify")
        super().__init__(
            directory,
            {
                "CYPD_SERVER_WORKERS": "2",
                "LISTEN_FDS": str(len(names)),
                "LISTEN_FDNAMES": ":".join(names),
                "NOTIFY_SOCKET": address,
                **({"WATCHDOG_USEC": str(int(watchdog * 1e6))} if watchdog else {}),
                **(environment or {}),
            },
        )
        # Nobody can listen there: so what answers got its socket from here.
        self.environment["CYPD_SERVER_LISTEN"] = "192.0.2.1:1"
        self.watchdog = watchdog
        self.messages: list[str] = []
        self.port = self.sockets[0].getsockname()[1]
        self.descriptors = tuple(sock.fileno() for sock in self.sockets)
        passed = ",".join(str(number) for number in self.descriptors)
        self.command = (sys.executable, "-ISc", _EXEC, passed, *Supervised.command)
        self._notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notifications.bind(address.replace("@", "\0", 1) if notify else address)
        self._heard = threading.Condition()
        self._closing = threading.Event()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def __enter__(self) -> Self:
        try:
            return super().__enter__()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            super().__exit__(kind, error, traceback)
        finally:
            self.close()

    def start(self, deadline: float = 120) -> None:
        """Return when it is ready, all workers of it."""
        before = self.heard("READY=1")
        super().start(deadline)
        self.hear("READY=1", count=before + 1, deadline=deadline)

    def close(self) -> None:
        """Close the sockets."""
        self._closing.set()
        self._listener.join()
        for sock in (*self.sockets, self._notifications):
            sock.close()

    def heard(self, line: str) -> int:
        """Return how often the daemon has said a line."""
        with self._heard:
            return sum(line in message.split("\n") for message in self.messages)

    def hear(self, line: str, *, count: int = 1, deadline: float = 20) -> None:
        """Wait until the daemon has said a line that often."""
        with self._heard:
            ok = self._heard.wait_for(lambda: self.heard(line) >= count, deadline)
        assert ok, f"{line} was not said {count} times: {self.messages}"

    def watch(self) -> None:
        """Wait until the daemon is silent for too long; then end it as systemd does (SIGABRT)."""
        last, seen = time.monotonic(), self.heard("WATCHDOG=1")
        while time.monotonic() - last < self.watchdog:
            time.sleep(0.05)
            if (now := self.heard("WATCHDOG=1")) != seen:
                last, seen = time.monotonic(), now
        os.kill(self.pid, signal.SIGABRT)
        assert self.ended() == -signal.SIGABRT

    def _listen(self) -> None:
        while not self._closing.is_set():
            if select.select([self._notifications], [], [], 0.05)[0]:
                message = self._notifications.recv(4096).decode()
                with self._heard:
                    self.messages.append(message)
                    self._heard.notify_all()


def pull_by_tls(daemon: Launcher, authority: Authority, repository: str, digest: Digest) -> bytes:
    """Pull a blob at the second socket, which is called https."""
    port = daemon.sockets[1].getsockname()[1]
    context = authority.context()
    with closing(HTTPSConnection("127.0.0.1", port, context=context, timeout=30)) as connection:
        headers = {"Authorization": basic(daemon.user, daemon.password)}
        connection.request("GET", f"/v2/{repository}/blobs/{digest}", headers=headers)
        response = connection.getresponse()
        assert response.status == 200
        return response.read()
