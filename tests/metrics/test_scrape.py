"""What a real daemon tells at ``/metrics``, and whom."""

import json
import os
import re
import resource
import socket
import time
from collections.abc import Iterator
from http.client import HTTPSConnection
from pathlib import Path

import pytest

from cypd.metrics.table import BY_NAME, TABLE
from cypd.oci.digest import Digest
from tests.authority import Authority
from tests.daemon import Daemon, basic, free_port
from tests.metrics.measured import Measured, Samples, samples, series
from tests.samples import EMPTY

LARGE = b"l" * 3_000_000
SMALL = b"s" * 1000
TOKEN = "a token that is long enough".replace(" ", "-")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    """A daemon that was used a little."""
    with Measured(tmp_path_factory.mktemp("measured")) as daemon:
        daemon.push_image("library/app", LARGE, SMALL)
        daemon.push_image("second/app", LARGE)
        yield daemon


def gained(before: Samples, after: Samples, name: str, **labels: str) -> float:
    """Return by how much a counter has grown."""
    key = series(name, **labels)
    return after[key] - before.get(key, 0.0)


def test_pulls_and_pushes_are_counted_to_the_byte(daemon: Measured) -> None:
    """Of each project, by where the bytes came from, and all of them together."""
    before = daemon.scrape()
    path = "/v2/library/app"
    manifest = daemon.request("GET", f"{path}/manifests/latest").body
    large, small = (f"{path}/blobs/{Digest.of(it)}" for it in (LARGE, SMALL))
    daemon.request("GET", large)
    daemon.request("GET", large, headers={"Range": "bytes=10-1000009"})
    daemon.request("GET", large, headers={"If-None-Match": f'"{Digest.of(LARGE)}"'})
    daemon.request("HEAD", large)
    for _ in range(3):
        daemon.request("GET", small)
    refused = daemon.request("GET", f"{path}/blobs/{Digest.of(b'none')}").body
    daemon.push_blob("library/app", b"new" * 1000)
    after = daemon.scrape()

    pulled = {
        source: gained(before, after, "cypd_pulled_bytes_total", project="library", source=source)
        for source in ("sendfile", "memory")
    }
    # The first pull of a small blob is from its file; later ones are from memory.
    assert pulled["sendfile"] in (len(LARGE) + 1_000_000, len(LARGE) + 1_000_000 + len(SMALL))
    assert sum(pulled.values()) == len(manifest) + len(LARGE) + 1_000_000 + 3 * len(SMALL)
    sent = gained(before, after, "cypd_sent_bytes_total")
    assert sent == sum(pulled.values()) + len(refused)
    labels = {"project": "library", "source": "upload"}
    assert gained(before, after, "cypd_pushed_bytes_total", **labels) == 3000
    assert gained(before, after, "cypd_received_bytes_total") == 3000
    other = [key for key in before if ("project", "second") in key[1] and before[key] != after[key]]
    assert other == []


def test_by_tls_bytes_are_counted_too(tmp_path: Path) -> None:
    """Whole blobs, ranges and pushes, all of it through memory."""
    authority = Authority(tmp_path / "tls")
    port = free_port()
    settings = authority.settings(f"127.0.0.1:{port}")
    path = f"/v2/library/app/blobs/{Digest.of(LARGE)}"
    with Measured(tmp_path, settings) as daemon:
        daemon.push_blob("library/app", LARGE)
        before = daemon.scrape()
        connection = HTTPSConnection("127.0.0.1", port, context=authority.context(), timeout=30)
        headers = {"Authorization": basic(daemon.user, daemon.password)}
        for extra in ({}, {"Range": "bytes=0-1999999"}):
            connection.request("GET", path, headers=headers | extra)
            connection.getresponse().read()
        content = b"by TLS" * 1000
        upload = f"/v2/library/app/blobs/uploads/?digest={Digest.of(content)}"
        connection.request("POST", upload, body=content, headers=headers)
        assert connection.getresponse().read() == b""
        connection.close()
        after = daemon.scrape()

    labels = {"project": "library", "source": "memory"}
    pulled = gained(before, after, "cypd_pulled_bytes_total", **labels)
    assert pulled == len(LARGE) + 2_000_000
    labels = {"project": "library", "source": "upload"}
    assert gained(before, after, "cypd_pushed_bytes_total", **labels) == len(content)


