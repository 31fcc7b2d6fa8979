"""Deletes: what they leave to others, and that switched off means off."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cypd.oci.digest import Digest
from tests.attacks.content import new_repository, open_session, push_blob, push_image
from tests.attacks.watch import complaints, eventually
from tests.attacks.wire import ask
from tests.daemon import Daemon
from tests.samples import EMPTY, image

_CONTENT = b"pushed to two repositories"


@pytest.fixture(scope="module")
def sweeping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that collects unused blobs as soon as it can."""
    settings = {"CYPD_GC_INTERVAL": "0.05", "CYPD_GC_BLOB_GRACE": "0.05"}
    with Daemon(tmp_path_factory.mktemp("sweeping"), settings) as daemon:
        yield daemon
        assert complaints(daemon) == []


@pytest.fixture(scope="module")
def keeping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that deletes nothing."""
    settings = {"CYPD_ACCESS_DELETE": "false"}
    with Daemon(tmp_path_factory.mktemp("keeping"), settings) as daemon:
        yield daemon
        assert complaints(daemon) == []


def test_a_delete_here_is_none_there(sweeping: Daemon) -> None:
    """After a delete in A its blob is 404 there, B keeps it, and a new push to A works."""
    a, b = new_repository(), new_repository()
    digest = push_blob(sweeping, a, _CONTENT)
    assert push_blob(sweeping, b, _CONTENT) == digest
    assert ask(sweeping.port, "DELETE", f"/v2/{a}/blobs/{digest}").status == 202

    assert ask(sweeping.port, "HEAD", f"/v2/{a}/blobs/{digest}").status == 404
    assert ask(sweeping.port, "GET", f"/v2/{b}/blobs/{digest}").body == _CONTENT
    push_blob(sweeping, a, _CONTENT)
    assert ask(sweeping.port, "GET", f"/v2/{a}/blobs/{digest}").body == _CONTENT


def test_a_push_after_the_last_delete_really_stores(sweeping: Daemon) -> None:
    """Gone everywhere and collected, a digest has to come with its bytes again; then it serves."""
    a, b = new_repository(), new_repository()
    digest = push_blob(sweeping, a, b"collected")
    file = sweeping.state / "blobs" / "sha256" / digest.hex[:2] / digest.hex
    assert file.exists()
    assert ask(sweeping.port, "DELETE", f"/v2/{a}/blobs/{digest}").status == 202
    assert eventually(lambda: not file.exists())

    target = f"/v2/{b}/blobs/uploads/?digest={digest}"
    assert ask(sweeping.port, "POST", target, b"").status == 400
    assert ask(sweeping.port, "POST", f"/v2/{b}/blobs/uploads/?mount={digest}", b"").status == 202
    push_blob(sweeping, b, b"collected")
    assert ask(sweeping.port, "GET", f"/v2/{b}/blobs/{digest}").body == b"collected"
    assert ask(sweeping.port, "HEAD", f"/v2/{a}/blobs/{digest}").status == 404


def test_pushes_and_deletes_against_the_sweep(sweeping: Daemon) -> None:
    """However often a blob goes and comes while blobs are collected, 201 means it is there."""
    a = new_repository()
    for round_ in range(60):
        digest = push_blob(sweeping, a, b"again and again")

        assert ask(sweeping.port, "GET", f"/v2/{a}/blobs/{digest}").status == 200, round_
        assert ask(sweeping.port, "DELETE", f"/v2/{a}/blobs/{digest}").status == 202, round_


def test_switched_off_is_off_on_every_route(keeping: Daemon) -> None:
    """Tag, manifest and blob deletes are 405, known or not (CVE-2026-41888), and all stays."""
    repository = new_repository()
    manifest = push_image(keeping, repository, _CONTENT)
    loose = push_blob(keeping, repository, b"listed by nothing")
    unknown = Digest.of(b"unknown")
    for path in (
        "manifests/latest",
        "manifests/absent",
        f"manifests/{Digest.of(manifest)}",
        f"manifests/{unknown}",
        f"blobs/{loose}",
        f"blobs/{Digest.of(_CONTENT)}",
        f"blobs/{unknown}",
    ):
        for target in (f"/v2/{repository}/{path}", f"/v2/absent/{path}", f"/v2/a%2Fb/{path}"):
            assert ask(keeping.port, "DELETE", target).status == 405, target
            assert ask(keeping.port, "DELETE", target, auth=False).status == 401, target

    assert ask(keeping.port, "GET", f"/v2/{repository}/manifests/latest").body == manifest
    assert ask(keeping.port, "GET", f"/v2/{repository}/blobs/{loose}").status == 200


@pytest.mark.parametrize(
    "field", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "_method"]
)
def test_no_header_makes_a_delete(keeping: Daemon, field: str) -> None:
    """A method is what stands in the request line, and nowhere else."""
    repository = new_repository()
    manifest = push_image(keeping, repository, _CONTENT)
    target = f"/v2/{repository}/manifests/latest"

    assert ask(keeping.port, "GET", target, fields=[(field, "DELETE")]).body == manifest
    assert ask(keeping.port, "POST", target, b"", [(field, "DELETE")]).status == 405
    assert ask(keeping.port, "GET", target).body == manifest


def test_cancelling_an_upload_is_no_delete(keeping: Daemon) -> None:
    """Nothing that was stored goes by it, so it stays possible."""
    session = open_session(keeping, new_repository())

    assert ask(keeping.port, "DELETE", session).status == 204


@pytest.fixture
def tidying(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon that soon lets go of what no manifest needs."""
    settings = {
        "CYPD_GC_INTERVAL": "0.2",
        "CYPD_GC_BLOB_GRACE": "0.2",
        "CYPD_GC_LOOSE_GRACE": "4",
    }
    with Daemon(tmp_path, settings) as daemon:
        yield daemon
        assert complaints(daemon) == []


def test_a_deleted_image_gives_its_disk_back(tidying: Daemon) -> None:
    """Without a delete of any blob; what another image lists is served on."""
    repository = new_repository()
    push_image(tidying, repository, b"shared", b"alone", tag="one")
    push_image(tidying, repository, b"shared", tag="two")
    digest = Digest.of(image(b"shared", b"alone"))
    file = tidying.state / "blobs" / "sha256" / Digest.of(b"alone").hex[:2]
    assert ask(tidying.port, "DELETE", f"/v2/{repository}/manifests/{digest}").status == 202

    assert eventually(lambda: not os.listdir(file), 30)
    shared = Digest.of(b"shared")
    assert ask(tidying.port, "GET", f"/v2/{repository}/blobs/{shared}").body == b"shared"


def test_a_push_has_time_between_a_blob_and_its_manifest(tidying: Daemon) -> None:
    """Asked for before a push, a blob that soon goes is not there; pushed again, it stays."""
    repository = new_repository()
    for blob in (EMPTY, b"waiting"):
        push_blob(tidying, repository, blob)
    target = f"/v2/{repository}/blobs/{Digest.of(b'waiting')}"
    assert ask(tidying.port, "HEAD", target).status == 200

    assert eventually(lambda: ask(tidying.port, "HEAD", target).status == 404, 30)
    push_image(tidying, repository, b"waiting")
    assert ask(tidying.port, "HEAD", target).status == 200
