"""One written table, walked with every credential of everybody on every transport."""

import json
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jwt
import pytest

from cypd.oci.digest import Digest
from tests.access.house import LAYER, REPOSITORY, ROLES, SCOPES, House, Person, transports
from tests.daemon import Daemon, basic
from tests.samples import image

# Method and path; the scope that a credential needs; the answer to those who may; and for guest,
# developer, maintainer, owner, foreigner and administrator of a private project: they may (x), may
# not (.), or it does not exist for them (-). Nobody may do any of it. {fresh...} is made anew for
# each request.
API = """
GET    /api/v1/user/profile                             read   200  xxxxxx
PUT    /api/v1/user/profile                             admin  200  xxxxxx
PUT    /api/v1/user/password                            admin  400  xxxxxx
GET    /api/v1/user/tokens                              read   200  xxxxxx
POST   /api/v1/user/tokens                              admin  201  xxxxxx
DELETE /api/v1/user/tokens/{nothing}                    admin  404  xxxxxx
POST   /api/v1/user/mfa                                 admin  200  xxxxxx
POST   /api/v1/user/mfa/activate                        admin  400  xxxxxx
DELETE /api/v1/user/mfa                                 admin  409  xxxxxx
GET    /api/v1/users/me                                 read   200  xxxxxx
PUT    /api/v1/users/me                                 admin  200  xxxxxx
PUT    /api/v1/users/me/password                        admin  400  xxxxxx
GET    /api/v1/users/me/pat                             read   200  xxxxxx
POST   /api/v1/users/me/pat                             admin  201  xxxxxx
DELETE /api/v1/users/me/pat/{nothing}                   admin  404  xxxxxx
GET    /api/v1/users                                    admin  200  .....x
GET    /api/v1/users/{user}                             admin  200  .....x
PATCH  /api/v1/users/{user}                             admin  200  .....x
DELETE /api/v1/users/{nothing}                          admin  404  .....x
GET    /api/v1/projects                                 read   200  xxxxxx
POST   /api/v1/projects                                 write  201  xxxxxx
GET    /api/v1/projects/{project}                       read   200  xxxx-x
PUT    /api/v1/projects/{project}                       write  200  ..xx-x
GET    /api/v1/projects/{project}/storage               read   200  xxxx-x
GET    /api/v1/projects/{project}/tag-rules             read   200  xxxx-x
PUT    /api/v1/projects/{project}/tag-rules             write  200  ..xx-x
POST   /api/v1/projects/{project}/tag-rules/dry-run     write  200  ..xx-x
GET    /api/v1/projects/{project}/scan-policy           read   200  xxxx-x
PUT    /api/v1/projects/{project}/scan-policy           admin  200  ...x-x
GET    /api/v1/projects/{project}/members               read   200  xxxx-x
POST   /api/v1/projects/{project}/members               admin  404  ...x-x
PUT    /api/v1/projects/{project}/members/{fresh_member} admin 200  ...x-x
DELETE /api/v1/projects/{project}/members/{fresh_member} admin 200  ...x-x
DELETE /api/v1/projects/{fresh_project}?force=true      admin  200  ...x-x
GET    /api/v1/webhooks                                 write  200  xxxxxx
POST   /api/v1/webhooks                                 write  201  ..xx-x
GET    /api/v1/webhooks/{webhook}                       write  200  --xx-x
PUT    /api/v1/webhooks/{webhook}                       write  200  --xx-x
DELETE /api/v1/webhooks/{fresh_webhook}                 write  200  --xx-x
POST   /api/v1/webhooks/{webhook}/test                  write  502  --xx-x
GET    /api/v1/webhooks/{webhook}/statistics            write  200  --xx-x
GET    /api/v1/webhooks/{webhook}/deliveries            write  200  --xx-x
GET    /api/v1/webhooks/{webhook}/deliveries/{nothing}  write  404  --xx-x
POST   /api/v1/webhooks/{webhook}/deliveries/{nothing}/redeliver write 404 --xx-x
GET    /api/v1/events                                   read   200  xxxxxx
GET    /api/v1/events?project_id={project}              read   200  xxxx-x
GET    /api/v1/audit-logs                               admin  200  .....x
GET    /api/v1/audit-logs?project_id={project}          admin  200  ...x-x
GET    /api/v1/repositories                             read   200  xxxxxx
GET    /api/v1/repositories/{repository}/tags           read   200  xxxx-x
DELETE /api/v1/repositories/{repository}/tags/{fresh_tag} delete 200 ..xx-x
GET    /api/v1/repositories/{repository}/manifests      read   200  xxxx-x
GET    /api/v1/repositories/{repository}/vulnerabilities read  404  xxxxxx
GET    /api/v1/scans                                    read   200  xxxxxx
GET    /api/v1/scans?repository={repository}            read   200  xxxx-x
POST   /api/v1/scans                                    write  503  .xxx-x
GET    /api/v1/scans/{nothing}                          read   404  xxxxxx
GET    /api/v1/scans/{nothing}/logs                     read   404  xxxxxx
POST   /api/v1/scans/{nothing}/cancel                   write  404  xxxxxx
GET    /api/v1/system/info                              admin  200  .....x
"""
V2 = """
GET    /v2/{repository}/tags/list                       read   200  xxxx-x
GET    /v2/{repository}/manifests/latest                read   200  xxxx-x
HEAD   /v2/{repository}/manifests/{digest}              read   200  xxxx-x
GET    /v2/{repository}/blobs/{blob}                    read   200  xxxx-x
HEAD   /v2/{repository}/blobs/{blob}                    read   200  xxxx-x
GET    /v2/{repository}/referrers/{digest}              read   200  xxxx-x
PUT    /v2/{repository}/manifests/latest                write  201  .xxx-x
POST   /v2/{repository}/blobs/uploads/                  write  202  .xxx-x
POST   /v2/{repository}/blobs/uploads/?digest={blob}    write  201  .xxx-x
POST   /v2/{repository}/blobs/uploads/?mount={blob}     write  201  .xxx-x
GET    /v2/{repository}/blobs/uploads/{nothing}         write  404  .xxx-x
PATCH  /v2/{repository}/blobs/uploads/{nothing}         write  404  .xxx-x
PUT    /v2/{repository}/blobs/uploads/{nothing}?digest={blob} write 404 .xxx-x
DELETE /v2/{repository}/blobs/uploads/{nothing}         write  404  .xxx-x
DELETE /v2/{repository}/manifests/{fresh_tag}           delete 202  ..xx-x
DELETE /v2/{repository}/blobs/{no_blob}                 delete 404  ..xx-x
"""
BODIES: Mapping[str, Any] = {
    "PUT /api/v1/user/profile": {"nickname": "somebody"},
    "PUT /api/v1/users/me": {"nickname": "somebody"},
    "PUT /api/v1/user/password": {"old_password": "it is not"},
    "PUT /api/v1/users/me/password": {"old_password": "it is not"},
    "POST /api/v1/user/tokens": {"name": "one", "scopes": ["read"]},
    "POST /api/v1/users/me/pat": {"name": "one", "scopes": ["read"]},
    "POST /api/v1/user/mfa/activate": {"code": ""},
    "DELETE /api/v1/user/mfa": {"password": "it is not", "code": "none"},
    "PATCH /api/v1/users/{user}": {},
    "PUT /api/v1/projects/{project}": {"description": "new"},
    "PUT /api/v1/projects/{project}/tag-rules": {"immutable": [], "retention": []},
    "POST /api/v1/projects/{project}/tag-rules/dry-run": {"immutable": [], "retention": []},
    "PUT /api/v1/projects/{project}/scan-policy": {"block_at": None},
    "POST /api/v1/scans": {"repository": REPOSITORY},
    "POST /api/v1/projects/{project}/members": {"username": "there-is-nobody", "role": "guest"},
    "PUT /api/v1/projects/{project}/members/{fresh_member}": {"role": "developer"},
    "PUT /api/v1/webhooks/{webhook}": {"name": "other"},
    "PUT /v2/{repository}/manifests/latest": image(LAYER),
    "POST /v2/{repository}/blobs/uploads/?digest={blob}": LAYER,
    "PATCH /v2/{repository}/blobs/uploads/{nothing}": LAYER,
    "PUT /v2/{repository}/blobs/uploads/{nothing}?digest={blob}": LAYER,
}


