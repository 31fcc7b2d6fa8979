"""A real registry for tests: started, asked, stopped, killed, started again."""

import base64
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPMessage
from itertools import cycle
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

CYPD = str(Path(sys.executable).with_name("cypd"))
USER = "admin"
PASSWORD = "correct horse battery staple"  # a space, so that nothing gets away without quoting


class Response(NamedTuple):
    """An answer, read to its end."""

    status: int
    headers: HTTPMessage
    body: bytes


class Daemon:
    """One worker on a free port of the loopback, its state under ``directory``.

    ``environment`` adds to the settings below or replaces them. Leaving the context stops the
    process; one that the test has killed or stopped itself is left alone.
    """

    user = USER
    password = PASSWORD
    command: tuple[str, ...] = (sys.executable, "-m", "cypd.worker")
    descriptors: tuple[int, ...] = ()
    """What the process inherits, by the same numbers."""

    def __init__(self, directory: Path, environment: Mapping[str, str] | None = None) -> None:
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.host}"
        self.state = directory / "state"
        self.log = directory / "cypd.log"
        self.environment = {
            "CYPD_SERVER_LISTEN": self.host,
            "CYPD_SERVER_METRICS_LISTEN": "",
            "CYPD_STORAGE_ROOT": str(self.state),
            "CYPD_AUTH_ADMIN_PASSWORD": self.password,
            **(environment or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<Daemon {self.url} {f'pid {self.pid}' if self._process else 'not running'}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process is None:
            return
        if error is None:
            self.stop()
        else:
            self.kill()

    @property
    def pid(self) -> int:
        """The process id of the running daemon."""
        assert self._process is not None, "the daemon is not running"
        return self._process.pid

    def start(self, deadline: float = 60) -> None:
        """Start on the same port and state as before; return when it answers ``GET /v2/``."""
        self.spawn()
        try:
            self._wait_until_it_answers(time.monotonic() + deadline)
        except BaseException:
            self.kill()
            raise

    def spawn(self) -> None:
        """Start, and do not wait."""
        assert self._process is None, "the daemon is running already"
        self.state.mkdir(parents=True, exist_ok=True)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("CYPD_")}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                cwd=self.log.parent,
                env=inherited | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=self.descriptors,
                start_new_session=True,  # so that kill() reaches its workers too
            )

    def stop(self, deadline: float = 30) -> None:
        """Ask the daemon to end (SIGTERM), as an init system does; it must exit with 0."""
        os.kill(self.pid, signal.SIGTERM)
        self.wait_for_end(deadline)

    def wait_for_end(self, deadline: float = 30) -> None:
        """Return when the daemon has ended, which it was told to; it must exit with 0."""
        try:
            status = self._wait(deadline)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(
                f"still running {deadline} s after SIGTERM{self._tail()}"
            ) from None

        assert status == 0, f"exit status {status} after SIGTERM{self._tail()}"

    def kill(self) -> None:
        """End the daemon and its workers at once (SIGKILL), as a power cut would."""
        with suppress(ProcessLookupError):  # it had ended by itself
            os.killpg(self.pid, signal.SIGKILL)
        self._wait(30)

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterable[bytes] | None = None,
        auth: bool = True,
        timeout: float = 30,
    ) -> Response:
        """Send one request on a connection of its own, as the administrator unless told not to."""
        fields = dict(headers or {})
        if auth:
            fields.setdefault("Authorization", basic(self.user, self.password))
        connection = HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, fields)
            response = connection.getresponse()
            return Response(response.status, response.headers, response.read())
        finally:
            connection.close()

    def wait_for(self, line: str, deadline: float = 30) -> None:
        """Return when the log has ``line``."""
        end = time.monotonic() + deadline
        while line not in self.log.read_text(errors="replace"):
            assert time.monotonic() < end, f"no {line!r} in the log{self._tail()}"
            time.sleep(0.02)

    def _wait_until_it_answers(self, deadline: float) -> None:
        assert self._process is not None
        while True:
            try:
                self.request("GET", "/v2/", auth=False)
            except (OSError, HTTPException) as error:
                if (status := self._process.poll()) is not None:
                    raise AssertionError(f"exit status {status} at start{self._tail()}") from None
                if time.monotonic() > deadline:
                    raise AssertionError(f"{error!r} at {self.url}{self._tail()}") from None
                time.sleep(0.02)
            else:
                return

    def _wait(self, deadline: float) -> int:
        assert self._process is not None
        status = self._process.wait(deadline)
        self._process = None
        return status

    def _tail(self) -> str:
        """The end of the log, for the message of a failed assertion."""
        return "\n" + self.log.read_text(errors="replace")[-4000:]


class Supervised(Daemon):
    """The whole service: ``pid`` is the supervisor's."""

    command: tuple[str, ...] = (CYPD, "serve")

    def workers(self) -> list[int]:
        """Return the process ids of the workers, those that start or end included."""
        found = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in found.split()]


def basic(user: str, password: str) -> str:
    """Return the value of an Authorization header (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def free_port() -> int:
    """Return a loopback port that nobody listens on, and that nobody is given soon.

    Not by the kernel to whoever connects (ip(7), ip_local_port_range: from 32768 on), for it may be
    seconds until somebody listens there, and not to another test by this function.
    """
    while True:
        port = next(_ports)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def _own_ports() -> Iterator[int]:
    """Return the ports of this process among those that share the tests, from any of them on."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    own = range(10_000, 32_768)[int(worker) % 16 :: 16]
    start = secrets.randbelow(len(own))  # not random: tests seed that alike
    return cycle([*own[start:], *own[:start]])


_ports = _own_ports()
