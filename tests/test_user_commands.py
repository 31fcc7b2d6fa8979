"""``cypd user`` beside a running daemon: what it changes holds at the next request."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import CYPD, Daemon, basic

PASSWORD = "a long enough password"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A running daemon."""
    with Daemon(tmp_path_factory.mktemp("users")) as daemon:
        yield daemon


def user(daemon: Daemon, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run ``cypd user``."""
    command = [CYPD, "user", *arguments]
    environment = {"PATH": "/usr/bin:/bin", "CYPD_STORAGE_ROOT": str(daemon.state)}
    return subprocess.run(
        command, env=environment, input=stdin, capture_output=True, text=True, check=False
    )


def succeeding(daemon: Daemon, *arguments: str, stdin: str = "") -> Any:
    """Run ``cypd user … --json``; return what it prints."""
    done = user(daemon, *arguments, "--json", stdin=stdin)
    assert (0, "") == (done.returncode, done.stderr)
    return json.loads(done.stdout)


def status(daemon: Daemon, name: str, password: str) -> int:
    """Ask for /v2/ with a password."""
    fields = {"Authorization": basic(name, password)}
    return daemon.request("GET", "/v2/", headers=fields).status


def test_a_life_of_an_account(daemon: Daemon) -> None:
    """Made, listed, given another password, disabled and enabled; the daemon knows at once."""
    made = succeeding(daemon, "add", "Carol", "--email", "c@example.com", stdin=f"{PASSWORD}\n")
    assert ("carol", "c@example.com", False) == (made["username"], made["email"], made["is_admin"])
    assert 200 == status(daemon, "carol", PASSWORD)
    assert {"admin", "carol"} <= {it["username"] for it in succeeding(daemon, "list")}

    succeeding(daemon, "passwd", "carol", "--password-stdin", stdin="another password\n")
    assert [401, 200] == [status(daemon, "carol", it) for it in (PASSWORD, "another password")]

    succeeding(daemon, "disable", "carol")
    assert 403 == status(daemon, "carol", "another password")
    succeeding(daemon, "enable", "carol")
    assert 200 == status(daemon, "carol", "another password")


def test_a_lost_second_factor_is_taken_away(daemon: Daemon) -> None:
    """After ``reset-mfa`` the password alone is enough again."""
    pyotp = pytest.importorskip("pyotp")
    succeeding(daemon, "add", "dave", stdin=f"{PASSWORD}\n")
    login = _api(daemon, "/auth/login", {"username": "dave", "password": PASSWORD})
    secret = _api(daemon, "/user/mfa", None, login["access_token"])["secret"]
    code = {"code": pyotp.TOTP(secret).now()}
    _api(daemon, "/user/mfa/activate", code, login["access_token"])
    assert 401 == status(daemon, "dave", PASSWORD)

    assert not succeeding(daemon, "reset-mfa", "dave")["mfa_enabled"]
    assert 200 == status(daemon, "dave", PASSWORD)


def _api(daemon: Daemon, path: str, document: Any, token: str = "") -> Any:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    body = None
    if document is not None:
        body, headers["Content-Type"] = json.dumps(document).encode(), "application/json"
    response = daemon.request("POST", f"/api/v1{path}", headers=headers, body=body, auth=False)
    assert response.status == 200, response
    return json.loads(response.body)["data"]


@pytest.mark.parametrize(
    ("arguments", "stdin", "told"),
    [
        (("add", "admin"), PASSWORD, "user exists already"),
        (("add", "eve"), "short", "password: a password has 8 to 1024 characters"),
        (("add", "eve."), PASSWORD, "username: 2 to 64 of a-z and 0-9"),
        (("passwd", "nobody"), PASSWORD, "user not found"),
        (("disable", "admin"), "", "not allowed in this state"),
    ],
)
def test_what_can_not_be_done_is_told(
    daemon: Daemon, arguments: tuple[str, ...], stdin: str, told: str
) -> None:
    """Status 1 and one line that says why; nothing changes."""
    before = succeeding(daemon, "list")
    done = user(daemon, *arguments, stdin=stdin)

    assert 1 == done.returncode
    assert done.stderr.startswith(f"cypd: {told}")
    assert 1 == done.stderr.count("\n")
    assert before == succeeding(daemon, "list")


def test_people_read_a_table(daemon: Daemon) -> None:
    """Without ``--json`` there is a line a user."""
    lines = user(daemon, "list").stdout.splitlines()

    assert lines[0].split() == ["NAME", "ADMIN", "ACTIVE", "2ND", "FACTOR", "EMAIL"]
    assert ["admin", "yes", "yes", "no"] == next(it for it in lines if "admin" in it).split()


def test_without_a_registry_there_is_nothing_to_do(tmp_path: Path, daemon: Daemon) -> None:
    """A state folder that no daemon has made yet is told, status 78."""
    command = [CYPD, "user", "list"]
    environment = {"PATH": "/usr/bin:/bin", "CYPD_STORAGE_ROOT": str(tmp_path / "none")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert 78 == done.returncode
    assert "there is no registry" in done.stderr
