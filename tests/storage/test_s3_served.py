"""The daemon over a real store, as clients see it."""

import hashlib
import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.daemon import Daemon, Response, basic
from tests.metrics.measured import Measured
from tests.samples import EMPTY, image
from tests.weed import Weed

CONTENT = os.urandom(3 << 20)
DIGEST = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
BLOB = f"/v2/library/app/blobs/{DIGEST}"
UPLOADS = "/v2/library/app/blobs/uploads/"

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def daemon(tmp_path: Path, weed: Weed, request: pytest.FixtureRequest) -> Iterator[Measured]:
    """A daemon that keeps its blobs in the store; a test's parameter adds to its environment."""
    prefix = {"CYPD_S3_PREFIX": f"served-{time.monotonic_ns()}"}
    with Measured(tmp_path, weed.environment | prefix | getattr(request, "param", {})) as daemon:
        yield daemon


def push(daemon: Daemon, content: bytes = CONTENT) -> str:
    """Push a blob in one request."""
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    response = daemon.request("POST", f"{UPLOADS}?digest={digest}", body=content)

    assert response.status == 201, response
    return digest


def get(url: str, headers: dict[str, str]) -> Response:
    """Ask another server than the daemon."""
    parts = urlsplit(url)
    assert parts.hostname
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
    try:
        connection.request("GET", f"{parts.path}?{parts.query}", headers=headers)
        response = connection.getresponse()
        return Response(response.status, response.headers, response.read())
    finally:
        connection.close()


def test_what_is_pushed_is_pulled(daemon: Daemon) -> None:
    """Whole, in a range, in several ranges, and by HEAD."""
    push(daemon)
    whole = daemon.request("GET", BLOB)
    assert (whole.status, whole.body) == (200, CONTENT)
    one = daemon.request("GET", BLOB, headers={"Range": "bytes=1000000-2000000"})
    assert (one.status, one.body) == (206, CONTENT[1_000_000:2_000_001])
    several = daemon.request("GET", BLOB, headers={"Range": "bytes=0-9,1000000-2000000"})
    assert several.status == 206
    assert CONTENT[:10] in several.body
    assert CONTENT[1_000_000:2_000_001] in several.body
    head = daemon.request("HEAD", BLOB)
    assert (head.status, head.headers["Content-Length"]) == (200, str(len(CONTENT)))
    assert daemon.request("HEAD", BLOB.replace(DIGEST, f"sha256:{'0' * 64}")).status == 404


@pytest.mark.parametrize(
    ("daemon", "is_sent_on"),
    [
        ({"CYPD_S3_REDIRECT": "on"}, True),
        ({"CYPD_S3_REDIRECT": "auto", "CYPD_S3_REDIRECT_NETWORKS": "127.0.0.0/8"}, True),
        ({"CYPD_S3_REDIRECT": "auto", "CYPD_S3_REDIRECT_NETWORKS": "10.0.0.0/8,::1/128"}, False),
        ({"CYPD_S3_REDIRECT": "off"}, False),
    ],
    indirect=["daemon"],
)
def test_who_can_reach_the_store_is_sent_there(daemon: Daemon, is_sent_on: bool) -> None:
    """Others are served from here, and so is everybody what is small, and HEAD."""
    push(daemon)
    small = push(daemon, b"content")
    asked = {"Range": "bytes=5-14"}
    response = daemon.request("GET", BLOB, headers=asked)
    if is_sent_on:
        assert (response.status, response.body) == (307, b"")
        assert response.headers["Cache-Control"] == "no-store"
        response = get(response.headers["Location"], asked)
    assert (response.status, response.body) == (206, CONTENT[5:15])
    assert daemon.request("HEAD", BLOB).status == 200
    assert daemon.request("GET", BLOB.replace(DIGEST, small)).body == b"content"
    assert daemon.request("GET", BLOB, auth=False).status == 401, "before any address is given away"


@pytest.mark.parametrize(
    "daemon",
    [{"CYPD_S3_REDIRECT": "on", "CYPD_S3_PUBLIC_ENDPOINT": "https://blobs.example.com"}],
    indirect=True,
)
def test_clients_are_sent_to_the_public_endpoint(daemon: Daemon) -> None:
    """What the daemon uses itself may be an address that nobody else reaches."""
    push(daemon)
    response = daemon.request("GET", BLOB)

    assert response.status == 307
    assert response.headers["Location"].startswith("https://blobs.example.com/blobs/served-")


@pytest.mark.parametrize("daemon", [{"CYPD_S3_CACHE_SIZE": str(64 << 20)}], indirect=True)
def test_a_copy_is_served_the_second_time(daemon: Measured) -> None:
    """The same bytes and ranges, from the store at first, and then from the disk by sendfile."""
    push(daemon)
    for _ in range(3):
        assert daemon.request("GET", BLOB).body == CONTENT
    end = time.monotonic() + 30
    while not list(daemon.state.rglob(DIGEST.replace(":", "-"))):
        assert time.monotonic() < end
        time.sleep(0.05)
    before = sent_by_sendfile(daemon, 3 * len(CONTENT))
    assert before < 3 * len(CONTENT)
    assert daemon.request("GET", BLOB).body == CONTENT
    assert daemon.request("GET", BLOB, headers={"Range": "bytes=-5"}).body == CONTENT[-5:]
    after = sent_by_sendfile(daemon, 4 * len(CONTENT) + 5)
    assert after - before == len(CONTENT) + 5


