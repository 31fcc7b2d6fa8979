"""What one worker does holds for the others: uploads, quotas, sessions, throttles, events."""

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection
from random import Random

import pytest

from cypd.oci.digest import Digest
from tests.attacks.watch import open_files, tcp_sockets
from tests.daemon import Response, basic
from tests.events.listener import Listener
from tests.samples import image
from tests.supervisor.workers import Service
from tests.webhooks.sink import Sink, api, hook, project, sign_in

CONTENT = Random(5).randbytes(3_000_001)
DIGEST = Digest.of(CONTENT)
GUESSES = 4

# Two workers are to start within it, and to be replaced in one of the tests.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Two workers."""
    settings = {
        "CYPD_AUTH_MAX_FAILURES_PER_ACCOUNT": str(GUESSES),
        "CYPD_AUTH_REGISTRATION": "open",
        "CYPD_WEBHOOKS_ALLOW_NETWORKS": "127.0.0.0/8",
    }
    with Service(tmp_path_factory.mktemp("together"), settings) as service:
        yield service


def each(service: Service) -> tuple[int, int]:
    """Return the process ids of both workers."""
    one, other = service.wait_until_complete()
    return one, other


def push(service: Service, repository: str, content: bytes) -> Response:
    """Push a blob at once."""
    path = f"/v2/{repository}/blobs/uploads/?digest={Digest.of(content)}"
    return service.request("POST", path, body=content)


def server_of(service: Service, connection: HTTPConnection) -> int:
    """Return the worker that has accepted a connection."""
    port = connection.sock.getsockname()[1]
    for it in tcp_sockets():
        if (it.port, it.peer) == (service.port, port):
            link = f"socket:[{it.inode}]"
            for pid in service.workers():
                if link in open_files(pid):
                    return pid
    raise AssertionError(f"nobody has accepted {connection}")


@pytest.mark.parametrize("seed", range(5))
def test_the_chunks_of_an_upload_may_come_to_any_worker(service: Service, seed: int) -> None:
    """Cut anywhere, in turns or at random, an upload ends as the blob that it was."""
    random, workers = Random(seed), each(service)
    content = random.randbytes(random.choice([10, 70_000, 2_500_000]))
    digest = Digest.of(content)
    cuts = sorted(random.randrange(len(content) + 1) for _ in range(7))
    with service.by(random.choice(workers)):
        location = service.request("POST", "/v2/spread/app/blobs/uploads/").headers["Location"]
    for number, (start, stop) in enumerate(zip([0, *cuts], cuts, strict=False)):
        with service.by(workers[number % 2] if seed % 2 else random.choice(workers)):
            sent = service.request("PATCH", location, body=content[start:stop])
            assert sent.status == 202
            location = sent.headers["Location"]
    with service.by(random.choice(workers)):
        ended = service.request("PUT", f"{location}?digest={digest}", body=content[cuts[-1] :])
        assert ended.status == 201
    for pid in workers:
        with service.by(pid):
            assert service.request("GET", f"/v2/spread/app/blobs/{digest}").body == content


def test_connections_come_to_both_workers(service: Service) -> None:
    """An upload whose every chunk has a connection of its own is written by both in the end."""
    authorization = {"Authorization": basic(service.user, service.password)}
    writers: Counter[int] = Counter()
    location = service.request("POST", "/v2/spread/any/blobs/uploads/").headers["Location"]
    sent = 0
    while len(writers) < 2:
        assert sent < 2000, f"one worker takes all: {writers}"
        # Some connections are made at a time, as many clients do.
        connections = [HTTPConnection("127.0.0.1", service.port, timeout=30) for _ in range(8)]
        for connection in connections:
            connection.connect()
        for connection in connections:
            connection.request("PATCH", location, CONTENT[sent : sent + 1], authorization)
            response = connection.getresponse()
            assert (response.status, response.read()) == (202, b"")
            writers[server_of(service, connection)] += 1
            sent += 1
            connection.close()
    content = CONTENT[:sent]
    path = f"{location}?digest={Digest.of(content)}"
    assert service.request("PUT", path).status == 201
    assert service.request("GET", f"/v2/spread/any/blobs/{Digest.of(content)}").body == content


def test_one_at_a_time_writes_to_an_upload(service: Service) -> None:
    """While a chunk comes in at one worker, the other refuses one, and loses nothing of either."""
    one, other = each(service)
    location = service.request("POST", "/v2/spread/busy/blobs/uploads/").headers["Location"]
    with service.client_of(one) as client:
        client.begin("PATCH", location, CONTENT[:1_000_000], of=len(CONTENT))
        with service.by(other):
            until_fed(service, location)
            refused = service.request("PATCH", location, body=b"late")
        assert (refused.status, b"another request is writing" in refused.body) == (416, True)
        assert client.finish(CONTENT[1_000_000:]).status == 202
    with service.by(other):
        assert service.request("PUT", f"{location}?digest={DIGEST}").status == 201


