"""The servers compared: each on a free loopback port, pinned to one CPU, its state in a folder."""

import os
import secrets
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from socket import create_server
from types import TracebackType
from typing import ClassVar, Self

import trustme

from benchmarks import oci
from benchmarks.http import Connection, TlsConnection
from benchmarks.oci import Blob

REPOSITORY = "benchmarks/image"
TAG = "latest"


class Server(ABC):
    """A server process, running while its context is entered."""

    name: ClassVar[str]
    credentials: str | None = None
    _process: subprocess.Popen[bytes]  # from entering the context on

    def __init__(self, directory: Path, cpu: int | str, *, tls: bool = False) -> None:
        """``cpu``: which one it has; or several, as taskset(1) takes them."""
        self.directory = directory
        self.port = _free_port()
        self.tls_port = _free_port() if tls else None
        self.url = f"http://127.0.0.1:{self.port}"
        self._cpu = cpu
        self._log = directory / "log"

    @abstractmethod
    def command(self) -> Sequence[str]:
        """Write the configuration, return the command that runs in the foreground with it."""

    @abstractmethod
    def put_blob(self, blob: Blob) -> str:
        """Make a blob available, return its path in the URL."""

    @abstractmethod
    def put_manifest(self, content: bytes) -> str:
        """Make a manifest available by tag, return its path in the URL."""

    def warm_up(self) -> None:
        """Push something tiny: a password is checked slowly by intent, and then remembered."""
        self.put_blob(Blob.of(secrets.token_bytes()))

    def environment(self) -> Mapping[str, str]:
        """Return what the server is told by its environment."""
        return {}

    def anonymous(self) -> Connection:
        """Return a new connection without credentials."""
        return Connection(self.port)

    @property
    def pid(self) -> int:
        """The process every other one of the server descends from."""
        return self._process.pid

    def connect(self, window: int = 0) -> Connection:
        """Return a new connection that may push."""
        return Connection(self.port, self.credentials, window)

    def connect_tls(self, window: int = 0) -> TlsConnection:
        """Return a new connection by TLS, for a server that was made with it."""
        assert self.tls_port is not None  # noqa: S101
        return TlsConnection(self.tls_port, self.directory / "root.pem", window)

    def _certify(self) -> None:
        """Write a certificate, its key, and who has signed it (ECDSA, P-256)."""
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.directory / "root.pem"))
        issued = authority.issue_cert("127.0.0.1")
        issued.private_key_pem.write_to_path(str(self.directory / "key.pem"))
        issued.cert_chain_pems[0].write_to_path(str(self.directory / "certificate.pem"))

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True)
        if self.tls_port is not None:
            self._certify()
        pinned = ["taskset", "--cpu-list", str(self._cpu), *self.command()]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *pinned],  # it ends with us, whatever ends us
                cwd=self.directory,
                env={**os.environ, **self.environment()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the client, which then stops its servers
            )
        try:
            self._wait_until_it_answers(time.monotonic() + 20)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _wait_until_it_answers(self, deadline: float) -> None:
        while True:
            try:
                with Connection(self.port) as connection:
                    connection.request("GET", "/v2/")
            except OSError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    log = self._log.read_text(errors="replace")[-2000:]
                    raise ConnectionError(f"{self.name} does not start\n{log}") from error
                time.sleep(0.05)
            else:
                return


class Registry(Server):
    """A server that speaks the OCI API."""

    def put_blob(self, blob: Blob) -> str:
        """Push the blob."""
        with self.connect() as connection:
            oci.push_blob(connection, REPOSITORY, blob)
        return f"/v2/{REPOSITORY}/blobs/{blob.digest}"

    def put_manifest(self, content: bytes) -> str:
        """Push the manifest."""
        with self.connect() as connection:
            oci.push_manifest(connection, REPOSITORY, TAG, content)
        return f"/v2/{REPOSITORY}/manifests/{TAG}"


