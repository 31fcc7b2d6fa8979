"""Default deny: every endpoint, for everyone, from one table."""

import pytest

from cypd.metadata.memory import MemoryMetadata
from cypd.oci.digest import Digest
from cypd.oci.endpoints import Endpoint, parse
from cypd.registry.ports import Fatal, Unavailable
from cypd.storage.memory import MemoryStorage
from tests.samples import image
from tests.v2.conftest import Engines, Registry, build

DIGEST = Digest.of(image(b"layer"))
BLOB = Digest.of(b"layer")

# method, path below /v2/, the answer to nobody, to another user, to the administrator; in a
# private repository that holds an image.
TABLE = [
    ("GET", "", 401, 200, 200),
    ("HEAD", "", 401, 200, 200),
    ("GET", "auth", 200, 200, 200),
    ("POST", "auth", 400, 400, 400),
    ("GET", "_catalog", 401, 403, 200),
    ("GET", "private/app/tags/list", 401, 404, 200),
    ("GET", "private/app/manifests/latest", 401, 404, 200),
    ("HEAD", f"private/app/manifests/{DIGEST}", 401, 404, 200),
    ("GET", f"private/app/blobs/{BLOB}", 401, 404, 200),
    ("HEAD", f"private/app/blobs/{BLOB}", 401, 404, 200),
    ("GET", f"private/app/referrers/{DIGEST}", 401, 404, 200),
    ("PUT", "private/app/manifests/new", 401, 404, 400),
    ("POST", "private/app/blobs/uploads/", 401, 404, 202),
    ("GET", "private/app/blobs/uploads/x", 401, 404, 404),
    ("PATCH", "private/app/blobs/uploads/x", 401, 404, 404),
    ("PUT", "private/app/blobs/uploads/x", 401, 404, 404),
    ("DELETE", "private/app/blobs/uploads/x", 401, 404, 404),
    ("DELETE", "private/app/manifests/nothing", 401, 404, 404),
    ("DELETE", f"private/app/blobs/{Digest.of(b'nothing')}", 401, 404, 404),
]


@pytest.mark.parametrize(("method", "path", "nobody", "other", "admin"), TABLE)
async def test_everyone_gets_what_the_table_says(
    registry: Registry, method: str, path: str, nobody: int, other: int, admin: int
) -> None:
    """Nobody gets 401 with a challenge, or a token; others 404 or 403; the administrator all."""
    await registry.push_image(b"layer", repository="private/app")
    answers = [
        await client.request(method, f"/v2/{path}")
        for client in (registry.anonymous, registry.other, registry.admin)
    ]

    assert [nobody, other, admin] == [answer.status for answer in answers]
    assert ("www-authenticate" in answers[0].headers) == (nobody == 401)
    assert all(it.headers["docker-distribution-api-version"] == "registry/2.0" for it in answers)


def test_the_table_knows_every_endpoint(registry: Registry) -> None:
    """An endpoint without a line in the table above, or without a route, is a failure."""
    walked = {parse(method, f"/v2/{path}").endpoint for method, path, *_ in TABLE}

    assert set(Endpoint) == walked == set(registry.application.routes)


async def test_deleting_can_be_switched_off(engines: Engines) -> None:
    """With access.delete = false every delete is 405, and nothing is gone."""
    registry = build(*engines, delete_enabled=False)
    digest = await registry.push_image(b"layer")
    for path in ("manifests/latest", f"manifests/{digest}", f"blobs/{BLOB}"):
        refused = await registry.admin.request("DELETE", f"/v2/library/app/{path}")
        assert (405, "UNSUPPORTED") == (refused.status, refused.code)
    got = await registry.admin.request("GET", "/v2/library/app/manifests/latest")
    assert got.status == 200


@pytest.mark.parametrize(
    ("fault", "status"), [(Unavailable("full"), 503), (Fatal("EIO"), 500), (ValueError("x"), 500)]
)
async def test_our_faults_are_5xx_and_told(
    fault: Exception, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What can't be done now is 503 with Retry-After; a failed engine is 500 and the end."""
    registry = build(MemoryMetadata(), MemoryStorage())

    async def fail(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr(registry.metadata, "open_upload", fail)
    got = await registry.admin.request("POST", "/v2/library/app/blobs/uploads/")

    assert status == got.status
    assert ("retry-after" in got.headers) == (status == 503)
    assert [fault] * isinstance(fault, Fatal) == registry.fatal


async def test_a_query_of_bad_bytes_is_refused(registry: Registry) -> None:
    """A query that is no text is 400, never a fault of ours."""
    for query in ("?digest=%ff%fe", "?mount=%80"):
        got = await registry.admin.request("POST", f"/v2/library/app/blobs/uploads/{query}")
        assert got.status == 400


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "", ""),
        ("GET", "_catalog", ',scope="registry:catalog:*"'),
        ("GET", "a/b/manifests/latest", ',scope="repository:a/b:pull"'),
        ("POST", "a/b/blobs/uploads/", ',scope="repository:a/b:pull,push"'),
        ("DELETE", "a/b/manifests/latest", ',scope="repository:a/b:delete"'),
    ],
)
async def test_a_challenge_says_where_to_go_and_what_for(
    engines: Engines, method: str, path: str, scope: str
) -> None:
    """The realm is the configured address, else the connection's own; the scope is named."""
    for url, server, realm in (
        ("", "192.0.2.1", "http://192.0.2.1:5000"),
        ("", "::1", "http://[::1]:5000"),
        ("", "::ffff:192.0.2.1", "http://192.0.2.1:5000"),
        ("https://r.example.com", "192.0.2.1", "https://r.example.com"),
    ):
        registry = build(*engines, external_url=url)
        registry.anonymous.server = (server, 5000)
        headers = {"Host": "evil.example", "X-Forwarded-Host": "evil.example"}
        got = await registry.anonymous.request(method, f"/v2/{path}", headers=headers)

        expected = f'Bearer realm="{realm}/v2/auth",service="cypd"{scope}'
        assert (401, expected) == (got.status, got.headers["www-authenticate"])


@pytest.mark.parametrize(
    ("host", "realm"),
    [
        ("registry.example.com", "https://registry.example.com"),
        ("registry.example.com:5443", "https://registry.example.com:5443"),
        ("[2001:db8::1]:5443", "https://[2001:db8::1]:5443"),
        ('evil",service="x', "https://192.0.2.1:5000"),
        ("evil/path", "https://192.0.2.1:5000"),
        ("user@evil", "https://192.0.2.1:5000"),
    ],
)
async def test_a_challenge_by_tls_names_what_the_certificate_was_checked_for(
    engines: Engines, host: str, realm: str
) -> None:
    """By TLS the realm is https and the host that the client asked for, if it is a host at all."""
    registry = build(*engines)
    registry.anonymous.scheme = "https"
    got = await registry.anonymous.request("GET", "/v2/", headers={"Host": host})

    expected = f'Bearer realm="{realm}/v2/auth",service="cypd"'
    assert expected == got.headers["www-authenticate"]
