"""The clients people have, and a registry that keeps its blobs in a store by S3."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bucket import Bucket
from tests.clients.client import Client
from tests.clients.conftest import CLIENTS
from tests.clients.images import MIB, TAG, Layout
from tests.clients.test_clients import config_of, digest_at, logged_in
from tests.crash.gate import Gate
from tests.daemon import Daemon
from tests.metrics.measured import Measured
from tests.weed import Weed

NewClient = Callable[[str], Client]


@pytest.fixture
def weed(scratch: Path) -> Iterator[Weed]:
    """An empty store."""
    with Weed(scratch) as weed:
        yield weed


@pytest.fixture
def redirect() -> str:
    """What ``s3.redirect`` is."""
    return "off"


@pytest.fixture
def asked() -> list[bytes]:
    """What clients have sent to the store by themselves."""
    return []


@pytest.fixture
def registry(scratch: Path, weed: Weed, asked: list[bytes], redirect: str) -> Iterator[Measured]:
    """The daemon as it comes, with its blobs in the store."""

    def note(piece: bytes) -> bool:
        asked.append(piece)
        return False

    (scratch / "registry").mkdir()
    with Gate(weed.port, note) as way:
        settings = {
            "CYPD_S3_READ_TIMEOUT": "120",  # the store is on the same small machine
            "CYPD_S3_REDIRECT": redirect,
            "CYPD_S3_PUBLIC_ENDPOINT": way.endpoint,
        }
        with Measured(scratch / "registry", weed.environment | settings) as daemon:
            yield daemon


# Three of them pull without redirects below.
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("name", "redirect"), [*((name, "on") for name in CLIENTS), ("ctr", "off")]
)
def test_push_and_pull(
    weed: Weed,
    registry: Measured,
    asked: list[bytes],
    new_client: NewClient,
    scratch: Path,
    name: str,
    redirect: str,
) -> None:
    """Every client gets back what it has pushed, and the layers are in the store alone. With
    ``s3.redirect`` it takes the large ones from there, and the registry's credentials stay here.
    """
    layout = Layout(scratch / "image")
    layout.image([layout.layer({"hello": b"hello"}), layout.large_layer(32 * MIB)])
    check_round_trip(weed, registry, new_client, layout, name, 32 * MIB)
    pulled: Counter[str] = Counter()
    for (metric, labels), size in registry.scrape().items():
        if metric == "cypd_pulled_bytes_total":
            pulled[dict(labels)["source"]] += int(size)
    sent = b"".join(asked).lower()

    if redirect == "off":
        assert not sent
        assert pulled.total() >= 32 * MIB
    else:
        assert pulled.pop("redirect") >= 32 * MIB
        assert pulled.total() < MIB
        assert b"x-amz-signature=" in sent
        assert b"authorization" not in sent


@pytest.mark.waits
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["docker", "skopeo", "podman"])
def test_a_layer_of_three_gibibytes(
    weed: Weed, registry: Daemon, new_client: NewClient, scratch: Path, name: str
) -> None:
    """A layer of 3 GiB, all of it on the wire, is pushed and pulled."""
    layout = Layout(scratch / "image")
    layout.image([layout.layer({"hello": b"hello"}), layout.large_layer(3 * 1024 * MIB)])
    check_round_trip(weed, registry, new_client, layout, name, 3 * 1024 * MIB)


def check_round_trip(
    weed: Weed, registry: Daemon, new_client: NewClient, layout: Layout, name: str, least: int
) -> None:
    """Push an image with one client and pull it with another one of its kind."""
    reference = f"{registry.host}/team/app:{TAG}"
    source = logged_in(new_client(name), registry)
    source.load(layout, reference)
    pushed = source.push(reference)
    stored = Bucket(weed).objects()
    source.stack.close()  # and forget what it has, before the next one takes the same room
    pulled = logged_in(new_client(name), registry).pull(reference)

    assert pushed == digest_at(registry, "team/app") == pulled.digest
    assert config_of(layout) == pulled.config
    assert sum(it.size for it in stored) >= least
    assert not Bucket(weed).multipart_uploads()
    assert not list((registry.state / "blobs").rglob("*/*/*"))
