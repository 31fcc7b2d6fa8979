"""The promise to users: the clients they have work, and digests are the same on both ends."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clients.client import Client, ClientError
from tests.clients.conftest import CLIENTS
from tests.clients.images import ARCHITECTURE, INDEX, MANIFEST, MIB, TAG, Layout
from tests.daemon import Daemon

NewClient = Callable[[str], Client]

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
ACCEPT = {"Accept": ", ".join((MANIFEST, INDEX, DOCKER_MANIFEST))}
# Every client words a 401 in its own way.
REFUSED = (
    "(?i)401|403|unauthorized|authentication required|no basic auth|invalid username/password"
    "|denied|forbidden|insufficient"
)

every_client = pytest.mark.parametrize("name", CLIENTS)


@pytest.fixture
def image(scratch: Path) -> Layout:
    """An image of four layers, one of them empty and one not compressed."""
    layout = Layout(scratch / "image")
    layers = [
        layout.layer({"hello": b"#!/bin/sh\necho hello\n"}),
        layout.layer({}),
        layout.layer({"etc/motd": b"plain\n"}, compress=False),
        layout.layer({f"usr/share/{n}": bytes([n]) * 5000 for n in range(100)}),
    ]
    layout.image(layers)
    return layout


@pytest.fixture
def index(scratch: Path) -> Layout:
    """An index of two platforms that share a layer."""
    layout = Layout(scratch / "index")
    shared = layout.layer({"shared": b"by both"})
    architectures = (ARCHITECTURE, "riscv64")
    layout.index({a: layout.image([shared, layout.layer({a: b"own"})], a) for a in architectures})
    return layout


@pytest.mark.timeout(120)
@pytest.mark.parametrize("puller", CLIENTS)
@pytest.mark.parametrize("pusher", CLIENTS)
def test_what_one_client_pushes_another_pulls(
    registry: Daemon, new_client: NewClient, image: Layout, pusher: str, puller: str
) -> None:
    """An image pushed by any client is pulled by any other under the same two digests."""
    name = f"{registry.host}/team/app:{TAG}"
    source, target = (
        logged_in(new_client(pusher), registry),
        logged_in(new_client(puller), registry),
    )
    source.load(image, name)

    pushed = source.push(name)
    pulled = target.pull(name)

    assert pushed == digest_at(registry, "team/app") == pulled.digest
    assert config_of(image) == pulled.config


@pytest.mark.timeout(120)
@pytest.mark.parametrize("puller", CLIENTS)
@pytest.mark.parametrize("pusher", ["skopeo", "ctr"])
def test_a_multi_platform_index_keeps_its_digest(
    registry: Daemon, new_client: NewClient, index: Layout, pusher: str, puller: str
) -> None:
    """An index pushed with all its platforms is what every client resolves the tag to."""
    name = f"{registry.host}/team/app:{TAG}"
    source, target = (
        logged_in(new_client(pusher), registry),
        logged_in(new_client(puller), registry),
    )
    source.load(index, name)

    assert index.top["digest"] == source.push(name)
    assert index.top["digest"] == target.pull(name).digest


@pytest.mark.timeout(180)
def test_every_platform_of_an_index_comes_back(
    registry: Daemon, new_client: NewClient, index: Layout
) -> None:
    """``skopeo copy --all`` there and back gives every blob and manifest of the index again."""
    name = f"{registry.host}/team/app:{TAG}"
    client = logged_in(new_client("skopeo"), registry)
    client.load(index, name)
    client.push(name)
    client.pull(name)

    stored = {blob.read_bytes() for blob in index.blobs.iterdir()}
    pulled = {file.read_bytes() for file in (client.directory / "pulled").iterdir()}
    assert stored == pulled - {b"Directory Transport Version: 1.1\n"}


@pytest.mark.timeout(300)
@every_client
def test_a_layer_of_one_gibibyte(
    registry: Daemon, new_client: NewClient, scratch: Path, name: str
) -> None:
    """A layer of 1 GiB, all of it on the wire, is pushed and pulled."""
    layout = Layout(scratch / "image")
    layout.image([layout.layer({"hello": b"hello"}), layout.large_layer(1024 * MIB)])
    reference = f"{registry.host}/team/large:{TAG}"
    source = logged_in(new_client(name), registry)
    source.load(layout, reference)

    pushed = source.push(reference)
    pulled = logged_in(new_client(name), registry).pull(reference)

    assert pushed == digest_at(registry, "team/large") == pulled.digest
    assert config_of(layout) == pulled.config
    assert stored_bytes(registry) >= 1024 * MIB


@pytest.mark.timeout(180)
@every_client
def test_an_interrupted_push_can_be_repeated(
    registry: Daemon, new_client: NewClient, scratch: Path, name: str
) -> None:
    """A client killed in the middle of a layer leaves nothing that hinders its next push."""
    layout = Layout(scratch / "image")
    layout.image([layout.large_layer(384 * MIB)])
    reference = f"{registry.host}/team/app:{TAG}"
    source = logged_in(new_client(name), registry)
    source.load(layout, reference)

    interrupt(source, reference, registry, when=64 * MIB)
    assert digest_at(registry, "team/app") is None
    pushed = source.push(reference)

    assert pushed == logged_in(new_client("skopeo"), registry).pull(reference).digest


@pytest.mark.timeout(180)
@every_client
def test_a_wrong_password_is_refused(
    registry: Daemon, new_client: NewClient, image: Layout, name: str
) -> None:
    """With a wrong password nothing can be pulled, with the right one it can."""
    reference = published(image, registry, new_client)
    client = new_client(name)

    with pytest.raises(ClientError, match=REFUSED):
        sign_in_and_pull(client, registry, reference, "wrong")
    sign_in_and_pull(client, registry, reference, registry.password)


@pytest.mark.timeout(180)
@every_client
def test_anonymous_pulls_are_refused_by_default(
    registry: Daemon, new_client: NewClient, image: Layout, name: str
) -> None:
    """Who has not logged in can pull nothing."""
    reference = published(image, registry, new_client)

    with pytest.raises(ClientError, match=REFUSED):
        new_client(name).pull(reference)


@pytest.mark.timeout(180)
@every_client
def test_anonymous_pulls_can_be_allowed(
    scratch: Path, new_client: NewClient, image: Layout, name: str
) -> None:
    """``access.anonymous = "pull"`` lets anyone pull, and still nobody push."""
    (scratch / "open").mkdir()
    with Daemon(scratch / "open", {"CYPD_ACCESS_ANONYMOUS": "pull"}) as registry:
        reference = published(image, registry, new_client)
        client = new_client(name)
        other = f"{registry.host}/team/other:{TAG}"
        client.load(image, other)

        assert digest_at(registry, "team/app") == client.pull(reference).digest
        with pytest.raises(ClientError, match=REFUSED):
            client.push(other)


@pytest.mark.timeout(120)
def test_three_pulls_at_once(registry: Daemon, new_client: NewClient, scratch: Path) -> None:
    """Three images that share a layer are pulled by one engine at the same time."""
    pusher = logged_in(new_client("skopeo"), registry)
    names = [f"{registry.host}/team/app{n}:{TAG}" for n in range(3)]
    for n, reference in enumerate(names):
        layout = Layout(scratch / f"image{n}")
        layout.image([layout.large_layer(32 * MIB), layout.large_layer(16 * MIB, seed=bytes([n]))])
        pusher.load(layout, reference)
        pusher.push(reference)
    docker = logged_in(new_client("docker"), registry)

    pulls = [docker.start("docker", "pull", reference) for reference in names]

    assert [0, 0, 0] == [pull.wait() for pull in pulls], docker.output.read_text()
    assert 3 == len(docker.run("docker", "image", "ls", "--quiet").split())


def logged_in(client: Client, registry: Daemon) -> Client:
    """Return ``client`` with the administrator's credentials."""
    client.login(registry.host)
    return client


