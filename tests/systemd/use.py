"""What a registry is used for, in short: it runs through all that a service may forbid."""

import json
import time
from collections.abc import Mapping
from pathlib import Path

from cypd.oci.digest import Digest
from cypd.oci.media_types import OCI_MANIFEST
from tests.api.test_scans_embedded import RECORD, import_record, layer
from tests.authority import Authority
from tests.crash.client import Client
from tests.metrics.measured import Samples, samples
from tests.samples import EMPTY, image
from tests.systemd.launcher import Launcher, pull_by_tls

NAMES = ("http", "https", "metrics")
LAYER = layer("1.0")


def settings(authority: Authority) -> Mapping[str, str]:
    """Return the settings of a daemon that serves TLS, and scans what is pushed."""
    return {**authority.settings(), "CYPD_SCANNING_ON_PUSH": "true"}


def use(daemon: Launcher, client: Client, authority: Authority, blob: bytes, tmp: Path) -> Samples:
    """Push, pull by TLS too, resume, delete, scan; return what a scrape tells then."""
    import_record(daemon, tmp, RECORD)
    digest = Digest.of(blob)
    location = client.open_session("library/app")
    assert client.send("PATCH", location, blob[:1000]).status == 202
    location = client.send("PATCH", location, blob[1000:]).headers["Location"]
    assert client.send("PUT", f"{location}?digest={digest}").status == 201
    path = f"/v2/library/app/blobs/{digest}"
    assert client.send("GET", path).body == blob
    assert client.send("GET", path, headers={"Range": "bytes=5-9"}).body == blob[5:10]
    assert pull_by_tls(daemon, authority, "library/app", digest) == blob
    assert client.send("DELETE", path).status == 202
    _scan(client)
    daemon.port = daemon.sockets[NAMES.index("metrics")].getsockname()[1]
    try:
        return samples(daemon.request("GET", "/metrics").body.decode())
    finally:
        daemon.port = daemon.sockets[0].getsockname()[1]


def _scan(client: Client) -> None:
    """Push an image; return when its SBOM is beside it, which is the end of a scan."""
    for blob in (EMPTY, LAYER):
        assert client.push("library/app", Digest.of(blob), blob) == 201
    manifest, head = image(LAYER), {"Content-Type": OCI_MANIFEST}
    assert client.send("PUT", "/v2/library/app/manifests/latest", manifest, head).status == 201
    referrers = f"/v2/library/app/referrers/{Digest.of(manifest)}"
    deadline = time.monotonic() + 60
    while not json.loads(client.send("GET", referrers).body)["manifests"]:
        assert time.monotonic() < deadline, "the scan does not succeed"
        time.sleep(0.1)
