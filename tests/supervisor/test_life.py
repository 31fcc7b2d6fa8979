"""What the supervisor does with its workers: starts, replaces, swaps and ends them."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPSConnection
from pathlib import Path

import pytest

from tests.authority import Authority
from tests.daemon import free_port
from tests.supervisor.workers import Service
from tests.webhooks.sink import api

# Each starts several processes, which takes seconds of CPU.
pytestmark = pytest.mark.timeout(300)


def test_a_first_start_of_four_makes_one_administrator_and_one_key(tmp_path: Path) -> None:
    """The password in the file is the administrator's, and each takes the tokens of the others."""
    with Service(tmp_path, {"CYPD_AUTH_ADMIN_PASSWORD": ""}, workers=4) as service:
        service.password = (service.state / "admin-password").read_text().strip()
        workers = service.workers()
        tokens = []
        for pid in workers:
            with service.by(pid):
                tokens.append(json.loads(service.request("GET", "/v2/auth").body)["token"])
        for pid in workers:
            with service.by(pid):
                for token in tokens:
                    bearer = {"Authorization": f"Bearer {token}"}
                    assert service.request("GET", "/v2/", headers=bearer).status == 200
        assert [it["username"] for it in api(service, "GET", "/users")["users"]] == ["admin"]
        assert api(service, "GET", "/system/info")["workers"] == 4
        assert service.log.read_text().count("the password of the user admin is in") == 1


def test_a_worker_that_ends_is_replaced(tmp_path: Path) -> None:
    """One is killed: the other answers at once, and soon there are two again."""
    with Service(tmp_path) as service:
        killed, other = service.workers()
        os.kill(killed, signal.SIGKILL)
        assert service.request("GET", "/v2/").status == 200
        workers = service.wait_until_complete()

        assert killed not in workers
        assert other in workers
        assert f"worker {killed} ended: Killed" in service.log.read_text()


def test_workers_go_with_their_supervisor(tmp_path: Path) -> None:
    """After SIGKILL of the supervisor no worker is left, and a new start finds its address free."""
    service = Service(tmp_path)
    with service:
        workers = service.workers()
        os.kill(service.pid, signal.SIGKILL)
        assert service.ended() == -signal.SIGKILL
        end = time.monotonic() + 10
        while any(Path(f"/proc/{pid}/fd").exists() for pid in workers):
            assert time.monotonic() < end, "workers are left"
            time.sleep(0.02)
        service.start()
        assert service.request("GET", "/v2/").status == 200


@pytest.mark.waits
def test_a_worker_that_hangs_is_replaced(tmp_path: Path) -> None:
    """One stands still: the other serves on, and within 25 seconds another has its place."""
    with Service(tmp_path) as service:
        hanging, other = service.workers()
        os.kill(hanging, signal.SIGSTOP)
        begin = time.monotonic()
        while hanging in service.workers():
            assert service.request("GET", "/v2/").status == 200
            assert time.monotonic() - begin < 60
            time.sleep(0.2)
        took = time.monotonic() - begin

        assert other in service.wait_until_complete()
        assert took < 25
        assert f"worker {hanging}: no sign of life" in service.log.read_text()


def test_a_fault_that_comes_again_at_once_ends_the_service(tmp_path: Path) -> None:
    """A worker that finds the metadata unusable is tried once more, then all ends with 70."""
    service = Service(tmp_path)
    with service:
        # As a later version would have written it, for whoever opens it from now on.
        spoil = "import lmdb, sys\n" + (
            "with lmdb.open(sys.argv[1], lib_version=0, max_dbs=64) as env:\n"
            "    with env.begin(write=True, db=env.open_db(b'meta')) as txn:\n"
            "        txn.put(b'schema', b'999')\n"
        )
        command = [sys.executable, "-c", spoil, str(service.state / "metadata")]
        subprocess.run(command, check=True, timeout=30)
        os.kill(service.workers()[0], signal.SIGKILL)

        assert service.ended(120) == 70
    assert service.log.read_text().count("was written by another version of cypd") == 2


# --- SIGHUP -------------------------------------------------------------------------------------