def sign_in_and_pull(client: Client, registry: Daemon, reference: str, password: str) -> None:
    """Log in and pull: a client may check the password at either."""
    client.login(registry.host, password)
    client.pull(reference)


def published(image: Layout, registry: Daemon, new_client: NewClient) -> str:
    """Push ``image`` as team/app; return its name."""
    reference = f"{registry.host}/team/app:{TAG}"
    skopeo = logged_in(new_client("skopeo"), registry)
    skopeo.load(image, reference)
    skopeo.push(reference)
    return reference


def interrupt(client: Client, reference: str, registry: Daemon, when: int) -> None:
    """Push, and kill the client as soon as the registry has stored ``when`` bytes."""
    push = client.start(*client.push_command(reference))
    while push.poll() is None and stored_bytes(registry) < when:
        time.sleep(0.01)
    push.kill()

    assert -signal.SIGKILL == push.wait(), client.output.read_text()


def stored_bytes(registry: Daemon) -> int:
    """Return how much disk the registry uses."""
    total = 0
    for path in registry.state.rglob("*"):
        try:
            total += path.stat().st_blocks * 512
        except FileNotFoundError:  # renamed into place since it was listed
            continue
    return total


def digest_at(registry: Daemon, repository: str) -> str | None:
    """Return what the registry itself calls the tag's digest."""
    response = registry.request("HEAD", f"/v2/{repository}/manifests/{TAG}", headers=ACCEPT)
    return response.headers["Docker-Content-Digest"]


def config_of(layout: Layout) -> str:
    """Return the digest of the image's config: its id, the same whoever stores it."""
    return str(layout.manifest()["config"]["digest"])
