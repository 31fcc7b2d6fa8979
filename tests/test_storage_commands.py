"""``cypd storage migrate``, beside a daemon that serves all the while."""

import json
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from random import Random

import pytest

from cypd.oci.digest import Digest
from cypd.oci.media_types import OCI_MANIFEST
from tests.bucket import Bucket
from tests.crash.client import Client
from tests.daemon import CYPD, Daemon
from tests.test_readme import READMES, commands
from tests.weed import Weed

SIZES = (0, 1, 60_000, 100_000, 9_000_000)
MIB = 1 << 20
LARGE = 24 * MIB
Outcome = dict[str, object]


class Registry:
    """A daemon over files, or over a store, that can be told to use the other one."""

    def __init__(self, directory: Path, weed: Weed) -> None:
        self.daemon = Daemon(directory, weed.environment)
        self.blobs: dict[str, bytes] = {}
        self.use("filesystem")

    def use(self, driver: str, moving_from: str = "") -> None:
        """Keep blobs there from the next start on."""
        self.daemon.environment["CYPD_STORAGE_DRIVER"] = driver
        self.daemon.environment["CYPD_STORAGE_MOVING_FROM"] = moving_from

    def restart(self, driver: str, moving_from: str = "") -> None:
        """Start again, with blobs kept there."""
        self.daemon.stop()
        self.use(driver, moving_from)
        self.daemon.start()

    def push(self, *contents: bytes) -> None:
        """Push blobs."""
        with Client(self.daemon, timeout=60) as client:
            for content in contents:
                digest = str(Digest.of(content))
                assert client.push("library/app", digest, content) == 201
                self.blobs[digest] = content

    def push_large_manifest(self) -> None:
        """Push a manifest that the metadata has no room for."""
        [config, *_] = self.blobs
        about = {"mediaType": "application/json", "digest": config, "size": 0}
        document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": about, "layers": []}
        content = json.dumps(document | {"annotations": {"note": "-" * 80_000}}).encode()
        with Client(self.daemon) as client:
            path, kind = "/v2/library/app/manifests/latest", {"Content-Type": OCI_MANIFEST}
            assert client.send("PUT", path, content, kind).status == 201

    def check(self) -> None:
        """Everything can be pulled, to the last byte."""
        with Client(self.daemon, timeout=60) as client:
            for digest, content in self.blobs.items():
                response = client.send("GET", f"/v2/library/app/blobs/{digest}")
                assert (response.status, response.body) == (200, content), digest
            assert client.send("GET", "/v2/library/app/manifests/latest").status == 200

    def command(self, *arguments: str) -> list[str]:
        """Return the command line that migrates."""
        return [CYPD, "storage", "migrate", "--json", *arguments]

    def run(self, line: str) -> str:
        """Run a line of the README, and return what it prints."""
        done = subprocess.run(
            line.replace(".venv/bin/cypd", CYPD),
            shell=True,
            env={"PATH": "/usr/bin:/bin", **self.daemon.environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done
        return done.stdout

    def migrate(self, *arguments: str, status: int = 0) -> Outcome:
        """Migrate, and return what is told of it."""
        done = subprocess.run(
            self.command(*arguments),
            env={"PATH": "/usr/bin:/bin", **self.daemon.environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == status, done
        told: Outcome = json.loads(done.stdout or done.stderr)
        return told


@pytest.fixture
def weed(tmp_path: Path) -> Iterator[Weed]:
    """An empty store."""
    with Weed(tmp_path) as weed:
        yield weed


@pytest.fixture
def registry(tmp_path: Path, weed: Weed) -> Iterator[Registry]:
    """A registry of files, with something in it."""
    registry = Registry(tmp_path, weed)
    with registry.daemon:
        registry.push(*(Random(size).randbytes(size) for size in SIZES))
        registry.push_large_manifest()
        yield registry


@pytest.mark.waits
@pytest.mark.timeout(600)
def test_blobs_move_in_and_out_while_the_daemon_serves(registry: Registry, weed: Weed) -> None:
    """By the steps of the README: whatever is there can be pulled at any time."""
    held = len(SIZES) + 1
    for target, source in (("s3", "filesystem"), ("filesystem", "s3")):
        with pulled_all_the_while(registry):
            assert registry.migrate("--to", target)["copied"] == held
            registry.push(b"pushed before the switch to " + target.encode())
        registry.restart(target, moving_from=source)
        with pulled_all_the_while(registry):
            registry.push(b"pushed after the switch to " + target.encode())
            told = registry.migrate("--to", target)
            assert (told["copied"], told["present"], told["failed"]) == (1, held + 1, {})
            refused = registry.migrate("--to", target, "--remove-source", status=78)
            assert f"{source} is still in use" in str(refused)
            registry.use(target)  # the file says so, the daemon does not know it yet
            refused = registry.migrate("--to", target, "--remove-source", status=1)
            assert "a daemon that runs uses the storage" in str(refused)
        registry.restart(target)
        with pulled_all_the_while(registry):
            told = registry.migrate("--to", target, "--verify", "--remove-source")
        held += 2
        assert (told["present"], told["copied"]) == (held, 0)
        assert told["removed"] == held - 1  # all but what was pushed after the switch
        registry.check()
        assert not (blobs_of(registry) if source == "filesystem" else Bucket(weed).blobs())
        assert not Bucket(weed).unfinished()


@pytest.mark.waits
@pytest.mark.timeout(600)
@pytest.mark.parametrize("target", ["s3", "filesystem"])
def test_a_run_that_is_killed_is_gone_on_with(registry: Registry, target: str) -> None:
    """Killed at any moment, in the middle of a blob too, the next run does the rest alone."""
    registry.push(Random(1).randbytes(LARGE), Random(2).randbytes(LARGE))
    if target == "filesystem":
        registry.migrate("--to", "s3")
        registry.restart("s3")
        registry.migrate("--to", "s3", "--remove-source")
    arguments = ("--to", target, "--jobs", "1", "--limit-rate", "16MiB")
    command, environment = registry.command(*arguments), registry.daemon.environment
    folder = registry.daemon.state / ("s3/uploads" if target == "s3" else "uploads")
    kept = [4 * MIB, 8 * MIB, 12 * MIB]
    for size in kept:
        with subprocess.Popen(command, env={"PATH": "/usr/bin:/bin", **environment}) as killed:
            until = time.monotonic() + 120
            while bytes_on_their_way(folder) < size:
                assert time.monotonic() < until, "nothing moves"
                time.sleep(0.02)
            killed.kill()
    last = registry.migrate("--to", target)
    registry.restart(target)
    registry.check()

    assert isinstance(last["copied_bytes"], int)
    least = kept[-1] - MIB  # the manifest is none of `blobs`
    assert last["copied_bytes"] <= sum(map(len, registry.blobs.values())) - least
    assert registry.migrate("--to", target)["copied"] == 0


@pytest.mark.timeout(300)
def test_the_steps_of_the_readme(registry: Registry) -> None:
    """As they stand there they move everything, and leave nothing in the old storage."""
    copy, empty = [line for line in commands(READMES[0]) if "storage migrate" in line]
    registry.restart("s3", moving_from="filesystem")
    assert f"{len(SIZES) + 1} blobs were copied" in registry.run(copy)
    registry.restart("s3")
    told = registry.run(empty)
    registry.check()

    assert f"{len(SIZES) + 1} were there already" in told
    assert f"{len(SIZES) + 1} blobs were removed from the source" in told
    assert not blobs_of(registry)


@pytest.mark.timeout(300)
def test_an_upload_that_began_before_the_switch_ends_after_it(registry: Registry) -> None:
    """It ends where it began, the source is kept until it has, and then it is copied as well."""
    content = Random(3).randbytes(300_000)
    digest = str(Digest.of(content))
    with Client(registry.daemon) as client:
        location = client.open_session("library/app")
        assert client.send("PATCH", location, content[:100_000]).status == 202
    registry.migrate("--to", "s3")
    registry.restart("s3", moving_from="filesystem")
    registry.daemon.stop()
    registry.use("s3")
    kept = registry.migrate("--to", "s3", "--remove-source", status=1)
    registry.use("s3", moving_from="filesystem")
    registry.daemon.start()
    with Client(registry.daemon) as client:
        assert client.send("PATCH", location, content[100_000:200_000]).status == 202
        path = f"{location}?digest={digest}"
        assert client.send("PUT", path, content[200_000:]).status == 201
    registry.blobs[digest] = content
    done = registry.migrate("--to", "s3")
    registry.restart("s3")
    registry.check()

    assert (kept["open_uploads"], kept["removed"]) == (1, None)
    assert (done["open_uploads"], done["copied"]) == (0, 1)


@pytest.mark.timeout(300)
def test_two_runs_at_once_are_one_too_many(registry: Registry) -> None:
    """The second says so, and does nothing."""
    registry.push(Random(1).randbytes(LARGE))
    arguments, environment = ("--to", "s3", "--limit-rate", "1MiB"), registry.daemon.environment
    command = registry.command(*arguments)
    with subprocess.Popen(command, env={"PATH": "/usr/bin:/bin", **environment}) as first:
        deadline = time.monotonic() + 60
        while not (registry.daemon.state / "migrate.lock").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.5)
        second = registry.migrate("--to", "s3", status=1)
        first.kill()

    assert second == {"error": "another one migrates at this moment"}


@pytest.mark.timeout(300)
def test_moving_out_fills_no_cache(registry: Registry) -> None:
    """What is read for the copy alone does not take the place of what is pulled."""
    registry.migrate("--to", "s3")
    registry.daemon.environment["CYPD_S3_CACHE_SIZE"] = str(64 * MIB)
    registry.restart("s3")
    registry.migrate("--to", "s3", "--remove-source", "--verify")
    told = registry.migrate("--to", "filesystem")

    assert told["copied"] == len(SIZES) + 1
    cached = [it for it in (registry.daemon.state / "s3").rglob("*") if it.is_file()]
    assert max(it.stat().st_size for it in cached) < SIZES[3]


@pytest.mark.timeout(300)
def test_a_damaged_blob_is_named(registry: Registry) -> None:
    """The command fails, says which, and copies all others."""
    digest = next(it for it, content in registry.blobs.items() if len(content) == SIZES[-1])
    hex_part = digest.partition(":")[2]
    file = registry.daemon.state / "blobs" / "sha256" / hex_part[:2] / hex_part
    file.chmod(0o600)
    with file.open("r+b") as opened:
        opened.write(b"rotten")
    told = registry.migrate("--to", "s3", status=1)

    assert told["failed"] == {digest: "damaged"}
    assert told["copied"] == len(SIZES)


@contextmanager
def pulled_all_the_while(registry: Registry) -> Iterator[None]:
    """Pull everything there is now again and again; every answer has to be right."""
    over = threading.Event()
    wrong: list[object] = []
    blobs: Mapping[str, bytes] = dict(registry.blobs)
    rounds = 0

    def pull() -> None:
        nonlocal rounds
        with Client(registry.daemon, timeout=60) as client:
            while not over.is_set():
                for digest, content in blobs.items():
                    response = client.send("GET", f"/v2/library/app/blobs/{digest}")
                    if (response.status, response.body) != (200, content):
                        wrong.append((digest, response.status))
                rounds += 1

    def pull_or_tell() -> None:
        try:
            pull()
        except (OSError, HTTPException) as error:
            wrong.append(("", repr(error)))

    puller = threading.Thread(target=pull_or_tell)
    puller.start()
    try:
        yield
    finally:
        over.set()
        puller.join()
    assert not wrong
    assert rounds


def bytes_on_their_way(folder: Path) -> int:
    """Return how much of the blob that is being copied has been written."""
    sizes = [0]
    for file in folder.glob("moving-*"):
        with suppress(FileNotFoundError):  # it has become a blob meanwhile
            sizes.append(file.stat().st_size)
    return max(sizes)


def blobs_of(registry: Registry) -> list[Path]:
    """Return the files of blobs."""
    return [it for it in (registry.daemon.state / "blobs").rglob("*") if it.is_file()]
