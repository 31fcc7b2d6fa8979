"""Clients that speak TLS to the daemon, and one of them HTTP/2."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.attacks.watch import most_memory
from tests.authority import Authority
from tests.clients.client import Client
from tests.clients.conftest import CLIENTS
from tests.clients.images import MIB, TAG, Layout
from tests.clients.test_clients import config_of, digest_at
from tests.daemon import Daemon, free_port

NewClient = Callable[[str], Client]


class ByTls(Daemon):
    """The daemon with a listener for TLS as well."""

    def __init__(self, directory: Path) -> None:
        self.authority = Authority(directory / "tls")
        self.tls_host = f"127.0.0.1:{free_port()}"
        super().__init__(directory, self.authority.settings(self.tls_host))


@pytest.fixture
def registry(scratch: Path) -> Iterator[ByTls]:
    """A registry with a certificate of an authority that clients have to be told of."""
    (scratch / "registry").mkdir()
    with ByTls(scratch / "registry") as daemon:
        yield daemon


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", CLIENTS)
def test_push_and_pull(registry: ByTls, new_client: NewClient, scratch: Path, name: str) -> None:
    """With the authority's certificate every client pushes and pulls as it does without TLS, and
    skopeo a layer of 256 MiB.
    """
    layout = Layout(scratch / "image")
    size = 256 * MIB if name == "skopeo" else MIB
    layout.image([layout.layer({"hello": b"hello"}), layout.large_layer(size)])
    reference = f"{registry.tls_host}/team/app:{TAG}"
    source, target = new_client(name), new_client(name)
    for client in (source, target):
        client.trust(registry.tls_host, registry.authority.root)
        client.login(registry.tls_host)
    source.load(layout, reference)

    pushed = source.push(reference)
    pulled = target.pull(reference)

    assert pushed == digest_at(registry, "team/app") == pulled.digest
    assert config_of(layout) == pulled.config


@pytest.mark.timeout(120)
def test_a_large_blob_by_http_2(registry: ByTls, scratch: Path) -> None:
    """curl pushes and pulls 256 MiB by HTTP/2, and the daemon's memory does not grow with it."""
    content, pulled = scratch / "content", scratch / "pulled"
    content.touch()
    os.truncate(content, 256 * MIB)  # without a block on disk: what costs is the way
    digest = sha256(content)
    begun = registry.request("POST", "/v2/team/app/blobs/uploads/")
    upload = f"{begun.headers['Location']}?digest={digest}"
    before = most_memory(registry)

    assert curl(registry, upload, "--upload-file", str(content)) == "2 201"
    assert curl(registry, f"/v2/team/app/blobs/{digest}", "--output", str(pulled)) == "2 200"
    assert sha256(pulled) == digest
    assert most_memory(registry) - before < 32 * MIB


def sha256(file: Path) -> str:
    """Return a file's digest."""
    with file.open("rb") as content:
        return f"sha256:{hashlib.file_digest(content, 'sha256').hexdigest()}"


def curl(registry: ByTls, path: str, *arguments: str) -> str:
    """Run curl to its end; return the version of HTTP and the status."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed (Debian package curl)")
    trusting = ("--cacert", str(registry.authority.root))
    user = ("--user", f"{registry.user}:{registry.password}")
    told = ("--silent", "--show-error", "--write-out", "%{http_version} %{http_code}")
    url = f"https://{registry.tls_host}{path}"
    done = subprocess.run(
        ["curl", "--http2", *trusting, *user, *told, *arguments, url],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