def until_fed(service: Service, location: str) -> None:
    """Return when an upload has bytes, by its status: a chunk sent meanwhile could come first."""
    end = time.monotonic() + 30
    while service.request("GET", location).headers["Range"] == "0-0":
        assert time.monotonic() < end, "nothing of the chunk arrived"


def test_a_quota_is_one_for_all(service: Service) -> None:
    """What one worker lets in is missing at the other, to the byte."""
    one, other = each(service)
    settings = {"name": "full", "storage_quota": 2_000_000}
    api(service, "POST", "/projects", settings, status=201)
    with service.by(one):
        assert push(service, "full/app", CONTENT[:1_500_000]).status == 201
    with service.by(other):
        assert push(service, "full/app", CONTENT[1_500_000:2_000_001]).status == 403
        assert push(service, "full/app", CONTENT[1_500_000:2_000_000]).status == 201
    with service.by(one):
        assert push(service, "full/app", b"x").status == 403


def test_a_blob_is_gone_everywhere_at_once(service: Service) -> None:
    """A small one too, which the other worker has in its memory."""
    one, other = each(service)
    content = CONTENT[:1000]
    path = f"/v2/spread/gone/blobs/{Digest.of(content)}"
    assert push(service, "spread/gone", content).status == 201
    with service.by(one):
        assert service.request("GET", path).body == content
    with service.by(other):
        assert service.request("DELETE", path).status == 202
    with service.by(one):
        assert service.request("GET", path).status == 404


def login(service: Service, name: str, password: str) -> Response:
    """Sign in by the API."""
    body = json.dumps({"username": name, "password": password}).encode()
    headers = {"Content-Type": "application/json"}
    return service.request("POST", "/api/v1/auth/login", headers=headers, body=body, auth=False)


def test_a_session_ends_everywhere_at_once(service: Service) -> None:
    """A token that both have taken is worth nothing to either after a logout at one."""
    one, other = each(service)
    with service.by(one):
        token = json.loads(login(service, service.user, service.password).body)["data"]
    bearer = {"Authorization": f"Bearer {token['access_token']}"}
    for pid, method, path, status in (
        (one, "GET", "/api/v1/users/me", 200),
        (other, "GET", "/api/v1/users/me", 200),
        (other, "POST", "/api/v1/auth/logout", 200),
        (one, "GET", "/api/v1/users/me", 401),
        (other, "GET", "/api/v1/users/me", 401),
    ):
        with service.by(pid):
            assert service.request(method, path, headers=bearer).status == status, (path, status)


def test_guesses_count_together(service: Service) -> None:
    """Wrong passwords at both workers in turns are as many as at one."""
    workers = each(service)
    person = {"username": "guessed", "password": "a long enough password"}
    api(service, "POST", "/auth/register", person | {"email": "g@example.com"}, status=201)
    statuses = []
    for number in range(GUESSES + 2):
        with service.by(workers[number % 2]):
            statuses.append(login(service, "guessed", "a wrong password").status)

    assert statuses == [401] * GUESSES + [429] * 2


def test_a_stream_tells_what_happens_elsewhere(service: Service) -> None:
    """Who listens at one worker hears of a push to the other."""
    one, other = each(service)
    made = project(service, "heard")
    with service.only(one):
        listener = Listener(service, sign_in(service), query=f"?project_id={made}")
    with listener:
        with service.by(other):
            assert push(service, "heard/app", b"{}").status == 201
            path = "/v2/heard/app/manifests/v1"
            assert service.request("PUT", path, body=image(b"{}")).status == 201
        assert listener.next().data["tag"] == "v1"


def test_webhooks_are_sent_once_whoever_was_pushed_to(service: Service) -> None:
    """Pushes to both workers arrive, each once, as one of the two sends for both."""
    workers = each(service)
    with Sink() as sink:
        hook(service, project(service, "hooked"), sink.url)
        for number, pid in enumerate(workers * 2):
            with service.by(pid):
                assert push(service, "hooked/app", b"{}").status == 201
                path = f"/v2/hooked/app/manifests/v{number}"
                assert service.request("PUT", path, body=image(b"{}")).status == 201
        taken = sink.wait_for(4)

    assert [it.document["tag"] for it in taken] == ["v0", "v1", "v2", "v3"]


def test_the_sender_has_a_successor(service: Service) -> None:
    """After the end of each worker in turn, somebody sends what is pushed then."""
    with Sink() as sink:
        hook(service, project(service, "succeeded"), sink.url)
        for number, pid in enumerate(each(service)):
            os.kill(pid, signal.SIGKILL)
            service.wait_until_complete()
            assert push(service, "succeeded/app", b"{}").status == 201
            path = f"/v2/succeeded/app/manifests/v{number}"
            assert service.request("PUT", path, body=image(b"{}")).status == 201
            sink.wait_for(number + 1)