def test_requests_are_counted_by_what_they_are(daemon: Measured) -> None:
    """By endpoint, method and status, each with how soon it was answered."""
    before = daemon.scrape()
    daemon.request("GET", "/v2/library/app/manifests/latest")
    daemon.request("HEAD", "/v2/library/app/manifests/none")
    daemon.request("GET", "/v2/library/app/tags/list", auth=False)
    daemon.request("GET", "/healthz")
    daemon.request("GET", "/api/v1/projects", auth=False)
    daemon.request("GET", "/nothing")
    after = daemon.scrape()

    requests = [
        ("manifests", "GET", "200"),
        ("manifests", "HEAD", "404"),
        ("lists", "GET", "401"),
        ("health", "GET", "200"),
        ("api", "GET", "401"),
        ("other", "GET", "404"),
    ]
    for endpoint, method, status in requests:
        labels = {"endpoint": endpoint, "method": method, "status": status}
        assert gained(before, after, "cypd_requests_total", **labels) == 1, labels
    for endpoint, count in {"manifests": 2, "lists": 1, "api": 1}.items():
        name = "cypd_first_byte_seconds"
        assert gained(before, after, f"{name}_count", endpoint=endpoint) == count
        assert gained(before, after, f"{name}_bucket", endpoint=endpoint, le="+Inf") == count
        assert 0 < gained(before, after, f"{name}_sum", endpoint=endpoint) < 30


def test_storage_and_quotas_are_told(daemon: Measured) -> None:
    """What is shared counts once in all and once in each project; quotas are those of the API."""
    found = daemon.scrape()
    logical = found[series("cypd_storage_logical_bytes")]
    physical = found[series("cypd_storage_physical_bytes")]

    assert logical - physical == len(LARGE) + len(EMPTY)
    assert found[series("cypd_storage_deduplication_ratio")] == pytest.approx(logical / physical)
    used = [found[series("cypd_project_used_bytes", project=it)] for it in ("library", "second")]
    assert sum(used) == logical
    assert found[series("cypd_project_quota_bytes", project="second")] == 10 << 30
    assert found[series("cypd_projects")] == 2