def test_a_hangup_brings_a_new_configuration(tmp_path: Path) -> None:
    """New workers, as many as it says now, do what it says now; those of before are gone."""
    service = Service(tmp_path)
    del service.environment["CYPD_SERVER_WORKERS"]
    service.file.write_text('[server]\nworkers = 2\n[access]\nanonymous = "none"\n')
    with service:
        assert service.request("GET", "/v2/_catalog", auth=False).status == 401
        service.file.write_text('[server]\nworkers = 3\n[access]\nanonymous = "pull"\n')
        before, service.count = service.workers(), 3
        after = service.swap()

        assert not set(before) & set(after)
        assert service.request("GET", "/v2/_catalog", auth=False).status == 200


def test_addresses_come_and_go_with_a_hangup(tmp_path: Path) -> None:
    """A new address is served beside those that stay; one that is gone is closed."""
    second, third = free_port(), free_port()
    service = Service(tmp_path)
    first = service.port
    del service.environment["CYPD_SERVER_LISTEN"]
    service.file.write_text(f'[server]\nlisten = ["127.0.0.1:{first}", "127.0.0.1:{second}"]')
    with service:
        service.file.write_text(f'[server]\nlisten = ["127.0.0.1:{first}", "127.0.0.1:{third}"]')
        service.swap()
        for port in (first, third):
            service.port = port
            assert service.request("GET", "/v2/").status == 200
        service.port = second
        with pytest.raises(ConnectionRefusedError):
            service.request("GET", "/v2/")


def test_a_bad_configuration_changes_nothing(tmp_path: Path) -> None:
    """What can't be read, bound or started with is told, and who served serves on."""
    taken = free_port()
    with Service(tmp_path) as service:
        workers = service.workers()
        for bad, told in (
            ("[server]\nlistn = []", "did you mean listen?"),
            (f'[server]\ntls_listen = ["127.0.0.1:{taken}"]', "tls.certificate: "),
            ('[server]\ntls_listen = ["192.0.2.1:1"]', "server.tls_listen: 192.0.2.1:1: "),
        ):
            service.file.write_text(bad)
            service.hang_up()
            service.wait_for(told, 120)
            service.wait_for("all stays as it was", 120)
            assert service.wait_until_complete() == workers
            assert service.request("GET", "/v2/").status == 200
        service.file.write_text("")
        assert not set(service.swap()) & set(workers)


def test_a_hangup_brings_a_new_certificate(tmp_path: Path) -> None:
    """New connections get the new certificate, and a key that is none changes nothing."""
    old, new = Authority(tmp_path / "old"), Authority(tmp_path / "new")
    port = free_port()
    settings = old.settings(f"127.0.0.1:{port}")

    def get(authority: Authority) -> int:
        return https_status(port, authority)

    with Service(tmp_path, settings) as service:
        assert get(old) == 401
        for name in ("certificate", "key"):
            getattr(old.files, name).write_bytes(getattr(new.files, name).read_bytes())
        service.swap()
        assert get(new) == 401
        old.files.key.write_text("no key")
        service.hang_up()
        service.wait_for("tls.key: ", 120)
        service.wait_for("all stays as it was", 120)
        assert get(new) == 401


@pytest.mark.waits
def test_no_connection_by_tls_is_lost(tmp_path: Path) -> None:
    """Clients that come and go all the time see nothing of two hangups."""
    authority, port = Authority(tmp_path / "tls"), free_port()
    settings = authority.settings(f"127.0.0.1:{port}")
    over = threading.Event()

    def visit() -> int:
        visits = 0
        while not over.is_set():
            assert https_status(port, authority) == 401
            visits += 1
            time.sleep(0.02)
        return visits

    with Service(tmp_path, settings) as service, ThreadPoolExecutor(4) as pool:
        visitors = [pool.submit(visit) for _ in range(4)]
        try:
            service.swap()
            service.swap()
        finally:
            over.set()

    assert min(it.result() for it in visitors) > 0


def https_status(port: int, authority: Authority) -> int:
    """Ask for /v2/ on a connection of its own; return the status of the answer."""
    connection = HTTPSConnection("127.0.0.1", port, context=authority.context(), timeout=20)
    try:
        connection.request("GET", "/v2/")
        return connection.getresponse().status
    finally:
        connection.close()
