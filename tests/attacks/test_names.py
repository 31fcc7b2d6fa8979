"""Repository names that look like the paths of the API or of the storage."""

import json
from urllib.parse import quote

import pytest

from cypd.oci.digest import Digest
from tests.attacks.content import open_session, push_blob, push_image
from tests.attacks.wire import ask
from tests.daemon import Daemon

_VALID = [
    "aa/uploads/x",
    "aa/blobs/sha256",
    "aa/blobs/uploads",
    "aa/blobs",
    "uploads",
    "blobs/uploads",
    "blobs/sha256/00",
    "manifests",
    "manifests/tags",
    "aa/manifests/latest",
    "tags/list",
    "aa/tags/list",
    "aa/referrers",
    "v2",
    "v2/a",
    "metadata/data.mdb",
    "admin-password",
    "00",
]
_INVALID = [
    "_uploads",
    "_catalog",
    "a/_manifests",
    "a/_layers/sha256",
    ".",
    "..",
    ".probe",
    "a/../b",
    "a//b",
    "/a",
    "a/",
    "A",
    "a.",
    "a..b",
    "a/.git",
    "a___b",
    "-a",
    "sha256:a",
    "a b",
    "\u0430dmin",  # a Cyrillic letter
    "a\n",
    "a\0b",
    "a" * 256,
]


def _escaped(name: str) -> str:
    return quote(name, safe="/:")


def test_names_like_paths_are_names_like_any(daemon: Daemon) -> None:
    """Each holds its own image, session and tags; none sees or replaces another's."""
    manifests = {name: push_image(daemon, name, f"the layer of {name}".encode()) for name in _VALID}
    for name, manifest in manifests.items():
        layer = f"the layer of {name}".encode()
        pulled = ask(daemon.port, "GET", f"/v2/{name}/manifests/latest")
        blob = ask(daemon.port, "GET", f"/v2/{name}/blobs/{Digest.of(layer)}")
        tags = ask(daemon.port, "GET", f"/v2/{name}/tags/list")
        session = open_session(daemon, name)

        assert pulled.body == manifest
        assert blob.body == layer
        assert json.loads(tags.body) == {"name": name, "tags": ["latest"]}
        assert session.startswith(f"/v2/{name}/blobs/uploads/")
        assert ask(daemon.port, "DELETE", session).status == 204
        for other in _VALID:
            if other != name:
                path = f"/v2/{other}/blobs/{Digest.of(layer)}"
                assert ask(daemon.port, "GET", path).status == 404


@pytest.mark.parametrize("name", _INVALID, ids=ascii)
def test_no_name_is_no_repository(daemon: Daemon, name: str) -> None:
    """What the grammar refuses is 400, or no path at all; nothing is made of it."""
    layer = Digest.of(b"x")
    escaped = _escaped(name)
    for method, target, body in [
        ("GET", f"/v2/{escaped}/manifests/latest", None),
        ("PUT", f"/v2/{escaped}/manifests/latest", b"{}"),
        ("GET", f"/v2/{escaped}/tags/list", None),
        ("GET", f"/v2/{escaped}/referrers/{layer}", None),
        ("GET", f"/v2/{escaped}/blobs/{layer}", None),
        ("POST", f"/v2/{escaped}/blobs/uploads/", b""),
        ("POST", f"/v2/{escaped}/blobs/uploads/?digest={layer}", b"x"),
        ("POST", f"/v2/{escaped}/blobs/uploads/?mount={layer}&from=a", b""),
    ]:
        assert ask(daemon.port, method, target, body).status == 400, target


def test_a_name_does_not_reach_into_another(daemon: Daemon) -> None:
    """The blob of ``a`` is not that of ``a/blobs``, nor is a session."""
    digest = push_blob(daemon, "reach", b"reached")
    session = open_session(daemon, "reach").rpartition("/")[2]
    for name in ("reach/blobs", "reach/blobs/uploads", "reach/manifests"):
        assert ask(daemon.port, "GET", f"/v2/{name}/blobs/{digest}").status == 404
        assert ask(daemon.port, "GET", f"/v2/{name}/blobs/uploads/{session}").status == 404