def sent_by_sendfile(daemon: Measured, pulled: int) -> float:
    """Return how much went out so, of ``pulled`` bytes: wait until all of them are counted."""
    end = time.monotonic() + 30
    while True:
        found = {key: it for key, it in daemon.scrape().items() if "pulled_bytes" in key[0]}
        if sum(found.values()) == pulled:
            break
        assert time.monotonic() < end, found
        time.sleep(0.02)
    return sum(it for key, it in found.items() if ("source", "sendfile") in key[1])


def test_without_the_store_the_rest_is_served(tmp_path: Path) -> None:
    """Blobs are 503 with Retry-After; manifests, lists and the API go on, and so does readiness."""
    with Weed(tmp_path / "own") as weed, Daemon(tmp_path, weed.environment) as daemon:
        for content in (EMPTY, CONTENT):
            push(daemon, content)
        manifest = image(CONTENT)
        url = "/v2/library/app/manifests/latest"
        kind = {"Content-Type": "application/vnd.oci.image.manifest.v1+json"}
        assert daemon.request("PUT", url, headers=kind, body=manifest).status == 201
        weed.kill()

        refused = daemon.request("GET", BLOB)
        assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
        assert daemon.request("GET", url).body == manifest
        assert daemon.request("GET", "/v2/library/app/tags/list").status == 200
        login = json.dumps({"username": daemon.user, "password": daemon.password}).encode()
        kind = {"Content-Type": "application/json"}
        signed_in = daemon.request(
            "POST", "/api/v1/auth/login", headers=kind, body=login, auth=False
        )
        assert signed_in.status == 200
        assert daemon.request("GET", "/readyz", auth=False).status == 200
        weed.start()
        end = time.monotonic() + 60
        while daemon.request("GET", BLOB).status == 503:
            assert time.monotonic() < end
            time.sleep(0.5)
        assert daemon.request("GET", BLOB).body == CONTENT
        log = daemon.log.read_text()
    assert "the S3 store failed" in log
    for secret in (weed.secret_key, "X-Amz-Signature", "X-Amz-Credential"):
        assert secret not in log


def test_credentials_come_from_the_service_manager(tmp_path: Path, weed: Weed) -> None:
    """Keys that are passed as systemd credentials need not stand anywhere else."""
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "s3-access-key").write_text(weed.access_key + "\n")
    (folder / "s3-secret-key").write_text(weed.secret_key + "\n")
    environment = {k: v for k, v in weed.environment.items() if "KEY" not in k}
    passed = {"CREDENTIALS_DIRECTORY": str(folder), "CYPD_S3_PREFIX": "by-credentials"}
    with Daemon(tmp_path, environment | passed) as daemon:
        push(daemon)
        assert daemon.request("GET", BLOB).body == CONTENT


def test_credentials_come_from_the_environment(tmp_path: Path, weed: Weed) -> None:
    """Without keys in its settings it takes those that other clients of S3 take, and tells wrong
    ones at the start as what they are.
    """
    environment = {k: v for k, v in weed.environment.items() if "KEY" not in k}
    usual = {"AWS_ACCESS_KEY_ID": weed.access_key, "AWS_SECRET_ACCESS_KEY": "wrong"}
    prefix = {"CYPD_S3_PREFIX": "by-environment"}
    with Daemon(tmp_path, environment | usual | prefix) as daemon:
        assert daemon.request("POST", f"{UPLOADS}?digest={DIGEST}", body=CONTENT).status == 500
        daemon.wait_for("bucket blobs: the S3 store refuses ListObjectsV2: 403 SignatureDoesNot")
        daemon.stop()
        daemon.environment["AWS_SECRET_ACCESS_KEY"] = weed.secret_key
        daemon.start()
        push(daemon)
        assert daemon.request("GET", BLOB).body == CONTENT


def test_nobody_else_loads_the_client() -> None:
    """It is large: without ``storage.driver = "s3"`` it costs neither time nor memory."""
    script = "import sys, cypd.composition; sys.exit('botocore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.waits
@pytest.mark.timeout(900)
@pytest.mark.parametrize("daemon", [{"CYPD_S3_READ_TIMEOUT": "120"}], indirect=True)
def test_memory_does_not_grow_with_a_blob(daemon: Daemon) -> None:
    """A push of 1 GiB, and a pull of it that nobody reads, take a few MiB."""
    size = 1 << 30
    piece = os.urandom(1 << 20)
    running = hashlib.sha256()
    for _ in range(size // len(piece)):
        running.update(piece)
    digest = "sha256:" + running.hexdigest()
    idle = resident(daemon.pid)
    most = 0

    def body() -> Iterator[bytes]:
        nonlocal most
        for number in range(size // len(piece)):
            if number % 32 == 0:
                most = max(most, resident(daemon.pid))
            yield piece

    url = f"{UPLOADS}?digest={digest}"
    length = {"Content-Length": str(size)}
    response = daemon.request("POST", url, headers=length, body=body(), timeout=600)
    assert response.status == 201
    assert most - idle < 16 << 20
    pulls = [stalled(daemon, digest) for _ in range(4)]
    time.sleep(2)
    assert resident(daemon.pid) - idle < 24 << 20
    for connection in pulls:
        connection.close()


def stalled(daemon: Daemon, digest: str) -> http.client.HTTPConnection:
    """Begin a pull, and read nothing of it but its header."""
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=60)
    headers = {"Authorization": basic(daemon.user, daemon.password)}
    connection.request("GET", f"/v2/library/app/blobs/{digest}", headers=headers)
    assert connection.getresponse().status == 200
    return connection


def resident(pid: int) -> int:
    """Return the bytes of memory that are a process's alone."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024
