"""The token server: what a token is good for, by GET and by OAuth2, and how clients learn of it."""

import base64
import json
from urllib.parse import urlencode

import pytest

from cypd.oci.digest import Digest
from tests.v2.client import Response
from tests.v2.conftest import Registry, bearer

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def contents(response: Response) -> tuple[str, dict[str, list[str]]]:
    """Return whose a token is, and what it is good for."""
    document = response.json()
    assert (200, "no-store") == (response.status, response.headers["cache-control"])
    assert document["token"] == document["access_token"]
    assert (900, "Bearer") == (document["expires_in"], document["token_type"])
    token = json.loads(base64.b64decode(document["token"]))
    return token["name"], dict(token["grants"])


async def exchange(
    registry: Registry, form: dict[str, str], scopes: tuple[str, ...] = ()
) -> Response:
    """Ask for a token by OAuth2."""
    pairs = [*form.items(), *(("scope", scope) for scope in scopes)]
    return await registry.anonymous.request("POST", "/v2/auth", urlencode(pairs).encode(), FORM)


@pytest.mark.parametrize(
    ("scopes", "granted"),
    [
        ([], {}),
        (["repository:library/app:pull"], {"library/app": ["pull"]}),
        (["repository:library/app:pull,push,delete"], {"library/app": ["pull"]}),
        (["repository:other/app:pull,push"], {"other/app": ["pull", "push"]}),
        (["repository:other/app:*"], {"other/app": ["delete", "pull", "push"]}),
        (["repository:other/app:push repository:library/b:pull"],
         {"other/app": ["push"], "library/b": ["pull"]}),
        (["repository:other/app:pull", "repository:other/app:push"],
         {"other/app": ["pull", "push"]}),
        (["registry:catalog:*"], {"*": ["*"]}),
        (["repository:private/app:pull,push"], {}),
        (["repository:absent/app:pull"], {}),
        (["repository:library/app:fly"], {}),
        (["repository:UPPER:pull", "repository::pull", "repository:pull", "repository"], {}),
        (["plugin:library/app:pull", "x", ":::", ""], {}),
    ],
)  # fmt: skip
async def test_a_token_is_for_what_is_asked_and_allowed(
    registry: Registry, scopes: list[str], granted: dict[str, list[str]]
) -> None:
    """What one may not do, and what is no scope, is left out; it is no error."""
    query = urlencode([("service", "cypd"), *(("scope", scope) for scope in scopes)])
    got = await registry.other.request("GET", f"/v2/auth?{query}")

    assert ("other", granted) == contents(got)


async def test_nobody_gets_a_token_for_what_is_open_to_all(registry: Registry) -> None:
    """docker pulls anonymously in no other way."""
    scope = "scope=repository:library/app:pull,push"
    got = await registry.anonymous.request("GET", f"/v2/auth?{scope}")

    assert ("", {"library/app": ["pull"]}) == contents(got)


async def test_more_than_a_hundred_scopes_are_refused(registry: Registry) -> None:
    """No request makes the registry look up rights without end."""
    query = urlencode({"scope": " ".join(["repository:library/app:pull"] * 101)})
    got = await registry.other.request("GET", f"/v2/auth?{query}")

    assert 400 == got.status


