"""A receiver of webhooks: an HTTP server that fails as it is told, and remembers what came."""

import hashlib
import hmac
import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple, Self
from weakref import WeakKeyDictionary

from tests.daemon import Daemon

SECRET = "a canary that signs"


class Received(NamedTuple):
    """A request that came whole."""

    headers: dict[str, str]
    body: bytes
    outcome: str
    """What was done to it: a status, or ``stall`` or ``reset``."""

    @property
    def document(self) -> Any:
        """What the body says."""
        return json.loads(self.body)


class Sink:
    """Answers each request with what ``behave`` says of how many came before it."""

    def __init__(self, behave: Callable[[int], str] = lambda _: "200") -> None:
        self.behave = behave
        self.received: list[Received] = []
        self._lock = threading.Lock()
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outcome = sink._note(dict(self.headers), body)
                if outcome == "stall":
                    time.sleep(2)
                elif outcome == "reset":
                    linger = struct.pack("ii", 1, 0)
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    self.connection.close()
                else:
                    self.send_response(int(outcome))
                    self.send_header("Content-Length", "2")
                    self.end_headers()
                    self.wfile.write(b"ok")
                self.close_connection = True

            def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
                pass

            def finish(self) -> None:
                with suppress(OSError, ValueError):
                    super().finish()

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # it went away first

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _note(self, headers: dict[str, str], body: bytes) -> str:
        with self._lock:
            outcome = self.behave(len(self.received))
            self.received.append(Received(headers, body, outcome))
        return outcome

    def taken(self) -> list[Received]:
        """Return the requests that were answered with 2xx."""
        with self._lock:
            return [it for it in self.received if it.outcome.startswith("2")]

    def wait_for(self, count: int, deadline: float = 20) -> list[Received]:
        """Return what was taken, once there are that many."""
        end = time.monotonic() + deadline
        while len(taken := self.taken()) < count:
            assert time.monotonic() < end, f"{len(taken)} of {count}"
            time.sleep(0.02)
        return taken


def api(
    daemon: Daemon, method: str, path: str, document: Any = None, token: str = "", status: int = 0
) -> Any:
    """Ask the product's own API; return ``data``, once the status is as expected."""
    headers = {"Authorization": f"Bearer {token or sign_in(daemon)}"}
    body = None
    if document is not None:
        body, headers["Content-Type"] = json.dumps(document).encode(), "application/json"
    response = daemon.request(method, f"/api/v1{path}", headers=headers, body=body)
    expected = {status} if status else {200, 201, 202}
    assert response.status in expected, (response.status, response.body)
    return json.loads(response.body)["data"]


_tokens: WeakKeyDictionary[Daemon, str] = WeakKeyDictionary()


def sign_in(daemon: Daemon) -> str:
    """Return an access token of the administrator."""
    if daemon not in _tokens:
        body = json.dumps({"username": daemon.user, "password": daemon.password}).encode()
        headers = {"Content-Type": "application/json"}
        path = "/api/v1/auth/login"
        response = daemon.request("POST", path, headers=headers, body=body, auth=False)
        assert response.status == 200, response.body
        _tokens[daemon] = json.loads(response.body)["data"]["access_token"]
    return _tokens[daemon]


def project(daemon: Daemon, name: str) -> str:
    """Make a project; return its id."""
    made = api(daemon, "POST", "/projects", {"name": name}, status=201)
    return str(made["id"])


def hook(daemon: Daemon, project_id: str, url: str, **settings: Any) -> str:
    """Make a webhook for pushes that tries again soon; return its id."""
    document = {
        "project_id": project_id,
        "name": "a hook",
        "url": url,
        "secret": SECRET,
        "events": ["push"],
        "retry_policy": {"max_retries": 20, "initial_delay_ms": 100, "max_delay_ms": 200},
        **settings,
    }
    return str(api(daemon, "POST", "/webhooks", document, status=201)["id"])


def mac(message: bytes) -> str:
    """Return what a receiver works out for itself."""
    return hmac.new(SECRET.encode(), message, hashlib.sha256).hexdigest()
