"""Claim: to know who pulls costs little, whatever they send to prove it."""

import base64
import json
import os
from collections.abc import Iterator
from typing import Any

from benchmarks.figures import Figure, Result, Target
from benchmarks.kernel import Window
from benchmarks.lab import Lab, Sample
from benchmarks.oci import Blob, manifest
from benchmarks.servers import REPOSITORY, Cypd, Server
from benchmarks.small_pulls import LAYERS, answered, load

ANONYMOUS = "cypd, anonymous"
_MOST = 1.5  # times what the same costs without credentials


def run(lab: Lab) -> Iterator[Result]:
    """GET a manifest of a public project with each kind of credentials, and with none."""
    if Cypd.name not in lab.servers:
        return
    blobs = [Blob.of(os.urandom(lab.scale.small)) for _ in range(LAYERS + 1)]
    with lab.running(Cypd.name) as servers:
        server = servers[Cypd.name]
        assert isinstance(server, Cypd)  # noqa: S101 (what was just started)
        for blob in blobs:
            server.put_blob(blob)
        url = server.url + server.put_manifest(manifest(blobs[0], blobs[1:]))
        for name, authorization in _credentials(server).items():
            yield _compare(lab, server, url, name, authorization)


def _compare(lab: Lab, server: Server, url: str, name: str, authorization: str) -> Result:
    def take(who: str) -> Sample:
        fields = [] if who == ANONYMOUS else [f"Authorization: {authorization}"]
        with Window(server.pid) as window:
            requests = answered(load(url, lab.scale.seconds, *fields))
        return Sample.per_cpu(requests, window)

    figure = Figure(
        f"GET manifest by tag, {name}", "requests/CPU-s", "higher", [Target(1 / _MOST, ANONYMOUS)]
    )
    return lab.alternate(figure, [Cypd.name, ANONYMOUS], take)


def _credentials(server: Cypd) -> dict[str, str]:
    """Make the project public, and return an ``Authorization`` of each kind."""
    name, _, password = (server.credentials or "").partition(":")
    basic = base64.b64encode(f"{name}:{password}".encode()).decode()
    access = sign_in(server)
    project = REPOSITORY.partition("/")[0]
    (found,) = ask(server, "GET", f"/api/v1/projects?keyword={project}", None, access)["projects"]
    ask(server, "PUT", f"/api/v1/projects/{found['id']}", {"is_public": True}, access)
    pat = ask(server, "POST", "/api/v1/user/tokens", {"name": "b", "scopes": ["read"]}, access)
    with server.connect() as connection:
        scope = f"/v2/auth?service=cypd&scope=repository:{REPOSITORY}:pull"
        registry = json.loads(connection.request("GET", scope).body)["token"]
    return {
        "Basic with a password": f"Basic {basic}",
        "Bearer of the token server": f"Bearer {registry}",
        "Bearer of a session": access,
        "personal access token": f"Bearer {pat['token']}",
    }


def sign_in(server: Cypd) -> str:
    """Return the ``Authorization`` of a new session of the administrator."""
    name, _, password = (server.credentials or "").partition(":")
    login = ask(server, "POST", "/api/v1/auth/login", {"username": name, "password": password})
    return f"Bearer {login['access_token']}"


def ask(
    server: Cypd, method: str, path: str, document: Any, authorization: str | None = None
) -> Any:
    """Send a request to the product's own API; return the data of its answer."""
    body = json.dumps(document).encode() if document is not None else b""
    fields = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    if authorization:
        fields += f"Authorization: {authorization}\r\n"
    with server.anonymous() as connection:
        answer = connection.request(method, path, fields, [body])
    if answer.status not in (200, 201, 202):
        raise ConnectionError(f"{method} {path}: {answer.status} {answer.body[:200]!r}")
    return json.loads(answer.body)["data"]
