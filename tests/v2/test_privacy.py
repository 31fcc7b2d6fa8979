"""What one may not read does not exist: the same answers for a private project and for none."""

import pytest

from cypd.access import Principal
from cypd.oci.digest import Digest
from cypd.projects.access import ProjectAccess
from cypd.projects.ports import Changes, Member, Role
from tests.samples import ACT, image
from tests.v2.client import Client, Response
from tests.v2.conftest import Engines, Registry, build

BLOB = Digest.of(b"layer")
MANIFEST = Digest.of(image(b"layer"))
READS = ["tags/list", "manifests/latest", f"manifests/{MANIFEST}", f"blobs/{BLOB}",
         f"referrers/{MANIFEST}", "manifests/nothing"]  # fmt: skip
DELETES = ["manifests/latest", f"manifests/{MANIFEST}", f"blobs/{BLOB}"]


@pytest.fixture
def registry(engines: Engines) -> Registry:
    """A registry with the rights of projects, where ``admin`` is just a user."""
    access = ProjectAccess(
        engines[0].projects, anonymous="public", auto_create=True, default_quota=1 << 30
    )

    def allows(principal: Principal, *of: object) -> bool:
        return access.allows(principal._replace(is_admin=False), *of)  # type: ignore[arg-type]

    return build(*engines, allows=allows)


async def same(client: Client, method: str, path: str) -> Response:
    """Ask of a private project and of none; assert that the answers are the same to the byte."""
    there, nowhere = [
        await client.request(method, f"/v2/{project}/app/{path}")
        for project in ("secretaa", "nowherea")
    ]
    hidden = there.body.replace(b"secretaa", b"nowherea"), there.headers.items()
    headers = {key: it.replace("secretaa", "nowherea") for key, it in hidden[1]}
    assert (there.status, hidden[0], headers) == (nowhere.status, nowhere.body, nowhere.headers)
    return there


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", READS)
async def test_private_and_absent_read_the_same(registry: Registry, method: str, path: str) -> None:
    """404 to others, 401 to nobody, whatever is asked for."""
    await registry.push_image(b"layer", repository="secretaa/app")

    assert (await same(registry.other, method, path)).status == 404
    assert (await same(registry.anonymous, method, path)).status == 401


@pytest.mark.parametrize("path", DELETES)
async def test_private_and_absent_are_deleted_from_the_same(registry: Registry, path: str) -> None:
    """404 to others, 401 to nobody, and nothing is gone."""
    await registry.push_image(b"layer", repository="secretaa/app")

    assert (await same(registry.other, "DELETE", path)).status == 404
    assert (await same(registry.anonymous, "DELETE", path)).status == 401
    got = await registry.admin.request("GET", f"/v2/secretaa/app/{path}")
    assert got.status == 200


async def test_a_private_source_mounts_as_an_absent_one(registry: Registry) -> None:
    """A session to push by, and not a header of difference."""
    await registry.push(b"layer", "secretaa/app")
    answers = []
    for source in ("&from=secretaa/app", "&from=nowherea/app", ""):
        url = f"/v2/mine/app/blobs/uploads/?mount={BLOB}{source}"
        answer = await registry.other.request("POST", url)
        assert answer.status == 202
        session = answer.headers["docker-upload-uuid"]
        answers.append(str(answer.headers).replace(session, "session"))

    assert len(set(answers)) == 1
    assert (await registry.other.request("GET", f"/v2/mine/app/blobs/{BLOB}")).status == 404


async def test_the_catalog_keeps_private_names(registry: Registry) -> None:
    """Each sees the public ones and their own; nobody the public ones alone."""
    for repository in ("secretaa/app", "open/app"):
        await registry.push(b"x", repository)
    theirs = f"/v2/theirs/app/blobs/uploads/?digest={Digest.of(b'x')}"
    assert (await registry.other.request("POST", theirs, b"x")).status == 201
    await publish(registry, "open")

    for client, expected in (
        (registry.admin, ["open/app", "secretaa/app"]),
        (registry.other, ["open/app", "theirs/app"]),
        (registry.anonymous, ["open/app"]),
    ):
        page = await client.request("GET", "/v2/_catalog?n=5")
        assert page.json() == {"repositories": expected}


async def publish(registry: Registry, name: str) -> str:
    """Make a project public and return its id."""
    standing = registry.projects.standing(name, "")
    assert standing is not None
    await registry.projects.change_project(
        standing.project.id, Changes(updated_at=1.0, is_public=True)
    )
    return standing.project.id


async def test_rights_change_at_the_next_request(registry: Registry) -> None:
    """A member pulls and pushes as the role says, from the moment it says so to the last."""
    await registry.push_image(b"layer", repository="secretaa/app")
    standing = registry.projects.standing("secretaa", "")
    assert standing is not None
    project, who = standing.project.id, "id of other"

    async def statuses() -> list[int]:
        pull = await registry.other.request("GET", f"/v2/secretaa/app/blobs/{BLOB}")
        push = await registry.other.request("POST", "/v2/secretaa/app/blobs/uploads/")
        delete = await registry.other.request("DELETE", "/v2/secretaa/app/manifests/none")
        return [pull.status, push.status, delete.status]

    assert await statuses() == [404, 404, 404]
    await registry.projects.add_member(project, Member(who, Role.GUEST, 1.0), act=ACT)
    assert await statuses() == [200, 403, 403]
    await registry.projects.set_role(project, who, Role.DEVELOPER, act=ACT)
    assert await statuses() == [200, 202, 403]
    await registry.projects.set_role(project, who, Role.MAINTAINER, act=ACT)
    assert await statuses() == [200, 202, 404]
    await registry.projects.remove_member(project, who, act=ACT)
    assert await statuses() == [404, 404, 404]
    await publish(registry, "secretaa")
    assert await statuses() == [200, 403, 403]
    assert (await registry.anonymous.request("GET", f"/v2/secretaa/app/blobs/{BLOB}")).status == 200


async def test_an_upload_is_lost_with_the_role(registry: Registry) -> None:
    """Whoever may push no longer does not finish what they began either."""
    await registry.push(b"x", "secretaa/app")
    standing = registry.projects.standing("secretaa", "")
    assert standing is not None
    project = standing.project.id
    await registry.projects.add_member(project, Member("id of other", Role.DEVELOPER, 1.0), act=ACT)
    start = await registry.other.request("POST", "/v2/secretaa/app/blobs/uploads/")
    await registry.projects.remove_member(project, "id of other", act=ACT)
    url = f"{start.headers['location']}?digest={BLOB}"

    assert (await registry.other.request("PUT", url, b"layer")).status == 404
    got = await registry.admin.request("GET", f"/v2/secretaa/app/blobs/{BLOB}")
    assert got.status == 404
