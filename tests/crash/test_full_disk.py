"""A disk that is really full: small, mounted for the test, and pushed to until nothing fits."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from cypd.oci.digest import Digest
from tests.attacks.watch import eventually
from tests.crash import oracle
from tests.crash.client import Client
from tests.daemon import Daemon

SIZE = 32 << 20
SMALLEST = 4096
SWEEPS = {
    "CYPD_GC_INTERVAL": "0.2",
    "CYPD_GC_BLOB_GRACE": "0.2",
    "CYPD_STORAGE_MIN_FREE": "0",  # what is refused in time is never full
}


@pytest.fixture(params=["tmpfs", "ext4"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of which a few MiB are free."""
    place = tmp_path / "disk"
    place.mkdir()
    if request.param == "tmpfs":
        _require("mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", str(place))
    else:
        image = tmp_path / "image"
        with image.open("wb") as file:
            file.truncate(SIZE)
        _require("mkfs.ext4", "-q", "-m", "0", str(image))
        _require("mount", "-o", "loop", str(image), str(place))
    yield place
    subprocess.run(["umount", str(place)], check=True)


def _require(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"{command[0]} is not possible here: {error}")


def test_a_full_disk_refuses_pushes_and_nothing_else(disk: Path, tmp_path: Path) -> None:
    """On a full disk no push is a false 201, pulls, deletes and restarts go on, and room heals."""
    with Daemon(tmp_path, SWEEPS | {"CYPD_STORAGE_ROOT": str(disk)}) as daemon:
        with Client(daemon) as client:
            kept = _fill(client)
            _check(client, kept)
        daemon.kill()
        daemon.start()  # still full
        with Client(daemon) as client:
            _check(client, kept)
            deleted, kept = kept[: len(kept) // 2], kept[len(kept) // 2 :]
            for digest in deleted:
                assert client.send("DELETE", _path(digest)).status == 202
            last = Random(2).randbytes(2 << 20)
            _push_until_it_fits(client, last)
            _check(client, kept)
            for digest in deleted:
                assert client.send("GET", _path(digest)).status == 404
        daemon.stop()
        oracle.check_metadata(disk, [*kept, *deleted, str(Digest.of(last))])


def _fill(client: Client) -> list[str]:
    """Push until not even the smallest blob fits; return what was acknowledged."""
    random = Random(1)
    kept = []
    size = 2 << 20
    while size >= SMALLEST:
        content = random.randbytes(size)
        digest = str(Digest.of(content))
        status = client.push("library/app", digest, content)
        assert status in (201, 503)
        if status == 201:
            kept.append(digest)
        else:
            assert client.send("GET", _path(digest)).status == 404
            size //= 2
    assert len(kept) > 8
    return kept


def _check(client: Client, kept: list[str]) -> None:
    for digest in kept:
        assert Digest.of(client.send("GET", _path(digest)).body) == digest


def _push_until_it_fits(client: Client, content: bytes) -> None:
    digest = str(Digest.of(content))
    assert eventually(lambda: client.push("library/app", digest, content) == 201, 30)
    assert client.send("GET", _path(digest)).body == content


def _path(digest: str) -> str:
    return f"/v2/library/app/blobs/{digest}"