Worthless = Mapping[str, str | None]


_LOGOUT = ("POST", "/api/v1/auth/logout")


class Row(NamedTuple):
    """A line of a table."""

    method: str
    path: str
    scope: str
    answer: int
    who: str

    def expected(self, role: str, scope: str = "admin") -> int:
        """Return the answer to somebody in a role whose credential has a scope."""
        mark = self.who[ROLES.index(role)]
        reaches = SCOPES.index(scope) >= SCOPES.index(self.scope)
        if mark == "-":  # on the API the scope is asked about before there is anything to hide
            return 404 if reaches or self.path.startswith("/v2/") else 403
        return self.answer if mark == "x" and reaches else 403

    @property
    def request(self) -> str:
        """Method and path, as the tables have them."""
        return f"{self.method} {self.path}"


def rows(table: str) -> list[Row]:
    """Return the lines of a table."""
    return [
        Row(method, path, scope, int(answer), who)
        for method, path, scope, answer, who in (
            line.split() for line in table.strip().splitlines()
        )
    ]


every_row = pytest.mark.parametrize("row", rows(API) + rows(V2), ids=lambda row: row.request)
every_project_row = pytest.mark.parametrize(
    "row",
    [
        row
        for row in rows(API) + rows(V2)
        if re.search("{(fresh_)?(project|webhook)}|{repository}", row.path)
    ],
    ids=lambda row: row.request,
)
every_v2_row = pytest.mark.parametrize("row", rows(V2), ids=lambda row: row.request)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A daemon with somebody in every role."""
    environment = {
        "CYPD_AUTH_REGISTRATION": "open",
        "CYPD_AUTH_MAX_FAILURES_PER_ACCOUNT": "10000",
        "CYPD_AUTH_MAX_FAILURES_PER_ADDRESS": "10000",
        "CYPD_UPLOADS_MAX_SESSIONS_PER_USER": "10000",
        "CYPD_WEBHOOKS_ALLOW_NETWORKS": "127.0.0.0/8",
    }
    with Daemon(tmp_path_factory.mktemp("house"), environment) as daemon:
        house = House(daemon)
        yield house
        house.close()


@pytest.fixture(scope="module")
def worthless(house: House) -> Worthless:
    """Credentials that say nothing, or nothing any more."""
    gone = Person(f"gone-{secrets.token_hex(4)}", secrets.token_urlsafe())
    house.register(gone)
    house.sign_in(gone)
    left = house.api(
        "POST", "/auth/login", None, {"username": gone.name, "password": gone.password}
    )
    assert house.ask("POST", "/api/v1/auth/logout", f"Bearer {left['access_token']}").status == 200
    revoked = house.api("POST", "/user/tokens", gone, {"name": "r", "scopes": ["admin"]})
    house.api("DELETE", f"/user/tokens/{revoked['id']}", gone)
    registry = house.registry_token(basic(gone.name, gone.tokens["admin"]), "")
    house.api("PATCH", f"/users/{gone.id}", house.admin, {"is_active": False})
    admin = house.api(
        "POST", "/auth/login", None, {"username": "admin", "password": house.admin.password}
    )
    return {
        "none": None,
        "empty": "",
        "a wrong password": basic("admin", "wrong"),
        "an unknown name": basic("nobody", house.admin.password),
        "no base64": "Basic ????",
        "an unknown scheme": f"Digest {house.admin.access}",
        "no JWT": "Bearer x.y.z",
        "a token of nobody": f"Bearer pat_v1_{'0' * 64}",
        "somebody else's token as Basic": basic("admin", house.people["guest"].tokens["admin"]),
        "a session that was left": f"Bearer {left['access_token']}",
        "a revoked token": f"Bearer {revoked['token']}",
        "a refresh token": f"Bearer {admin['refresh_token']}",
        "an expired session": f"Bearer {_expired(house, admin['access_token'])}",
        "a disabled user's session": f"Bearer {gone.access}",
        "a disabled user's token": f"Bearer {gone.tokens['admin']}",
        "a disabled user's registry token": f"Bearer {registry}",
        "a token with another's signature": f"Bearer {house.admin.access[:-4]}AAAA",
    }


def _expired(house: House, token: str) -> str:
    """Return a token as it was signed two hours ago, with the daemon's own key."""
    key = (house.daemon.state / "token-key").read_text().strip()
    claims = jwt.decode(token, options={"verify_signature": False})
    claims |= {name: claims[name] - 7200 for name in ("iat", "nbf", "exp")}
    return jwt.encode(claims, key, "HS256")


