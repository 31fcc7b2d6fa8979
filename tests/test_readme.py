"""The README's commands, run as they stand there."""

import re
import subprocess
from pathlib import Path

import pytest

from cypd.config import load
from tests.daemon import CYPD, Daemon, Supervised, free_port

ROOT = Path(__file__).parent.parent
READMES = [ROOT / "README.md", ROOT / "README.zh-CN.md"]


def commands(readme: Path) -> list[str]:
    """Return the lines of the shell blocks."""
    blocks = re.findall(r"```sh\n(.*?)```", readme.read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def test_both_languages_have_the_same_commands() -> None:
    """What one twin tells to type, the other does."""
    assert commands(READMES[0]) == commands(READMES[1])


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.name)
def test_every_link_leads_somewhere(readme: Path) -> None:
    """Files that the README points at exist."""
    links = re.findall(r"\]\(([^)#:]+)\)", readme.read_text())

    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_make_target_exists() -> None:
    """``make -n`` knows each target the README names, and needs no more than the Makefile."""
    texts = [readme.read_text() for readme in READMES]
    targets = {target for text in texts for target in re.findall(r"(?m)(?:^|`)make (\w+)", text)}

    assert targets == {"serve", "test", "check", "bench"}
    for target in targets:
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr


def test_the_cypd_commands_work(tmp_path: Path) -> None:
    """``config check`` passes on the example, and ``serve`` takes the variables that are shown."""
    lines = [
        line
        for line in commands(READMES[0])
        if ".venv/bin/cypd" in line and ("config" in line or "serve" in line)
    ]
    assert len(lines) == 3
    check, with_file, with_variables = lines
    done = subprocess.run(
        check.replace(".venv/bin/cypd", CYPD),
        shell=True,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "CYPD_STORAGE_ROOT": str(tmp_path / "checked")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")

    daemon = Supervised(tmp_path)
    daemon.command = (*Supervised.command, *with_file.split()[2:])
    daemon.command = tuple(part.replace("config/", f"{ROOT}/config/") for part in daemon.command)
    with daemon:
        assert daemon.request("GET", "/v2/").status == 200

    variables = dict(part.split("=", 1) for part in with_variables.split() if "=" in part)
    config = load(None, variables)
    assert config.access.anonymous == "pull"
    assert config.storage.root == "/srv/registry"


def test_the_commands_for_people_and_projects_work(tmp_path: Path) -> None:
    """Each runs beside a daemon, in the order in which it stands there."""
    lines = [line for line in commands(READMES[0]) if re.search("cypd (user|project) ", line)]
    with Daemon(tmp_path) as daemon:
        assert daemon.request("POST", "/v2/library/app/blobs/uploads/").status == 202
        done = [
            subprocess.run(
                line.replace(".venv/bin/cypd", CYPD),
                shell=True,
                env={"PATH": "/usr/bin:/bin", "CYPD_STORAGE_ROOT": str(daemon.state)},
                input="a password of carol's\n",
                capture_output=True,
                text=True,
                check=False,
            )
            for line in lines
        ]

    assert [(0, "")] * 4 == [(it.returncode, it.stderr) for it in done]
    assert "carol@example.com" in done[1].stdout
    assert "50.0 GiB" in done[3].stdout


def test_the_commands_for_operating_work(tmp_path: Path) -> None:
    """Each tells how the daemon is, or installs what it says, where it says."""
    lines = [
        line for line in commands(READMES[0]) if re.match(r"\S+/cypd (health|status|comp)", line)
    ]
    installed = tmp_path / ".local/share/bash-completion/completions/cypd"
    installed.parent.mkdir(parents=True)
    metrics = {"CYPD_SERVER_METRICS_LISTEN": f"127.0.0.1:{free_port()}"}
    with Daemon(tmp_path, metrics) as daemon:
        done = [
            subprocess.run(
                line.replace(".venv/bin/cypd", CYPD),
                shell=True,
                env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), **daemon.environment},
                capture_output=True,
                text=True,
                check=False,
            )
            for line in lines
        ]

    assert [(0, "")] * 3 == [(it.returncode, it.stderr) for it in done]
    assert done[0].stdout == "ready\n"
    assert "requests " in done[1].stdout
    assert "complete -o" in installed.read_text()


def test_the_password_file_is_where_the_readme_says(tmp_path: Path) -> None:
    """``admin-password`` in the state folder is what ``docker login`` reads in the README."""
    assert any("data/admin-password" in line for line in commands(READMES[0]))
    with Daemon(tmp_path, {"CYPD_AUTH_ADMIN_PASSWORD": ""}) as daemon:
        daemon.password = (daemon.state / "admin-password").read_text().strip()
        assert daemon.request("GET", "/v2/").status == 200


def test_the_guide_to_the_service_names_what_there_is() -> None:
    """Ten commands; what they install exists here, and goes where the units look for it."""
    lines = [line for line in commands(READMES[0]) if line.startswith("sudo ")]
    unit = (ROOT / "systemd" / "cypd.service").read_text()

    assert len(lines) == 10
    files = {
        word for line in lines for word in line.split() if re.match(r"[a-z-]+[/.][a-z.-]+$", word)
    }
    assert {"requirements.lock", "config/cypd.toml", "systemd/cypd.service"} <= files
    assert all(
        (ROOT / file).exists()
        for file in files - {"cypd.service", "cypd.socket", "cypd-metrics.socket"}
    )
    assert "ExecStart=/opt/cypd/bin/cypd serve --config /etc/cypd/cypd.toml\n" in unit
    assert "/opt/cypd" in lines[2]
    assert lines[5].endswith(" /etc/cypd/cypd.toml")
    assert lines[9].endswith(" /var/lib/cypd/admin-password")
    assert "CYPD_STORAGE_ROOT=/var/lib/cypd\n" in unit


def test_the_commands_that_keep_it_safe_work(tmp_path: Path) -> None:
    """Beside a daemon, and the backup is where it is told to be."""
    lines = [it for it in commands(READMES[0]) if " scrub" in it or " backup" in it]
    assert len(lines) == 2
    with Daemon(tmp_path) as daemon:
        for line in lines:
            here = line.replace(".venv/bin/cypd", CYPD)
            done = subprocess.run(
                here.replace("/srv/backup", str(tmp_path / "backup")),
                shell=True,
                env={"PATH": "/usr/bin:/bin", **daemon.environment},
                capture_output=True,
                text=True,
                check=False,
            )
            assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "backup" / "metadata" / "data.mdb").exists()
