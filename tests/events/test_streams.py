"""``/api/v1/events``: what happens in one's own projects, as it happens, and where one left off."""

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks.content import push_blob
from tests.daemon import Daemon
from tests.events.listener import Listener
from tests.samples import EMPTY, image
from tests.webhooks.sink import api, project, sign_in

PASSWORD = "a long enough password"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon in which everybody may have an account."""
    settings = {"CYPD_AUTH_REGISTRATION": "open"}
    with Daemon(tmp_path_factory.mktemp("streams"), settings) as daemon:
        yield daemon


def push(daemon: Daemon, repository: str, tag: str) -> None:
    """Push an image."""
    push_blob(daemon, repository, EMPTY)
    path = f"/v2/{repository}/manifests/{tag}"
    assert daemon.request("PUT", path, body=image(EMPTY)).status == 201


def person(daemon: Daemon, name: str) -> tuple[str, str]:
    """Make an account; return its access token and its id."""
    document = {"username": name, "password": PASSWORD}
    more = {"email": f"{name}@example.com"}
    api(daemon, "POST", "/auth/register", document | more, status=201)
    login = api(daemon, "POST", "/auth/login", document)
    return login["access_token"], login["user"]["id"]


def test_what_happens_is_told(daemon: Daemon) -> None:
    """A push comes to who listens, with the contract's fields and an id to resume from."""
    made = project(daemon, "told")
    with Listener(daemon, sign_in(daemon), query=f"?project_id={made}") as listener:
        push(daemon, "told/app", "v1")
        told = listener.next()

    assert "push" == told.kind == told.data["event"]
    assert ("told/app", "v1") == (told.data["repository"], told.data["tag"])
    assert int(told.id) > 0


def test_who_was_away_misses_nothing(daemon: Daemon) -> None:
    """With Last-Event-ID all that came after that event follows, in its order, and once."""
    made = project(daemon, "away")
    query = f"?project_id={made}"
    with Listener(daemon, sign_in(daemon), query=query) as listener:
        push(daemon, "away/app", "v0")
        last = listener.next().id
    for number in range(1, 4):
        push(daemon, "away/app", f"v{number}")
    with Listener(daemon, sign_in(daemon), query=query, after=last) as listener:
        push(daemon, "away/app", "v4")
        told = [listener.next().data["tag"] for _ in range(4)]

    assert [f"v{number}" for number in range(1, 5)] == told


def test_nobody_hears_of_foreign_projects(daemon: Daemon) -> None:
    """Only members do, from the moment on that they are, until they are none any more."""
    foreign, open_ = project(daemon, "foreign"), project(daemon, "open")
    token, user_id = person(daemon, "stranger")
    other, _ = person(daemon, "another")
    member = {"user_id": user_id, "role": "guest"}
    api(daemon, "POST", f"/projects/{open_}/members", member)
    with Listener(daemon, token) as listener:

        def heard(tag: str) -> list[str]:
            """Push to both projects; return what is heard until the open one's comes."""
            push(daemon, "foreign/app", tag)
            push(daemon, "open/app", tag)
            found: list[str] = []
            while not found or found[-1] != "open":
                told = listener.next()
                found.append(told.data["project"])
            return found

        assert ["open"] == heard("before")
        api(daemon, "POST", f"/projects/{foreign}/members", member)
        assert ["foreign", "foreign", "open"] == heard("within")
        api(daemon, "DELETE", f"/projects/{foreign}/members/{user_id}")
        assert ["open"] == heard("after")
    refused = Listener(daemon, other, query=f"?project_id={foreign}")
    refused.close()
    assert 404 == refused.status


@pytest.mark.parametrize("text", ["x", "-1", "1.5", "9" * 40, "١"])
def test_what_is_no_event_can_not_be_resumed_from(daemon: Daemon, text: str) -> None:
    """A Last-Event-ID that was never given is 400."""
    encoded = text.encode().decode("latin-1")
    refused = Listener(daemon, sign_in(daemon), after=encoded)
    refused.close()
    assert 400 == refused.status


def test_a_listener_that_hangs_up_is_forgotten(daemon: Daemon) -> None:
    """Its request ends with it, long before anything is to be told."""
    listeners = [Listener(daemon, sign_in(daemon)) for _ in range(20)]
    for listener in listeners:
        listener.close()
    end = time.monotonic() + 5
    while _requests(daemon) > 0:
        assert time.monotonic() < end
        time.sleep(0.05)


def _requests(daemon: Daemon) -> int:
    """Return how many connections the daemon has established."""
    table = Path(f"/proc/{daemon.pid}/net/tcp").read_text()
    return len(re.findall(rf": 0100007F:{daemon.port:04X} \S+ 01 ", table))


def test_streams_end_when_the_daemon_does(tmp_path: Path) -> None:
    """A daemon that is told to stop does not wait for those who only listen."""
    daemon = Daemon(tmp_path)
    with daemon, Listener(daemon, sign_in(daemon)) as listener:
        stopping = threading.Thread(target=daemon.stop, args=(10,))
        stopping.start()
        assert listener.has_ended()
        stopping.join()


def test_what_is_kept_no_more_is_a_gap(tmp_path: Path) -> None:
    """Who resumes from before all that is kept is told that something is missing."""
    daemon = Daemon(tmp_path, {"CYPD_EVENTS_KEEP": "2"})
    with daemon:
        project(daemon, "gap")
        for number in range(6):
            push(daemon, "gap/app", f"v{number}")
        time.sleep(0.5)  # until all webhooks were asked
        daemon.stop()
        daemon.start()
        end = time.monotonic() + 10
        while True:
            with Listener(daemon, sign_in(daemon), after="1") as listener:
                told = [listener.next() for _ in range(3)]
            if told[0].kind == "gap":
                break
            assert time.monotonic() < end
            time.sleep(0.1)

    assert ["v4", "v5"] == [it.data["tag"] for it in told[1:]]