class Cypd(Registry):
    """The daemon of this repository, as installed beside the interpreter."""

    name = "cypd"

    def __init__(self, directory: Path, cpu: int | str, *, tls: bool = False) -> None:
        super().__init__(directory, cpu, tls=tls)
        self.metrics_port = _free_port()
        self._password = secrets.token_urlsafe()
        self.credentials = f"admin:{self._password}"

    def command(self) -> Sequence[str]:
        """Take the defaults; the environment says the rest."""
        return [str(Path(sys.executable).with_name("cypd")), "serve"]

    def environment(self) -> Mapping[str, str]:
        """Let anybody pull, as the peers do."""
        tls = {
            "CYPD_SERVER_TLS_LISTEN": f"127.0.0.1:{self.tls_port}",
            "CYPD_TLS_CERTIFICATE": str(self.directory / "certificate.pem"),
            "CYPD_TLS_KEY": str(self.directory / "key.pem"),
        }
        return {
            **(tls if self.tls_port is not None else {}),
            "CYPD_SERVER_LISTEN": f"127.0.0.1:{self.port}",
            "CYPD_SERVER_METRICS_LISTEN": f"127.0.0.1:{self.metrics_port}",
            "CYPD_STORAGE_ROOT": str(self.directory / "state"),
            "CYPD_AUTH_ADMIN_PASSWORD": self._password,
            "CYPD_ACCESS_ANONYMOUS": "pull",
            "CYPD_PROJECTS_DEFAULT_QUOTA": "-1",
        }


class Distribution(Registry):
    """CNCF distribution at its lightest: no access log, no authentication, descriptors cached."""

    name = "docker-registry"

    def command(self) -> Sequence[str]:
        """Write a configuration file and serve it."""
        configuration = self.directory / "config.yml"
        configuration.write_text(f"""\
version: 0.1
log:
  level: error
  accesslog:
    disabled: true
storage:
  filesystem:
    rootdirectory: {self.directory / "state"}
  cache:
    blobdescriptor: inmemory
  maintenance:
    uploadpurging:
      enabled: false
http:
  addr: 127.0.0.1:{self.port}
""")
        return ["docker-registry", "serve", str(configuration)]

    def environment(self) -> Mapping[str, str]:
        """Keep it from tracing; one thread runs Go code, as there is one CPU for it."""
        return {"OTEL_TRACES_EXPORTER": "none", "GOMAXPROCS": "1"}


class Nginx(Server):
    """One nginx worker that sends the same bytes as static files."""

    name = "nginx"

    def command(self) -> Sequence[str]:
        """Write a configuration file and serve it."""
        (self.directory / "www").mkdir()
        tls = f"""
        listen 127.0.0.1:{self.tls_port} ssl;
        ssl_certificate {self.directory}/certificate.pem;
        ssl_certificate_key {self.directory}/key.pem;
        ssl_protocols TLSv1.2 TLSv1.3;"""
        configuration = self.directory / "nginx.conf"
        configuration.write_text(f"""\
daemon off;
worker_processes 1;
pid {self.directory}/pid;
{"user root;" if os.geteuid() == 0 else ""}
events {{
    worker_connections 4096;
}}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000000;
    client_body_temp_path {self.directory}/scratch;
    proxy_temp_path {self.directory}/scratch;
    fastcgi_temp_path {self.directory}/scratch;
    uwsgi_temp_path {self.directory}/scratch;
    scgi_temp_path {self.directory}/scratch;
    server {{
        listen 127.0.0.1:{self.port};{tls if self.tls_port is not None else ""}
        root {self.directory}/www;
    }}
}}
""")
        return ["nginx", "-e", "stderr", "-c", str(configuration)]

    def put_blob(self, blob: Blob) -> str:
        """Write the blob into a file."""
        return self._put(blob.digest.replace(":", "-"), blob.content)

    def put_manifest(self, content: bytes) -> str:
        """Write the manifest into a file."""
        return self._put(TAG, content)

    def _put(self, name: str, content: bytes | memoryview) -> str:
        (self.directory / "www" / name).write_bytes(content)
        return f"/{name}"


KINDS: Mapping[str, type[Server]] = {kind.name: kind for kind in (Cypd, Nginx, Distribution)}


def _free_port() -> int:
    with create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
