"""The container image: built as a user builds it, and run as one should."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from cypd.oci.digest import Digest
from tests.attacks.watch import eventually
from tests.crash.client import Client
from tests.daemon import Daemon, free_port
from tests.samples import EMPTY

ROOT = Path(__file__).parent.parent.parent
BLOB_PATH = f"/v2/library/app/blobs/{Digest.of(EMPTY)}"
# A base image can't be pulled everywhere, but Debian can be installed into a folder.
BASE = ("--variant=minbase", "--include=python3,python3-venv,ca-certificates", "bookworm")
BASE_PYTHON = "3.11"
NEEDLESS = (
    "var/cache/apt",
    "var/lib/apt/lists",
    "usr/share/doc",
    "usr/share/locale",
    "usr/share/man",
)
IMAGE = "localhost/cypd"

pytestmark = pytest.mark.timeout(900)


class Podman:
    """``podman`` with a store of its own."""

    def __init__(self, directory: Path) -> None:
        self.command = (
            _require("podman"),
            f"--root={directory}/store",
            f"--runroot={directory}/run",
            "--storage-driver=vfs",
            "--cgroup-manager=cgroupfs",
        )

    def __call__(self, *arguments: str) -> str:
        """Run a command and return what it prints."""
        return run((*self.command, *arguments))


class Container(Daemon):
    """The daemon in a container with a read-only root and one volume, seen from its host."""

    def __init__(self, podman: Podman, directory: Path) -> None:
        super().__init__(directory)
        self.state.mkdir()
        os.chown(self.state, 10000, 10000)
        self.environment["CYPD_SERVER_METRICS_LISTEN"] = f"127.0.0.1:{free_port()}"
        variables = (
            *("CYPD_SERVER_LISTEN", "CYPD_SERVER_METRICS_LISTEN"),
            "CYPD_AUTH_ADMIN_PASSWORD",
        )
        self.command = (
            *(*podman.command, "run", "--rm", "--read-only", "--read-only-tmpfs=false"),
            *("--cap-drop=ALL", "--security-opt=no-new-privileges", "--network=host"),
            # What asks for the health is the test; podman would have systemd do it.
            *("--health-interval=disable", "--name=cypd"),
            *("--ulimit=nofile=1024:1024", "--ulimit=nproc=256:256"),
            *(f"--env={name}={self.environment[name]}" for name in variables),
            *(f"--volume={self.state}:/var/lib/cypd", IMAGE),
        )

    def start(self, deadline: float = 120) -> None:
        """Wait longer: the store copies the whole image before."""
        super().start(deadline)


def run(command: Sequence[str]) -> str:
    """Run a command and return what it prints."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


def _orphans(podman: Podman) -> list[str]:
    """Return the processes of the container that are neither its first one nor its workers."""
    processes = podman("top", "cypd", "pid", "ppid", "comm").splitlines()[1:]
    return [it for it in processes if "cypd" not in it and "python" not in it]


def _require(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed")
    return path


@pytest.fixture(scope="module")
def podman(pytestconfig: pytest.Config) -> Iterator[Podman]:
    """A store with the image in it."""
    if os.geteuid() != 0:
        pytest.skip("installing a base system takes root")
    # podman takes no runroot of more than 50 characters, which pytest's folders may have.
    with tempfile.TemporaryDirectory(prefix="cypd-") as place:
        directory = Path(place)
        podman = Podman(directory)
        podman("import", str(_base(pytestconfig.cache, directory)), "localhost/base")
        try:
            _build(podman, directory / "wheels")
            yield podman
        finally:
            podman("rm", "--all", "--force")
            podman("rmi", "--all", "--force")


def _base(cache: pytest.Cache | None, directory: Path) -> Path:
    """Return an archive of a small Debian; the next run of the tests finds it again."""
    archive = (cache.mkdir("debian") if cache else directory) / "bookworm.tar"
    if not archive.exists():
        root, unfinished = directory / "root", archive.with_suffix(".unfinished")
        run((_require("debootstrap"), *BASE[:-1], BASE[-1], str(root)))
        needless = [f"--exclude=./{path}" for path in NEEDLESS]
        run(("tar", "-C", str(root), *needless, "-cf", str(unfinished), "."))
        shutil.rmtree(root)
        unfinished.rename(archive)
    return archive


def _build(podman: Podman, wheels: Path) -> None:
    """Build from locked wheels in a folder: pip asks no index, and checks their hashes as ever."""
    run(
        (
            *(sys.executable, "-m", "pip", "download", "--quiet", "--require-hashes", "--no-deps"),
            *("--only-binary=:all:", f"--python-version={BASE_PYTHON}"),
            *("-r", "requirements.lock", "--dest", str(wheels)),
        )
    )
    podman(
        # Without layers in between, each of which would be a copy of all that is below it.
        *("build", "--format=docker", "--layers=false", "--isolation=chroot", "--network=host"),
        *("--build-arg=BASE=localhost/base", "--build-arg=PIP_NO_INDEX=1"),
        *("--build-arg=PIP_FIND_LINKS=/wheels", f"--volume={wheels}:/wheels:ro"),
        *(f"--tag={IMAGE}", "."),
    )


def test_the_image_says_how_it_is_run(podman: Podman) -> None:
    """Not as root, ended by SIGTERM, with a health check that needs no other program."""
    [image] = json.loads(podman("image", "inspect", IMAGE))
    config = image["Config"]

    assert config["User"] == "10000:10000"
    assert config["StopSignal"] == "SIGTERM"
    assert config["Volumes"] == {"/var/lib/cypd": {}}
    assert set(config["ExposedPorts"]) == {"5000/tcp", "5001/tcp", "5443/tcp"}
    assert image["Healthcheck"]["Test"] == ["CMD", "/opt/cypd/bin/cypd", "health"]


def test_the_image_runs_with_a_read_only_root(podman: Podman, tmp_path: Path) -> None:
    """Nor has it capabilities, or any other folder to write to. It serves, tells its health and
    stops; the next container goes on with its volume.
    """
    container = Container(podman, tmp_path)
    with container, Client(container) as client:
        assert client.push("library/app", Digest.of(EMPTY), EMPTY) == 201
        podman("healthcheck", "run", "cypd")
        assert podman("exec", "cypd", "cypd", "health") == "ready\n"
        assert "requests " in podman("exec", "cypd", "cypd", "status", "--once")
        assert podman("exec", "cypd", "id", "-u") == "10000\n"
        podman("exec", "cypd", "sh", "-c", "sleep 1 &")  # left to the first process
        assert eventually(lambda: not _orphans(podman), 30)
    with container, Client(container) as client:
        assert client.send("GET", BLOB_PATH).body == EMPTY
    assert "Traceback" not in container.log.read_text()
