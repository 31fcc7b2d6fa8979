"""``cypd project``, beside a running daemon and without one."""

import json
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from cypd.oci.digest import Digest
from tests.crash.client import Client
from tests.daemon import Daemon
from tests.test_cli import run

CONTENT = b"x" * 2048


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with a project of 2 KiB."""
    with Daemon(tmp_path_factory.mktemp("projects")) as daemon:
        with Client(daemon) as client:
            assert client.push("library/app", Digest.of(CONTENT), CONTENT) == 201
        yield daemon


def cypd(daemon: Daemon, *arguments: str) -> CompletedProcess[str]:
    """Run ``cypd project`` on the state of a daemon."""
    environment = {"CYPD_STORAGE_ROOT": str(daemon.state)}
    return run("project", *arguments, folder=daemon.state, environment=environment)


def test_projects_are_listed(daemon: Daemon) -> None:
    """A line each for people, or JSON with sizes in bytes."""
    assert cypd(daemon, "quota", "library", "10GiB").returncode == 0
    shown, raw = cypd(daemon, "list"), cypd(daemon, "list", "--json")
    [line] = shown.stdout.splitlines()[1:]
    [document] = json.loads(raw.stdout)

    assert line.split() == ["library", "members", "0", "2.0", "KiB", "10.0", "GiB"]
    assert (document["name"], document["is_public"], document["quota"]) == (
        "library", False, 10 << 30,
    )  # fmt: skip
    assert (document["used"], document["reserved"], document["physical"]) == (2048, 0, 2048)


@pytest.mark.parametrize(
    ("text", "size"),
    [("4096", 4096), ("1K", 1024), ("3MiB", 3 << 20), ("2TiB", 2 << 40), ("unlimited", -1)],
)
def test_a_quota_holds_at_once(daemon: Daemon, text: str, size: int) -> None:
    """The running daemon keeps to it from its next request on."""
    done = cypd(daemon, "quota", "library", text, "--json")
    assert json.loads(done.stdout)["quota"] == size
    more = b"y" * 3000
    with Client(daemon) as client:
        fits = size < 0 or size >= 2048 + 3000
        assert client.push("library/app", Digest.of(more), more) == (201 if fits else 403)
        if fits:
            path = f"/v2/library/app/blobs/{Digest.of(more)}"
            assert client.send("DELETE", path).status == 202


def test_a_quota_is_shown(daemon: Daemon) -> None:
    """What is used, reserved and left of it."""
    assert cypd(daemon, "quota", "library", "4K").returncode == 0
    shown = cypd(daemon, "quota", "library").stdout.splitlines()

    assert shown == ["quota     4.0 KiB", "used      2.0 KiB (50.0%)", "reserved  0 B",
                     "left      2.0 KiB"]  # fmt: skip


@pytest.mark.parametrize("text", ["-1", "-2", "x", "1.5G", "1e9", "9" * 30, "", "9999999T"])
def test_a_quota_is_a_size(daemon: Daemon, text: str) -> None:
    """Anything else is status 2 and named; nothing changes."""
    before = cypd(daemon, "quota", "library", "--json").stdout
    done = cypd(daemon, "quota", "library", text)

    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert cypd(daemon, "quota", "library", "--json").stdout == before


def test_what_is_not_there_is_told(daemon: Daemon, tmp_path: Path) -> None:
    """An unknown project is status 1, a folder without a registry 78; none is made."""
    unknown = cypd(daemon, "quota", "nowhere")
    empty = run("project", "list", folder=tmp_path)

    assert (unknown.returncode, unknown.stderr) == (1, "cypd: project not found\n")
    assert empty.returncode == 78
    assert "there is no registry in" in empty.stderr
    assert not (tmp_path / "data" / "metadata").exists()
