"""The scrub: it finds whatever the disk has forgotten, and a push heals it."""

import json
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from random import Random

import pytest

from cypd.access import Principal
from cypd.metadata.lmdb import LmdbMetadata
from cypd.oci.digest import Digest
from cypd.registry.ports import BlobMissing
from cypd.registry.scrub import Round, Rounds, Scrub
from cypd.registry.uploads import Body, Uploads
from cypd.storage.filesystem import FilesystemStorage
from cypd.storage.pace import Pace
from tests.attacks.content import new_repository, push_blob
from tests.attacks.watch import eventually
from tests.attacks.wire import ask
from tests.daemon import CYPD, Daemon
from tests.samples import create_projects, name

ADMIN = Principal("admin", "admin", is_admin=True)


class House:
    """A registry on disk with its scrub."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.metadata = LmdbMetadata(root / "metadata", 64 << 20)
        create_projects(self.metadata.projects, "library")
        self.open()

    def open(self) -> None:
        """Open the storage, which then remembers nothing."""
        self.storage = FilesystemStorage(self.root)
        self.uploads = Uploads(self.metadata.registry, self.storage, max_sessions_per_user=10)
        self.rounds = Rounds(self.root / "scrub.json")
        self.scrub = Scrub(self.metadata.registry, self.storage, self.rounds, Pace(0).spend)

    def close(self) -> None:
        """Close the engines."""
        self.storage.close()
        self.metadata.close()

    async def push(self, content: bytes) -> Digest:
        """Push a blob."""

        async def pieces() -> AsyncIterator[bytes]:
            yield content

        digest = Digest.of(content)
        await self.uploads.push(name(), ADMIN, Body(pieces(), len(content)), digest)
        return digest

    def file(self, digest: Digest) -> Path:
        """Return where a blob is."""
        return self.root / "blobs" / digest.algorithm / digest.hex[:2] / digest.hex


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """An empty house."""
    house = House(tmp_path)
    yield house
    house.close()


def flip_a_bit(file: Path, random: Random) -> None:
    """Change one bit of a file."""
    content = bytearray(file.read_bytes())
    content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    replace(file, bytes(content))


def replace(file: Path, content: bytes) -> None:
    """Have other bytes in a file, which stays the same one."""
    file.chmod(0o600)
    file.write_bytes(content)


@pytest.mark.timeout(300)
async def test_every_damage_is_found_and_healed_by_a_push(house: House) -> None:
    """Of 1,000 flipped bits and cuts all are found, in one round; what is right stays."""
    random = Random(3)
    contents = {}
    for _ in range(1100):
        content = random.randbytes(random.choice((1, 40, 4096, 65_536, 65_537, 150_000)))
        contents[await house.push(content)] = content
    digests = list(contents)
    damaged = digests[:1000]
    for number, digest in enumerate(damaged):
        if number % 4:
            flip_a_bit(house.file(digest), random)
        else:
            replace(house.file(digest), contents[digest][:-1])
    house.close()
    house.metadata = LmdbMetadata(house.root / "metadata", 64 << 20)
    house.open()

    round_ = await house.scrub.run()

    assert (round_.blobs, round_.damaged, round_.missing) == (len(digests), len(damaged), 0)
    for digest, content in contents.items():
        assert await house.storage.has(digest, len(content)) == (digest not in damaged)
    assert len(os.listdir(house.root / "damaged")) == len(damaged)
    with pytest.raises(BlobMissing):
        await house.storage.open(damaged[0], len(contents[damaged[0]]))

    for digest in damaged:
        await house.push(contents[digest])
    again = await house.scrub.run()
    assert (again.blobs, again.damaged, again.missing) == (len(digests), 0, 0)


async def test_a_missing_blob_is_told_once_a_round(house: House) -> None:
    """A file that somebody removed counts as missing; one whose link is gone counts for nothing."""
    kept, lost, dropped = [await house.push(it) for it in (b"kept", b"lost", b"dropped")]
    house.file(lost).unlink()
    house.file(dropped).unlink()
    await house.metadata.registry.unlink_blob(name(), dropped)

    round_ = await house.scrub.run()
    assert (round_.blobs, round_.damaged, round_.missing) == (2, 0, 1)
    assert await house.storage.has(kept, 4)


async def test_a_round_that_was_broken_off_is_gone_on_with(house: House) -> None:
    """Wherever it ends, by a restart too, the next one reads the rest, and counts the whole."""
    for number in range(600):
        await house.push(b"%d" % number)
    read = 0

    def break_off(round_: Round) -> None:
        nonlocal read
        read += 1
        if round_.blobs == 217:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        await house.scrub.run(told=break_off)
    assert house.scrub.is_due(interval=1e9)
    round_ = await house.scrub.run(told=break_off)

    assert (round_.blobs, read) == (600, 600)
    assert not house.scrub.is_due(interval=1e9)
    assert house.scrub.is_due(interval=0)


async def test_what_is_pushed_again_meanwhile_is_not_set_aside(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A push that heals a blob while the scrub reads the damaged file keeps its bytes."""
    content = b"-" * 200_000
    digest = await house.push(content)
    flip_a_bit(house.file(digest), Random(1))

    async def heal(_: int) -> None:
        await house.push(content)

    assert await house.storage.verify(digest, len(content), heal) == "good"
    assert house.file(digest).read_bytes() == content


def test_the_daemon_scrubs_when_it_is_due(tmp_path: Path) -> None:
    """Soon after its start, for a registry that was never scrubbed; a damaged blob is 404 then."""
    repository, content = new_repository(), os.urandom(100_000)
    with Daemon(tmp_path, {"CYPD_SCRUB_INTERVAL": "0"}) as daemon:
        digest = push_blob(daemon, repository, content)
    file = daemon.state / "blobs" / digest.algorithm / digest.hex[:2] / digest.hex
    flip_a_bit(file, Random(2))
    del daemon.environment["CYPD_SCRUB_INTERVAL"]
    with daemon:
        target = f"/v2/{repository}/blobs/{digest}"
        assert eventually(lambda: ask(daemon.port, "HEAD", target).status == 404, 20)
        daemon.wait_for("1 damaged, 0 missing")
        push_blob(daemon, repository, content)
        assert ask(daemon.port, "GET", target).body == content


def test_the_command_scrubs_now(tmp_path: Path) -> None:
    """``cypd scrub`` beside the daemon: 0 and counts if all is well, 1 if not."""
    with Daemon(tmp_path) as daemon:
        digest = push_blob(daemon, new_repository(), b"right")
        push_blob(daemon, new_repository(), b"right too")
        daemon.wait_for("scrub: read")
        well = scrub(daemon)
        file = daemon.state / "blobs" / digest.algorithm / digest.hex[:2] / digest.hex
        flip_a_bit(file, Random(2))
        ill = scrub(daemon)

    assert well.returncode == 0
    assert json.loads(well.stdout) == {"blobs": 2, "bytes": 14, "damaged": 0, "missing": 0}
    assert ill.returncode == 1
    assert json.loads(ill.stdout) == {"blobs": 2, "bytes": 14, "damaged": 1, "missing": 0}


def scrub(daemon: Daemon) -> subprocess.CompletedProcess[str]:
    """Scrub a daemon's storage by the command line."""
    return subprocess.run(
        [CYPD, "scrub", "--json"],
        env={"PATH": "/usr/bin:/bin", **daemon.environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