def test_the_process_is_told(daemon: Measured) -> None:
    """Memory, descriptors, CPU time and start are those that the kernel shows to others."""
    found = daemon.scrape()
    folder = Path("/proc") / str(daemon.pid)
    resident = int((folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    ticks = sum(map(int, (folder / "stat").read_text().rpartition(")")[2].split()[11:13]))

    assert found[series("process_resident_memory_bytes")] == pytest.approx(resident, rel=0.2)
    assert abs(found[series("process_open_fds")] - len(list((folder / "fd").iterdir()))) <= 4
    cpu = ticks / os.sysconf("SC_CLK_TCK")
    assert found[series("process_cpu_seconds_total")] == pytest.approx(cpu, abs=1)
    assert 0 <= time.time() - found[series("process_start_time_seconds")] < 600
    assert found[series("cypd_workers")] == 1


def test_everything_told_stands_in_the_table(daemon: Measured) -> None:
    """And what stands there is told."""
    text = daemon.ask_metrics().body.decode()
    told = set(re.findall(r"(?m)^# TYPE (\S+) ", text))

    assert told - set(BY_NAME) == set()
    assert set(BY_NAME) <= told
    for metric in TABLE:
        if metric.name in told:
            assert f"# TYPE {metric.name} {metric.kind}\n" in text
            assert f"# HELP {metric.name} " in text


def test_an_unfinished_push_is_seen(daemon: Measured) -> None:
    """An open session, its reserved room, and the request that brings its bytes."""
    start = daemon.request("POST", "/v2/library/app/blobs/uploads/")
    location = start.headers["Location"].removeprefix(daemon.url)
    with socket.create_connection(("127.0.0.1", daemon.port)) as client:
        head = (
            f"PATCH {location} HTTP/1.1\r\nHost: {daemon.host}\r\nContent-Length: 5000000\r\n"
            f"Authorization: {basic(daemon.user, daemon.password)}\r\n\r\n"
        )
        client.sendall(head.encode() + b"x" * 100_000)
        deadline = time.monotonic() + 20
        while not (found := daemon.scrape())[series("cypd_active_uploads")]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert found[series("cypd_upload_sessions")] == 1
        assert found[series("cypd_project_reserved_bytes", project="library")] >= 5_000_000
        assert found[series("cypd_connections")] >= 1
    while daemon.scrape()[series("cypd_active_uploads")]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_only_metrics_are_there(daemon: Measured) -> None:
    """Nothing else is served by this listener, and metrics by no other; nobody writes here."""
    assert daemon.ask_metrics("/v2/").status == 404
    assert daemon.ask_metrics("/metrics/").status == 404
    assert daemon.ask_metrics(method="POST").status == 405
    head = daemon.ask_metrics(method="HEAD")
    assert (head.status, head.body) == (200, b"")
    assert daemon.request("GET", "/metrics").status == 404


def test_a_token_keeps_others_out(tmp_path: Path) -> None:
    """With it the public door may serve metrics too; no user's credential is any good there."""
    settings = {"CYPD_METRICS_TOKEN": TOKEN, "CYPD_METRICS_PUBLIC": "true"}
    with Measured(tmp_path, settings) as daemon:
        for wrong in ("", TOKEN[:-1], f"{TOKEN}x", TOKEN.upper()):
            answer = daemon.ask_metrics(token=wrong)
            assert answer.status == 401
            assert answer.headers["WWW-Authenticate"] == 'Bearer realm="cypd metrics"'
            assert b"cypd_" not in answer.body
        right = {"Authorization": f"bearer {TOKEN}"}
        assert daemon.ask_metrics(token=TOKEN).status == 200
        assert daemon.request("GET", "/metrics", headers=right).status == 200
        assert daemon.request("GET", "/metrics").status == 401
        assert daemon.request("GET", "/metrics", auth=False).status == 401
        assert TOKEN not in daemon.log.read_text()


def test_metrics_in_public_need_a_token(tmp_path: Path) -> None:
    """Without one the daemon does not start, and says why."""
    daemon = Measured(tmp_path, {"CYPD_METRICS_PUBLIC": "true"})
    with pytest.raises(AssertionError, match="exit status 78"):
        daemon.start()

    assert "metrics.public: everybody could read them; set metrics.token" in daemon.log.read_text()


def test_the_service_manager_may_hold_the_token(tmp_path: Path) -> None:
    """The credential metrics-token is one."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "metrics-token").write_text(f"{TOKEN}\n")
    with Measured(tmp_path, {"CREDENTIALS_DIRECTORY": str(credentials)}) as daemon:
        assert daemon.ask_metrics().status == 401
        assert daemon.ask_metrics(token=TOKEN).status == 200


def test_secrets_are_never_told(tmp_path: Path) -> None:
    """Passwords, tokens, a webhook's secret, paths and private names of repositories: none."""
    with Measured(tmp_path, {"CYPD_PROJECTS_DEFAULT_QUOTA": "-1"}) as daemon:
        daemon.push_image("library/canary-repository", SMALL)
        created = daemon.request(
            "GET", "/v2/auth?scope=repository:library/canary-repository:pull&service=x"
        )
        token = json.loads(created.body)["token"]
        bearer = {"Authorization": f"Bearer {token}"}
        daemon.request("GET", "/v2/library/canary-repository/tags/list?q=canary", headers=bearer)
        daemon.request("GET", "/v2/canary-nothing/app/manifests/canary-tag")
        daemon.request("CANARY", "/canary-path")
        wrong = {"Authorization": basic("canary-user", "canary-password")}
        daemon.request("GET", "/v2/", headers=wrong)
        text = daemon.ask_metrics().body.decode()

    for secret in ("canary", daemon.password, token, token.split(".")[1], str(Digest.of(SMALL))):
        assert secret.lower() not in text.lower()
    assert 'project="library"' in text


@pytest.mark.timeout(300)
def test_made_up_names_make_no_series(tmp_path: Path) -> None:
    """A hundred thousand repositories that do not exist, by every method: the text stays small."""
    methods = ("GET", "HEAD", "PUT", "DELETE", "PATCH", "POST")
    with Measured(tmp_path) as daemon:
        for batch in range(100):
            _pipeline(daemon, methods, range(batch * 1000, batch * 1000 + 1000))
        found = daemon.scrape()
        text = daemon.ask_metrics().body

    counted = sum(it for key, it in found.items() if key[0] == "cypd_requests_total")
    assert counted >= 100_000
    assert len(found) < 300
    assert len(text) < 64 << 10


def _pipeline(daemon: Daemon, methods: tuple[str, ...], numbers: range) -> None:
    """Ask for things of repositories of that many names, on one connection; read all answers."""
    requests = [
        f"{methods[it % len(methods)]} /v2/p{it:x}/r{it:x}/manifests/t{it:x} HTTP/1.1\r\n"
        f"Host: {daemon.host}\r\nContent-Length: 0\r\n"
        f"{'Connection: close' if it == numbers[-1] else 'X: y'}\r\n\r\n"
        for it in numbers
    ]
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=60) as client:
        for first in range(0, len(requests), 50):
            some, answers = requests[first : first + 50], b""
            client.sendall("".join(some).encode())
            while answers.count(b"\r\n\r\n") < len(some):
                piece = client.recv(1 << 20)
                assert piece, "the connection ended"
                answers += piece
            statuses = set(re.findall(rb"HTTP/1\.1 (\d\d\d)", answers))
            assert statuses <= {b"401", b"404", b"405"}


def test_many_projects_are_some_and_the_others(tmp_path: Path) -> None:
    """Sums are right however many there are, and only so many are told of by name."""
    count, named = 60, 20
    with Measured(tmp_path, {"CYPD_METRICS_PROJECTS": str(named)}) as daemon:
        for number in range(count):
            daemon.push_blob(f"project-{number}/app", b"%d" % number * 10)
        found = daemon.scrape()

    sizes = {f"project-{number}": len(b"%d" % number * 10) for number in range(count)}
    for name in ("cypd_pushed_bytes_total", "cypd_project_used_bytes"):
        told = {dict(key[1])["project"]: it for key, it in found.items() if key[0] == name}
        assert len(told) == named + 1
        assert sum(told.values()) == sum(sizes.values())
        for project, size in told.items():
            assert project == "other" or size == sizes[project]


@pytest.mark.timeout(300)
def test_the_file_of_one_daemon_is_read_by_another(tmp_path: Path) -> None:
    """Two processes of one registry: either tells of both, and what one did that was killed."""
    first, second = Measured(tmp_path), Measured(tmp_path)
    with first, second:
        first.push_image("library/app", LARGE)
        for each, count in ((first, 3), (second, 2)):
            for _ in range(count):
                each.request("GET", f"/v2/library/app/blobs/{Digest.of(LARGE)}")
        pulled = series("cypd_pulled_bytes_total", project="library", source="sendfile")
        _wait_for(first, pulled, 5 * len(LARGE))
        told = [each.scrape() for each in (first, second)]
        assert [it[pulled] for it in told] == [5 * len(LARGE)] * 2
        assert [it[series("cypd_workers")] for it in told] == [2, 2]
        counters = {key: it for key, it in told[1].items() if key[0].endswith(("_total", "_count"))}

        first.kill()
        after = second.scrape()
        assert [key for key, it in counters.items() if after[key] < it] == []
        assert after[pulled] == 5 * len(LARGE)
        assert after[series("cypd_workers")] == 1
        assert after[series("cypd_worker_restarts_total")] == 1
        for count in range(6, 11):
            first.start()
            first.request("GET", f"/v2/library/app/blobs/{Digest.of(LARGE)}")
            _wait_for(second, pulled, count * len(LARGE))  # the client may have it all before that
            first.kill()
        deadline = time.monotonic() + 30
        while len(list((second.state / "metrics").glob("*.page"))) > 1:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert second.scrape()[pulled] == 10 * len(LARGE)
        assert second.scrape()[series("cypd_worker_restarts_total")] == 6


def _wait_for(daemon: Measured, key: tuple[str, frozenset[tuple[str, str]]], value: float) -> None:
    deadline = time.monotonic() + 20
    while (found := daemon.scrape()[key]) < value:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert found == value


def test_counters_survive_a_restart(tmp_path: Path) -> None:
    """They go on where they were, and a stop that was asked for is no accident."""
    daemon = Measured(tmp_path)
    with daemon:
        daemon.push_blob("library/app", LARGE)
        daemon.stop()
        daemon.start()
        found = daemon.scrape()

    assert found[series("cypd_received_bytes_total")] == len(LARGE)
    assert found[series("cypd_worker_restarts_total")] == 0


def test_an_exposition_is_parsed_by_the_library() -> None:
    """The helper of these tests refuses what stands there twice."""
    with pytest.raises(AssertionError):
        samples("a 1\na 1\n")


def test_no_request_fails_for_want_of_a_descriptor(tmp_path: Path) -> None:
    """A daemon whose descriptors are used up goes on counting, and answers who is connected."""
    with Measured(tmp_path) as daemon:
        daemon.push_image("library/app", SMALL)
        daemon.push_image("second/app", SMALL)
        before = daemon.scrape()
        open_now = len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))
        with socket.create_connection(("127.0.0.1", daemon.port), timeout=30) as client:
            _get_manifest(client, daemon, "library/app")
            limits = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
            resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (open_now, limits[1]))
            time.sleep(6)  # both timers tick meanwhile
            answers = [_get_manifest(client, daemon, f"{it}/app") for it in ("library", "second")]
            resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, limits)
        after = daemon.scrape()

    assert answers == [b"200", b"200"]
    labels = {"endpoint": "manifests", "method": "GET", "status": "200"}
    assert gained(before, after, "cypd_requests_total", **labels) == 3
    assert "Traceback" not in daemon.log.read_text()


def _get_manifest(client: socket.socket, daemon: Daemon, repository: str) -> bytes:
    """Pull a manifest on a connection that is kept; return the status."""
    credentials = basic(daemon.user, daemon.password)
    client.sendall(
        f"GET /v2/{repository}/manifests/latest HTTP/1.1\r\nHost: {daemon.host}\r\n"
        f"Authorization: {credentials}\r\n\r\n".encode()
    )
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += client.recv(65536)
    head, _, body = answer.partition(b"\r\n\r\n")
    found = re.search(rb"(?i)content-length: (\d+)", head)
    assert found is not None
    while len(body) < int(found[1]):
        body += client.recv(65536)
    return head.split()[1]
