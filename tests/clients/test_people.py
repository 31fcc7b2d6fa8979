"""Several people with real clients: everyone sees what is theirs, and what is public."""

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cypd.oci.digest import Digest
from tests.clients.client import Client, ClientError
from tests.clients.images import MIB, TAG, Layout
from tests.clients.slow import SlowWay
from tests.clients.test_clients import REFUSED, config_of
from tests.daemon import Daemon, basic

NewClient = Callable[[str], Client]

CLIENTS = ("docker", "podman", "skopeo", "ctr")
LONG = 190.0  # seconds of a push whose token lives for 60


class Person(NamedTuple):
    """Someone with an account of their own."""

    name: str
    password: str
    access: str
    token: str
    """A personal access token."""


@pytest.fixture
def town(scratch: Path) -> Iterator[Daemon]:
    """A registry where anybody can register; tokens for clients live for a minute."""
    (scratch / "town").mkdir()
    settings = {"CYPD_AUTH_REGISTRATION": "open", "CYPD_AUTH_TOKEN_TTL": "60"}
    with Daemon(scratch / "town", settings) as daemon:
        yield daemon


@pytest.fixture
def image(scratch: Path) -> Layout:
    """A small image."""
    layout = Layout(scratch / "image")
    layout.image([layout.layer({"hello": b"hello\n"})])
    return layout


@pytest.mark.timeout(120)
@pytest.mark.parametrize("credential", ["password", "token"])
@pytest.mark.parametrize("name", CLIENTS)
def test_everyone_has_projects_of_their_own(
    town: Daemon, new_client: NewClient, image: Layout, name: str, credential: str
) -> None:
    """By password or personal access token: one pushes to an own project, others pull if public."""
    carol, dave = settle(town, "carol"), settle(town, "dave")
    mine, theirs = f"{town.host}/carols/app:{TAG}", f"{town.host}/carols/other:{TAG}"
    owner, other = new_client(name), new_client(name)
    owner.login(town.host, getattr(carol, credential), carol.name)
    owner.load(image, mine)
    pushed = owner.push(mine)

    other.login(town.host, getattr(dave, credential), dave.name)
    private, absent = refusal(other, mine), refusal(other, f"{town.host}/nobodys/app:{TAG}")
    assert private == absent

    publish(town, carol, "carols")
    pulled = other.pull(mine)
    assert (pushed, config_of(image)) == (pulled.digest, pulled.config)
    other.load(image, theirs)
    with pytest.raises(ClientError, match=REFUSED):
        other.push(theirs)
    assert pushed == new_client(name).pull(mine).digest  # nobody at all


def refusal(client: Client, reference: str) -> str:
    """Return what a client says of an image that it may not pull, without the image's name."""
    with pytest.raises(ClientError) as error:
        client.pull(reference)
    name = reference.partition("/")[2].removesuffix(f":{TAG}")
    lines = [
        line for line in str(error.value).splitlines() if re.search("(?i)err|denied|fail", line)
    ]
    return re.sub(r"time=\S+|0x\w+|\d+:\d+:\d+", "", lines[-1].replace(name, "NAME"))


@pytest.mark.skipif(not os.environ.get("CI"), reason="takes three minutes; CI=true runs it")
@pytest.mark.waits
@pytest.mark.timeout(LONG * 2)
def test_a_long_push_outlives_its_token(town: Daemon, new_client: NewClient, scratch: Path) -> None:
    """A token of 60 seconds is good for a push of three minutes, by docker and by chunks."""
    carol = settle(town, "carol")
    layout = Layout(scratch / "image")
    layout.image([layout.large_layer(32 * MIB)])
    docker = new_client("docker")
    with SlowWay(town.port, rate=32 * MIB / LONG) as way, ThreadPoolExecutor(1) as pool:
        reference = f"127.0.0.1:{way.port}/carols/app:{TAG}"
        docker.login(f"127.0.0.1:{way.port}", carol.password, carol.name)
        docker.load(layout, reference)
        chunked = pool.submit(push_slowly, town, carol)
        began = time.monotonic()
        docker.push(reference)

        assert time.monotonic() - began > 180
        chunked.result()


def push_slowly(town: Daemon, person: Person) -> None:
    """Push a blob in chunks, all with one token, which is long over at the end."""
    pieces = [b"%d" % number * 1000 for number in range(10)]
    digest = Digest.of(b"".join(pieces))
    scope = "repository:carols/slow:pull,push"
    answer = ask(town, "GET", f"/v2/auth?scope={scope}", basic(person.name, person.password))
    bearer = f"Bearer {json.loads(answer)['token']}"
    connection = HTTPConnection("127.0.0.1", town.port, timeout=30)
    connection.request("POST", "/v2/carols/slow/blobs/uploads/", headers={"Authorization": bearer})
    response = connection.getresponse()
    response.read()
    assert 202 == response.status
    location = response.headers["Location"]
    for piece in pieces:
        time.sleep(LONG / len(pieces))
        connection.request("PATCH", location, piece, {"Authorization": bearer})
        response = connection.getresponse()
        response.read()
        assert 202 == response.status
    connection.request("PUT", f"{location}?digest={digest}", headers={"Authorization": bearer})
    response = connection.getresponse()
    assert (201, b"") == (response.status, response.read())
    connection.request("GET", "/v2/carols/slow/tags/list", headers={"Authorization": bearer})
    assert 401 == connection.getresponse().status  # over for everything else
    connection.close()


def settle(town: Daemon, name: str) -> Person:
    """Make an account, sign in, and make a personal access token."""
    password = f"{name} has a long password"
    document = {"username": name, "password": password}
    ask(town, "POST", "/api/v1/auth/register", None, document | {"email": f"{name}@example.com"})
    login = json.loads(ask(town, "POST", "/api/v1/auth/login", None, document))["data"]
    access = f"Bearer {login['access_token']}"
    wanted = {"name": "ci", "scopes": ["write"]}
    token = json.loads(ask(town, "POST", "/api/v1/user/tokens", access, wanted))["data"]["token"]
    return Person(name, password, access, token)


def publish(town: Daemon, person: Person, project: str) -> None:
    """Let everybody pull from a project."""
    found = json.loads(ask(town, "GET", f"/api/v1/projects?keyword={project}", person.access))
    (only,) = found["data"]["projects"]
    ask(town, "PUT", f"/api/v1/projects/{only['id']}", person.access, {"is_public": True})


def ask(
    town: Daemon, method: str, path: str, authorization: str | None, document: Any = None
) -> bytes:
    """Send a request that has to succeed; return the body."""
    headers = {"Authorization": authorization} if authorization else {}
    body = None
    if document is not None:
        body, headers["Content-Type"] = json.dumps(document).encode(), "application/json"
    response = town.request(method, path, headers=headers, body=body, auth=False)
    assert response.status in (200, 201), response
    return response.body
