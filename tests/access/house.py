"""A daemon with people in every role, and all the credentials that they can have."""

import base64
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from http.client import HTTPConnection
from typing import Any

from cypd.oci.digest import Digest
from tests.daemon import PASSWORD, Daemon, Response, basic
from tests.samples import EMPTY, image

ROLES = ("guest", "developer", "maintainer", "owner", "foreigner", "admin")
SCOPES = ("read", "write", "delete", "admin")
PROJECT = "secret"
REPOSITORY = f"{PROJECT}/app"
LAYER = b"layer"


@dataclass
class Person:
    """Someone with an account."""

    name: str
    password: str
    id: str = ""
    access: str = ""
    """A session's access token."""
    tokens: dict[str, str] = field(default_factory=dict)
    """A personal access token of each scope."""


class House:
    """Speaks to a daemon as anybody; keeps one connection."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.connect()
        self.people = {role: Person(f"the-{role}", secrets.token_urlsafe()) for role in ROLES}
        self.people["admin"] = Person("admin", PASSWORD)
        for role, person in self.people.items():
            if role != "admin":
                self.register(person)
            self.sign_in(person)
        self.admin = self.people["admin"]
        self.project = self.new_project(PROJECT)
        self.push(REPOSITORY)

    def connect(self) -> None:
        """Open the connection."""
        self._connection = HTTPConnection("127.0.0.1", self.daemon.port, timeout=30)

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def ask(
        self, method: str, path: str, authorization: str | None = None, body: Any = None
    ) -> Response:
        """Send a request; a body that is no bytes goes as JSON."""
        headers = {} if authorization is None else {"Authorization": authorization}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        self._connection.request(method, path, body, headers)
        response = self._connection.getresponse()
        if response.headers.get_content_type() == "text/event-stream":  # it has no end
            self._connection.close()
            return Response(response.status, response.headers, b"")
        return Response(response.status, response.headers, response.read())

    def api(self, method: str, path: str, person: Person | None = None, body: Any = None) -> Any:
        """Send a request below /api/v1 that has to succeed; return its data."""
        authorization = f"Bearer {person.access}" if person else None
        response = self.ask(method, f"/api/v1{path}", authorization, body)
        assert response.status in (200, 201), (method, path, response)
        return json.loads(response.body)["data"]

    def register(self, person: Person) -> None:
        """Make somebody's account."""
        document = {"username": person.name, "password": person.password}
        self.api("POST", "/auth/register", None, document | {"email": f"{person.name}@example.com"})

    def sign_in(self, person: Person) -> None:
        """Open a session, and make a personal access token of each scope."""
        document = {"username": person.name, "password": person.password}
        answer = self.api("POST", "/auth/login", None, document)
        person.access, person.id = answer["access_token"], answer["user"]["id"]
        person.tokens = {scope: self.new_token(person, scope) for scope in SCOPES}

    def new_token(self, person: Person, scope: str, **more: Any) -> str:
        """Make a personal access token."""
        document = {"name": secrets.token_hex(4), "scopes": [scope], **more}
        token: str = self.api("POST", "/user/tokens", person, document)["token"]
        return token

    def new_project(self, name: str = "") -> str:
        """Make a private project with everybody in their role; return its id."""
        owner = self.people["owner"]
        document = {"name": name or f"p-{secrets.token_hex(4)}", "is_public": False}
        project: str = self.api("POST", "/projects", owner, document)["id"]
        for role in ("guest", "developer", "maintainer"):
            member = {"username": self.people[role].name, "role": role}
            self.api("POST", f"/projects/{project}/members", owner, member)
        return project

    def new_member(self) -> str:
        """Make somebody a guest of the project; return their id."""
        person = Person(f"extra-{secrets.token_hex(4)}", secrets.token_urlsafe())
        self.register(person)
        member = {"username": person.name, "role": "guest"}
        answer = self.api("POST", f"/projects/{self.project}/members", self.people["owner"], member)
        user_id: str = answer["user_id"]
        return user_id

    def webhook(self, project: str) -> dict[str, Any]:
        """Return a webhook to be made: it is never sent anything, and would not answer."""
        url = "http://127.0.0.1:9/"
        return {"project_id": project, "name": "hook", "url": url, "events": ["member"]}

    @cached_property
    def hook(self) -> str:
        """A webhook of the project."""
        return self.new_webhook(self.project)

    def new_webhook(self, project: str) -> str:
        """Make a webhook of a project."""
        made = self.api("POST", "/webhooks", self.people["owner"], self.webhook(project))
        return str(made["id"])

    def push(self, repository: str, tag: str = "latest") -> str:
        """Push an image as the administrator; return its digest."""
        for blob in (EMPTY, LAYER):
            path = f"/v2/{repository}/blobs/uploads/?digest={Digest.of(blob)}"
            assert self.ask("POST", path, self.password(self.admin), blob).status == 201
        content = image(LAYER)
        path = f"/v2/{repository}/manifests/{tag}"
        assert self.ask("PUT", path, self.password(self.admin), content).status == 201
        return str(Digest.of(content))

    def new_tag(self, repository: str) -> str:
        """Push an image under a tag of its own."""
        tag = f"t-{secrets.token_hex(4)}"
        self.push(repository, tag)
        return tag

    @staticmethod
    def password(person: Person) -> str:
        """Return Basic with a password."""
        return basic(person.name, person.password)

    def registry_token(self, authorization: str | None, scope: str) -> str:
        """Ask the token server for a token."""
        response = self.ask("GET", f"/v2/auth?service=cypd&scope={scope}", authorization)
        assert response.status == 200, response
        token: str = json.loads(response.body)["token"]
        return token


def transports(name: str, token: str) -> Mapping[str, str]:
    """Return the ways a token can be sent."""
    encoded = base64.b64encode(f"{name}:{token}".encode()).decode()
    return {"Bearer": f"Bearer {token}", "Basic": f"Basic {encoded}"}