def send(house: House, row: Row, authorization: str | None) -> int:
    """Send a row's request with a credential; return the status."""
    body = BODIES.get(row.request)
    if row.request == "POST /api/v1/projects":
        body = {"name": f"p-{secrets.token_hex(4)}"}
    if row.request == "POST /api/v1/webhooks":
        body = house.webhook(house.project)
    return house.ask(row.method, fill(house, row.path), authorization, body).status


def fill(house: House, path: str) -> str:
    """Put things of the house into a path."""
    makers: Mapping[str, Callable[[], str]] = {
        "user": lambda: house.people["guest"].id,
        "project": lambda: house.project,
        "fresh_project": house.new_project,
        "fresh_member": house.new_member,
        "webhook": lambda: house.hook,
        "fresh_webhook": lambda: house.new_webhook(house.new_project()),
        "fresh_tag": lambda: house.new_tag(REPOSITORY),
        "repository": lambda: REPOSITORY,
        "digest": lambda: str(Digest.of(image(LAYER))),
        "blob": lambda: str(Digest.of(LAYER)),
        "no_blob": lambda: str(Digest.of(b"nothing")),
        "nothing": lambda: "5f3b7a52-0000-4000-8000-000000000000",
    }
    return re.sub(r"\{(\w+)\}", lambda match: makers[match[1]](), path)


