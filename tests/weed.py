"""A real S3 store for tests: SeaweedFS, which is started, stopped, killed and started again."""

import json
import os
import signal
import ssl
import subprocess
import sys
import time
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cypd.config import S3
from cypd.doors.tls import Certificates
from tests.daemon import free_port

ACCESS_KEY = "an-access-key"
SECRET_KEY = "a-secret-key"
BUCKET = "blobs"

_PORTS = ("master.port", "volume.port", "filer.port", "s3.port")


class Weed:
    """SeaweedFS with its S3 gateway on free ports of the loopback, its data under ``directory``.

    ``BUCKET`` is made at the first start. Leaving the context kills the process. With ``tls`` the
    gateway speaks nothing else.
    """

    access_key = ACCESS_KEY
    secret_key = SECRET_KEY
    bucket = BUCKET

    def __init__(self, directory: Path, tls: Certificates | None = None) -> None:
        self._ports = {it: free_port() for name in _PORTS for it in (name, f"{name}.grpc")}
        self.port = self._ports["s3.port"]
        self.endpoint = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._certificates = (
            [f"-s3.cert.file={tls.certificate}", f"-s3.key.file={tls.key}"] if tls else []
        )
        self.data = directory / "weed"
        self.log = directory / "weed.log"
        self._prefixes = count()
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<Weed {self.endpoint} {f'pid {self.pid}' if self._process else 'not running'}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self.kill()

    @property
    def pid(self) -> int:
        """The process id of the running store."""
        assert self._process is not None, "the store is not running"
        return self._process.pid

    def settings(self, **others: Any) -> S3:
        """Return the settings of an engine whose keys nobody else has."""
        others.setdefault("prefix", f"test-{next(self._prefixes)}")
        return S3(
            endpoint=self.endpoint,
            bucket=self.bucket,
            access_key=self.access_key,
            secret_key=self.secret_key,
            **others,
        )

    @property
    def environment(self) -> dict[str, str]:
        """What makes a daemon keep its blobs here."""
        return {
            "CYPD_STORAGE_DRIVER": "s3",
            "CYPD_S3_ENDPOINT": self.endpoint,
            "CYPD_S3_BUCKET": self.bucket,
            "CYPD_S3_ACCESS_KEY": self.access_key,
            "CYPD_S3_SECRET_KEY": self.secret_key,
        }

    def start(self, deadline: float = 60) -> None:
        """Start on the same ports and data as before; return when objects can be put and got."""
        assert self._process is None, "the store is running already"
        self.data.mkdir(parents=True, exist_ok=True)
        identities = self.data / "identities.json"
        identities.write_text(json.dumps(_identities()))
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(Path(sys.executable).with_name("weed")),
                    "server",
                    "-ip=127.0.0.1",
                    "-ip.bind=127.0.0.1",
                    f"-dir={self.data}",
                    "-master.telemetry=false",
                    "-master.electionTimeout=1s",  # how long it is away when it was killed
                    "-master.heartbeatInterval=100ms",
                    "-master.volumeSizeLimitMB=64",
                    "-volume.max=0",
                    f"-filer.localSocket={self.data}/filer.sock",
                    "-s3",
                    f"-s3.config={identities}",
                    f"-s3.localSocket={self.data}/s3.sock",
                    "-s3.port.iceberg=0",
                    "-s3.port.lance=0",
                    *self._certificates,
                    *(f"-{name}={port}" for name, port in self._ports.items()),
                ],
                cwd=self.data,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait_until_it_works(time.monotonic() + deadline)
        except BaseException:
            self.kill()
            raise

    def stop(self, deadline: float = 60) -> None:
        """Ask the store to end (SIGTERM), and wait for it."""
        os.kill(self.pid, signal.SIGTERM)
        self._wait(deadline)

    def kill(self) -> None:
        """End the store at once (SIGKILL)."""
        with suppress(ProcessLookupError):  # it had ended by itself
            os.killpg(self.pid, signal.SIGKILL)
        self._wait(10)

    def pause(self) -> None:
        """Make the store hang: it keeps its connections, and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)
        # Each of its threads stops when it next would run, and may answer a request before.
        while {_state(thread) for thread in Path(f"/proc/{self.pid}/task").iterdir()} != {"T"}:
            time.sleep(0.01)

    def resume(self) -> None:
        """Let a paused store go on."""
        os.kill(self.pid, signal.SIGCONT)

    def _wait(self, deadline: float) -> None:
        assert self._process is not None
        self._process.wait(deadline)
        self._process = None

    def _wait_until_it_works(self, deadline: float) -> None:
        assert self._process is not None
        while not self._works():
            assert self._process.poll() is None, f"the store ended{self._tail()}"
            assert time.monotonic() < deadline, f"the store does not answer{self._tail()}"
            time.sleep(0.1)

    def _works(self) -> bool:
        """Put an object by the filer, which is what comes last and needs all others."""
        probe = f"/buckets/{self.bucket}/probe"
        port = self._ports["filer.port"]
        try:
            return (
                _status("GET", self.port, "/status", tls=bool(self._certificates)) == 200
                and _status("PUT", port, probe, b"content") == 201
                and _status("DELETE", port, probe) == 204
            )
        except (OSError, HTTPException):
            return False

    def _tail(self) -> str:
        return "\n" + self.log.read_text(errors="replace")[-4000:]


def _state(task: Path) -> str:
    """Return what a thread does, in the letter that the kernel has for it (proc(5))."""
    return (task / "stat").read_text().rpartition(")")[2].split()[0]


def _identities() -> dict[str, object]:
    keys = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
    return {"identities": [{"name": "cypd", "credentials": keys, "actions": ["Admin"]}]}


def _status(
    method: str, port: int, path: str, body: bytes | None = None, *, tls: bool = False
) -> int:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    if tls:
        unverified = ssl._create_unverified_context()  # its own certificate is a test's business
        connection = HTTPSConnection("127.0.0.1", port, timeout=5, context=unverified)
    try:
        connection.request(method, path, body)
        return connection.getresponse().status
    finally:
        connection.close()
