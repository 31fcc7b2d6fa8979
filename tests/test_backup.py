"""``cypd backup``: a copy that can take the registry's place, made while it serves."""

import json
import os
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cypd.oci.digest import Digest
from tests.attacks.content import new_repository, push_blob, push_image
from tests.attacks.wire import ask
from tests.daemon import CYPD, Daemon
from tests.samples import image
from tests.weed import Weed

LARGE = os.urandom(3 << 20)

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon."""
    with Daemon(tmp_path / "first") as daemon:
        yield daemon


def backup(daemon: Daemon, folder: Path, *arguments: str, status: int = 0) -> dict[str, object]:
    """Make a backup; return what is told of it."""
    done = subprocess.run(
        [CYPD, "backup", str(folder), "--json", *arguments],
        env={"PATH": "/usr/bin:/bin", **daemon.environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == status, done
    told: dict[str, object] = json.loads(done.stdout) if done.stdout else {"error": done.stderr}
    return told


def restored(tmp_path: Path, folder: Path) -> Daemon:
    """Return a daemon that serves a backup, with the password of the registry it is of."""
    daemon = Daemon(tmp_path / "second", {"CYPD_STORAGE_ROOT": str(folder)})
    del daemon.environment["CYPD_AUTH_ADMIN_PASSWORD"]
    return daemon


def test_a_backup_takes_the_registrys_place(daemon: Daemon, tmp_path: Path) -> None:
    """Images, tags and accounts are there as they were; what came later is not."""
    repository, folder = new_repository(), tmp_path / "backup"
    manifest = push_image(daemon, repository, b"layer", LARGE)
    told = backup(daemon, folder)
    push_image(daemon, repository, b"later", tag="later")

    assert told["blobs"] == told["copied"] == 3
    assert told["failed"] == {}
    with restored(tmp_path, folder) as copy:
        paths = (f"/v2/{repository}/manifests/latest", f"/v2/{repository}/manifests/later")
        assert [ask(copy.port, "GET", path).status for path in paths] == [200, 404]
        assert ask(copy.port, "GET", paths[0]).body == manifest
        layer = f"/v2/{repository}/blobs/{Digest.of(LARGE)}"
        assert ask(copy.port, "GET", layer).body == LARGE
        push_image(copy, repository, b"goes on", tag="new")


def test_the_next_one_copies_what_is_new(daemon: Daemon, tmp_path: Path) -> None:
    """What is there already is not copied again, and what is held no longer goes."""
    repository, folder = new_repository(), tmp_path / "backup"
    push_image(daemon, repository, b"old", tag="old")
    backup(daemon, folder)
    push_image(daemon, repository, b"new", tag="new")
    for path in (f"manifests/{Digest.of(image(b'old'))}", f"blobs/{Digest.of(b'old')}"):
        assert ask(daemon.port, "DELETE", f"/v2/{repository}/{path}").status == 202
    told = backup(daemon, folder)

    assert (told["blobs"], told["copied"]) == (2, 1)
    files = {it.name for it in (folder / "blobs").rglob("*") if it.is_file()}
    assert files == {Digest.of(b"{}").hex, Digest.of(b"new").hex}


def test_a_backup_beside_pushes_is_whole(daemon: Daemon, tmp_path: Path) -> None:
    """Whatever tag is in it, all of its image is."""
    repository, folder = new_repository(), tmp_path / "backup"
    enough = threading.Event()

    def push() -> None:
        number = 0
        while not enough.is_set():
            push_image(daemon, repository, b"%d" % number * 50_000, tag=f"t{number}")
            number += 1

    pushing = threading.Thread(target=push)
    pushing.start()
    try:
        for _ in range(5):
            assert backup(daemon, folder)["failed"] == {}
    finally:
        enough.set()
        pushing.join()

    with restored(tmp_path, folder) as copy:
        tags = json.loads(ask(copy.port, "GET", f"/v2/{repository}/tags/list").body)["tags"]
        assert tags
        for tag in tags:
            manifest = json.loads(ask(copy.port, "GET", f"/v2/{repository}/manifests/{tag}").body)
            for blob in (manifest["config"], *manifest["layers"]):
                found = ask(copy.port, "GET", f"/v2/{repository}/blobs/{blob['digest']}")
                assert Digest.of(found.body) == blob["digest"]


def test_nobody_else_can_read_it(daemon: Daemon, tmp_path: Path) -> None:
    """A backup has what the registry has, its secrets too."""
    push_blob(daemon, new_repository(), b"secret")
    folder = tmp_path / "backup"
    backup(daemon, folder)
    found = [it for it in (folder, *folder.rglob("*")) if it.stat().st_mode & 0o007]

    assert found == []
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert (folder / "token-key").read_text() == (daemon.state / "token-key").read_text()


def test_what_is_damaged_is_named(daemon: Daemon, tmp_path: Path) -> None:
    """1 and the digest; all the rest is in the backup, and a push completes the next one."""
    repository, folder = new_repository(), tmp_path / "backup"
    digest = push_blob(daemon, repository, LARGE)
    file = daemon.state / "blobs" / digest.algorithm / digest.hex[:2] / digest.hex
    file.chmod(0o600)
    file.write_bytes(LARGE[:-1] + bytes([LARGE[-1] ^ 1]))
    push_image(daemon, repository, b"right")

    assert backup(daemon, folder, status=1)["failed"] == {digest: "damaged"}
    push_blob(daemon, repository, LARGE)
    told = backup(daemon, folder, "--verify")
    assert (told["failed"], told["copied"]) == ({}, 1)


def test_a_folder_with_something_else_is_left_alone(daemon: Daemon, tmp_path: Path) -> None:
    """So are the registry's own, and folders within each other."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").touch()
    for folder in (other, daemon.state, daemon.state / "blobs", daemon.state.parent):
        before = sorted(os.listdir(folder))
        assert "error" in backup(daemon, folder, status=78)
        assert sorted(os.listdir(folder)) == before


def test_a_backup_of_a_registry_in_s3(tmp_path: Path) -> None:
    """Its blobs come from the store, and the backup can be served without one."""
    repository, folder = new_repository(), tmp_path / "backup"
    with Weed(tmp_path / "store") as weed, Daemon(tmp_path / "first", weed.environment) as daemon:
        daemon.environment["CYPD_STORAGE_DRIVER"] = "s3"
        daemon.stop()
        daemon.start()
        manifest = push_image(daemon, repository, LARGE)
        assert backup(daemon, folder)["copied"] == 2

    with restored(tmp_path, folder) as copy:
        assert ask(copy.port, "GET", f"/v2/{repository}/manifests/latest").body == manifest
        layer = f"/v2/{repository}/blobs/{Digest.of(LARGE)}"
        assert ask(copy.port, "GET", layer).body == LARGE