@every_row
def test_every_role_and_scope_gets_what_the_table_says(house: House, row: Row) -> None:
    """Sessions and personal access tokens, as Bearer and as Basic, decide alike."""
    wrong = []
    for role in ROLES:
        person = house.people[role]
        for scope, token in {"session": person.access, **person.tokens}.items():
            expected = row.expected(role, "admin" if scope == "session" else scope)
            for transport, authorization in transports(person.name, token).items():
                got = send(house, row, authorization)
                if got != expected:
                    wrong.append(f"{role}, {scope} by {transport}: {got}, not {expected}")

    assert [] == wrong


@every_v2_row
def test_a_registry_token_reaches_no_further_than_who_asked_for_it(house: House, row: Row) -> None:
    """A token of the token server may what its owner's credential may, and 401 tells the rest."""
    wrong = []
    for role in ROLES:
        person = house.people[role]
        for scope, credential in _credentials(person).items():
            token = house.registry_token(credential, f"repository:{REPOSITORY}:pull,push,delete")
            expected = row.expected(role, "admin" if scope in ("password", "session") else scope)
            expected = 401 if expected == 403 or row.who[ROLES.index(role)] == "-" else expected
            got = send(house, row, f"Bearer {token}")
            if got != expected:
                wrong.append(f"{role}, token for {scope}: {got}, not {expected}")

    assert [] == wrong


def _credentials(person: Person) -> dict[str, str]:
    tokens = {"session": person.access, **person.tokens}
    basics = {scope: basic(person.name, token) for scope, token in tokens.items()}
    return basics | {"password": basic(person.name, person.password)}


@every_v2_row
def test_a_password_is_good_for_the_oci_api(house: House, row: Row) -> None:
    """HTTP Basic with a password does there what the table says."""
    got = [send(house, row, house.password(house.people[role])) for role in ROLES]

    assert [row.expected(role) for role in ROLES] == got


@every_row
def test_what_is_no_credential_gets_nothing(house: House, row: Row, worthless: Worthless) -> None:
    """Absent, wrong, malformed, expired, revoked and foreign ones: 401 on every route."""
    got = {name: send(house, row, value) for name, value in worthless.items()}
    if row.path.startswith("/api/"):
        got["password"] = send(house, row, house.password(house.admin))
        registry = house.registry_token(
            house.password(house.admin), f"repository:{REPOSITORY}:pull"
        )
        got["registry token"] = send(house, row, f"Bearer {registry}")

    assert dict.fromkeys(got, 401) == got


@every_project_row
def test_a_token_for_another_project_is_a_stranger_here(house: House, row: Row) -> None:
    """To a token restricted to one project no other private one exists."""
    elsewhere = house.new_project()
    token = house.new_token(house.people["owner"], "admin", project_ids=[elsewhere])

    assert 404 == send(house, row, f"Bearer {token}")


@pytest.mark.parametrize(
    "row",
    [
        it
        for it in rows(API)
        if not re.search("{(fresh_)?project}|{repository}|/webhooks|/scans", it.path)
    ],
    ids=lambda row: row.request,
)
def test_a_token_bound_to_a_project_reaches_no_account(house: House, row: Row) -> None:
    """However wide its scope: it makes no other token, changes no account, administers nothing."""
    admin = house.people["admin"]
    token = house.new_token(admin, "admin", project_ids=[house.project])

    assert (200 if row.scope == "read" else 403) == send(house, row, f"Bearer {token}")


def test_everybody_with_a_session_may_leave(house: House) -> None:
    """Logout ends the session it is asked with; what came by no session has none to end."""
    person = house.people["guest"]
    document = {"username": person.name, "password": person.password}
    session = f"Bearer {house.api('POST', '/auth/login', None, document)['access_token']}"

    assert 409 == house.ask(*_LOGOUT, f"Bearer {person.tokens['read']}").status
    assert [200, 401] == [house.ask(*_LOGOUT, session).status for _ in range(2)]


def test_metrics_are_for_nobody_who_has_an_account(house: House) -> None:
    """Where clients come in there are none, whoever asks, by whatever means."""
    people = house.people.values()
    shown = [it for each in people for it in (f"Bearer {each.access}", house.password(each))]

    assert {404} == {house.ask("GET", "/metrics", it).status for it in (None, *shown)}


def test_the_tables_know_every_route(house: House) -> None:
    """A route that is neither in the tables nor open to everybody is a failure."""
    document = json.loads(house.ask("GET", "/api/v1/openapi.json").body)
    # Leaving ends the session that asks, so it is walked by itself below.
    known = {(row.method, _shape(row.path)) for row in rows(API)} | {_LOGOUT}
    served = {
        (method.upper(), _shape(path))
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if operation.get("security") != []
    }

    assert set() == served - known


def _shape(path: str) -> str:
    return re.sub(r"\{\w+\}", "{}", path.partition("?")[0])
