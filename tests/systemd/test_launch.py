"""The daemon under a service manager: ready when it is, alive while it is, restarted unnoticed."""

import json
import os
import socket
import time
from pathlib import Path

import pytest

from cypd.oci.digest import Digest
from tests.authority import Authority
from tests.crash.client import Client
from tests.daemon import free_port
from tests.systemd.launcher import Launcher, pull_by_tls
from tests.systemd.wedge import wedged

BLOB = b"a blob" * 1000
IS_CI = bool(os.environ.get("CI"))
# The unit's 20 seconds where time is plenty.
WATCHDOG_SECONDS = 20.0 if IS_CI else 4.0


@pytest.mark.parametrize("notify", ["", f"@cypd-test-{os.getpid()}"], ids=["path", "abstract"])
def test_a_start_and_a_stop_are_announced(tmp_path: Path, notify: str) -> None:
    """READY comes once, with where it serves; STOPPING comes before the end and asks for time."""
    with Launcher(tmp_path, notify=notify) as daemon:
        daemon.hear("READY=1")
        assert daemon.heard(f"STATUS=serves http://127.0.0.1:{daemon.port}") == 1
        assert daemon.heard("STOPPING=1") == 0
        daemon.stop()
        daemon.hear("EXTEND_TIMEOUT_USEC=90000000")

        assert (daemon.heard("READY=1"), daemon.heard("STOPPING=1")) == (1, 1)
        daemon.start()


def test_ready_means_that_a_write_went_through(tmp_path: Path) -> None:
    """While nothing can be written the daemon is not ready; who asks waits, and is answered."""
    with Launcher(tmp_path) as daemon:
        daemon.stop()
        with Client(daemon) as client:
            with wedged(daemon):
                daemon.spawn()
                client.begin("GET", "/v2/", b"", of=0)
                time.sleep(2)
                assert daemon.heard("READY=1") == 1  # the first start's
            assert client.finish(b"").status == 200
        daemon.hear("READY=1", count=2)


@pytest.mark.alone
def test_a_writer_that_hangs_gets_the_daemon_restarted(tmp_path: Path) -> None:
    """Signs of life end with the writer's; within 25 seconds it serves again, all workers of it."""
    with Launcher(tmp_path, watchdog=WATCHDOG_SECONDS) as daemon:
        daemon.hear("WATCHDOG=1", count=2, deadline=WATCHDOG_SECONDS)
        with wedged(daemon):
            begin = time.monotonic()
            daemon.watch()
        daemon.start()
        took = time.monotonic() - begin
        assert daemon.request("GET", "/v2/").status == 200

    assert took < 25
    assert "Fatal Python error: Aborted" in daemon.log.read_text()  # and where each thread stood


def test_a_daemon_that_is_well_is_left_alone(tmp_path: Path) -> None:
    """Signs of life come at half the time that the watchdog has, with figures for who looks."""
    with Launcher(tmp_path, watchdog=1.0) as daemon:
        daemon.hear("WATCHDOG=1", count=6, deadline=10)
        assert daemon.heard("STATUS=2 of 2 workers, 0 connections, 0 requests") >= 5


def test_sockets_have_names(tmp_path: Path) -> None:
    """Each socket called http is served, and server.listen is not looked at."""
    with Launcher(tmp_path, names=("http", "cypd.socket", "")) as daemon:
        for sock in daemon.sockets:
            daemon.port = sock.getsockname()[1]
            assert daemon.request("GET", "/v2/").status == 200
    assert "take the place of server.listen" in daemon.log.read_text()


def test_metrics_have_a_socket_of_their_own(tmp_path: Path) -> None:
    """What the socket called metrics serves is /metrics alone, and server.metrics_listen is not."""
    port = free_port()
    elsewhere = {"CYPD_SERVER_METRICS_LISTEN": f"127.0.0.1:{port}"}
    with Launcher(tmp_path, elsewhere, names=("http", "metrics")) as daemon:
        assert daemon.request("GET", "/metrics").status == 404
        daemon.port = daemon.sockets[1].getsockname()[1]
        assert b"cypd_workers 2.0\n" in daemon.request("GET", "/metrics").body
        assert daemon.request("GET", "/v2/").status == 404
        with socket.socket() as nobody:
            assert nobody.connect_ex(("127.0.0.1", port)) != 0


def test_tls_has_a_socket_of_its_own(tmp_path: Path) -> None:
    """What the socket called https serves is TLS, and server.tls_listen is not looked at."""
    authority, nowhere = Authority(tmp_path / "tls"), free_port()
    settings = authority.settings(f"127.0.0.1:{nowhere}")
    with Launcher(tmp_path, settings, names=("http", "https")) as daemon:
        with Client(daemon) as client:
            assert client.push("library/app", Digest.of(BLOB), BLOB) == 201
        pulled = pull_by_tls(daemon, authority, "library/app", Digest.of(BLOB))
        with socket.socket() as nobody:
            assert nobody.connect_ex(("127.0.0.1", nowhere)) != 0

    assert pulled == BLOB


def test_a_socket_for_tls_needs_a_certificate(tmp_path: Path) -> None:
    """Without one the start ends, and says what is missing."""
    log = refusal(Launcher(tmp_path, names=("http", "https")))

    assert "tls.certificate: a socket for TLS needs a PEM file here" in log


def test_a_socket_that_nothing_serves_ends_the_start(tmp_path: Path) -> None:
    """A socket of an unknown name is refused, and named: nobody would ever answer there."""
    log = refusal(Launcher(tmp_path, names=("http", "htps")))

    assert "LISTEN_FDNAMES: nothing is served at htps" in log


def refusal(daemon: Launcher) -> str:
    """Return the log of a start that ends with what no restart changes (78)."""
    daemon.spawn()
    status = daemon.ended(60)
    daemon.close()
    assert status == 78
    return daemon.log.read_text()


def test_secrets_may_come_as_credentials(tmp_path: Path) -> None:
    """Token key and password that are passed are used, and none is written to the state folder."""
    (tmp_path / "token-key").write_text("0123456789abcdef" * 4)
    (tmp_path / "admin-password").write_text("from the manager\n")
    environment = {"CREDENTIALS_DIRECTORY": str(tmp_path), "CYPD_AUTH_ADMIN_PASSWORD": ""}
    with Launcher(tmp_path, environment) as daemon:
        daemon.password = "from the manager"
        token = json.loads(daemon.request("GET", "/v2/auth").body)["token"]
        bearer = {"Authorization": f"Bearer {token}"}
        daemon.stop()
        daemon.start()
        assert daemon.request("GET", "/v2/", headers=bearer).status == 200
        assert not {"token-key", "admin-password"} & {it.name for it in daemon.state.iterdir()}
