"""Valid content to attack with and around."""

import secrets

from cypd.oci.digest import Digest
from tests.attacks.wire import ask
from tests.daemon import Daemon
from tests.samples import EMPTY, image


def new_repository() -> str:
    """Return a name nothing was pushed to."""
    return f"attacks/{secrets.token_hex(6)}"


def push_blob(daemon: Daemon, repository: str, content: bytes) -> Digest:
    """Push a blob."""
    digest = Digest.of(content)
    target = f"/v2/{repository}/blobs/uploads/?digest={digest}"

    assert ask(daemon.port, "POST", target, content).status == 201
    return digest


def push_image(daemon: Daemon, repository: str, *layers: bytes, tag: str = "latest") -> bytes:
    """Push an image and return its manifest."""
    for blob in (EMPTY, *layers):
        push_blob(daemon, repository, blob)
    manifest = image(*layers)

    assert ask(daemon.port, "PUT", f"/v2/{repository}/manifests/{tag}", manifest).status == 201
    return manifest


def open_session(daemon: Daemon, repository: str) -> str:
    """Open an upload session and return its path."""
    answer = ask(daemon.port, "POST", f"/v2/{repository}/blobs/uploads/", b"")

    assert answer.status == 202
    return answer.headers["location"]