async def test_a_password_buys_a_token_by_oauth(registry: Registry) -> None:
    """With ``access_type=offline`` a refresh token comes with it, which buys more of them."""
    form = {"grant_type": "password", "username": "other", "password": "x", "service": "cypd"}
    once = await exchange(registry, form, ("repository:other/app:push",))
    offline = await exchange(registry, form | {"access_type": "offline"})
    refresh = offline.json()["refresh_token"]
    more = await exchange(
        registry,
        {"grant_type": "refresh_token", "refresh_token": refresh},
        ("repository:other/app:pull",),
    )

    assert ("other", {"other/app": ["push"]}) == contents(once)
    assert "refresh_token" not in once.json()
    assert ("other", {}) == contents(offline)
    assert ("other", {"other/app": ["pull"]}) == contents(more)
    assert refresh == more.json()["refresh_token"]


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({}, 400),
        ({"grant_type": "client_credentials"}, 400),
        ({"grant_type": "password", "username": "other"}, 400),
        ({"grant_type": "refresh_token"}, 400),
        ({"grant_type": "refresh_token", "refresh_token": "nonsense"}, 401),
        ({"grant_type": "password", "username": "other", "password": "x" * 20_000}, 413),
    ],
)
async def test_a_form_that_is_none_buys_nothing(
    registry: Registry, form: dict[str, str], status: int
) -> None:
    """Each field has to be there once, in a form of a sensible size."""
    got = await exchange(registry, form)

    assert status == got.status
    assert "token" not in got.json()


async def test_two_passwords_are_none(registry: Registry) -> None:
    """Of a field that is there twice neither counts."""
    body = b"grant_type=password&username=other&password=x&password=y"
    got = await registry.anonymous.request("POST", "/v2/auth", body, FORM)

    assert 400 == got.status


async def test_a_token_for_too_little_is_told_for_what_to_ask(registry: Registry) -> None:
    """401 with the scope that is needed, for what is private and for what is absent alike."""
    await registry.push_image(b"layer", repository="private/app")
    token = {"Authorization": bearer("other", {"other/app": ["pull"]})}
    answers = [
        await registry.anonymous.request("GET", f"/v2/{name}/manifests/latest", headers=token)
        for name in ("private/app", "absents/app")
    ]

    assert [401, 401] == [answer.status for answer in answers]
    for answer, name in zip(answers, ("private/app", "absents/app"), strict=True):
        scope = f'scope="repository:{name}:pull",error="insufficient_scope"'
        assert answer.headers["www-authenticate"].endswith(scope)
    assert answers[0].body == answers[1].body


async def test_a_push_outlives_its_token(registry: Registry) -> None:
    """Who opened an upload finishes it with the token that is over; nobody else does anything."""
    grants = {"other/app": ["pull", "push"]}
    in_time = {"Authorization": bearer("other", grants)}
    late = {"Authorization": bearer("other", grants, over=True)}
    stranger = {"Authorization": bearer("another", grants, over=True)}
    ask = registry.anonymous.request
    location = (await ask("POST", "/v2/other/app/blobs/uploads/", headers=in_time)).headers[
        "location"
    ]
    digest = Digest.of(b"content")

    assert 401 == (await ask("PATCH", location, b"content", stranger)).status
    assert 202 == (await ask("PATCH", location, b"content", late)).status
    assert 204 == (await ask("GET", location, headers=late)).status
    assert 201 == (await ask("PUT", f"{location}?digest={digest}", headers=late)).status
    refused = [
        await ask("POST", "/v2/other/app/blobs/uploads/", headers=late),
        await ask("GET", f"/v2/other/app/blobs/{digest}", headers=late),
        await ask("PATCH", location, b"", late),
    ]
    assert [401, 401, 404] == [answer.status for answer in refused]


@pytest.mark.parametrize("source", ["", "&from={project}/app"])
async def test_a_mount_by_a_token_for_the_target_stays_in_the_project(
    registry: Registry, source: str
) -> None:
    """A token to push to one repository finds blobs of its project, and none of another."""
    blob = Digest.of(b"layer")
    token = {"Authorization": bearer("other", {"other/new": ["pull", "push"]})}
    mount = f"/v2/other/new/blobs/uploads/?mount={blob}{source}"
    await registry.push(b"layer", "library/app")
    foreign = mount.format(project="library")
    outside = await registry.anonymous.request("POST", foreign, headers=token)
    await registry.push(b"layer", "other/app")
    own = mount.format(project="other")
    inside = await registry.anonymous.request("POST", own, headers=token)

    assert [202, 201] == [outside.status, inside.status]
