"""Repositories, tags and manifests, after real pushes and pulls."""

import json
from collections.abc import Iterator
from datetime import datetime
from http.client import HTTPMessage
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from cypd.oci.digest import Digest
from tests.access.house import LAYER, House, Person
from tests.daemon import Daemon, Response, basic
from tests.samples import EMPTY, descriptor, image

CONFIG = json.dumps({"os": "linux", "architecture": "arm", "variant": "v7"}).encode()
IMAGE = image(LAYER, config=CONFIG)
FULL_SIZE = len(IMAGE) + len(CONFIG) + len(LAYER)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A daemon with somebody in every role of the project ``secret``."""
    with Daemon(tmp_path_factory.mktemp("house"), {"CYPD_AUTH_REGISTRATION": "open"}) as daemon:
        house = House(daemon)
        yield house
        house.close()


@pytest.fixture
def project(house: House) -> str:
    """A new private project with everybody in their role; its name."""
    project_id = house.new_project()
    name: str = house.api("GET", f"/projects/{project_id}", house.admin)["name"]
    return name


def push(house: House, repository: str, *tags: str, manifest: bytes = IMAGE) -> Digest:
    """Push an image as the maintainer, who may delete it again."""
    who = house.password(house.people["maintainer"])
    for blob in (EMPTY, CONFIG, LAYER):
        path = f"/v2/{repository}/blobs/uploads/?digest={Digest.of(blob)}"
        assert house.ask("POST", path, who, blob).status == 201
    digest = Digest.of(manifest)
    for reference in (*tags, *([] if tags else [digest])):
        path = f"/v2/{repository}/manifests/{reference}"
        assert house.ask("PUT", path, who, manifest).status == 201
    return digest


def read(house: House, path: str, who: str = "guest") -> Any:
    """Return the data of an answer."""
    return house.api("GET", f"/repositories{path}", house.people[who])


def refused(house: House, path: str, who: str = "guest", method: str = "GET") -> tuple[int, int]:
    """Return status and code of a refusal."""
    access = f"Bearer {house.people[who].access}"
    answer = house.ask(method, f"/api/v1/repositories{path}", access)
    return answer.status, json.loads(answer.body)["code"]


def names(listed: Any, plural: str = "repositories") -> list[str]:
    """Return the names of a list."""
    return [it["name"] for it in listed[plural]]


def test_a_repository_is_listed_with_what_it_holds(house: House, project: str) -> None:
    """Counts, bytes and times are those of its pushes; an untouched one was never pulled."""
    push(house, f"{project}/app", "1.0", "latest")
    (found,) = read(house, f"?project={project}")["repositories"]

    assert found["name"] == f"{project}/app"
    assert (found["tag_count"], found["manifest_count"], found["push_count"]) == (2, 1, 2)
    assert found["size"] == FULL_SIZE + len(EMPTY)
    assert (found["pull_count"], found["last_pulled_at"]) == (0, None)
    assert datetime.fromisoformat(found["created_at"]) <= datetime.fromisoformat(
        found["updated_at"]
    )
    assert house.api("GET", f"/projects/{found['project_id']}", house.admin)["name"] == project


def test_everybody_sees_what_they_may_read(house: House, project: str) -> None:
    """A member theirs, a foreigner nothing of them, an administrator all, a bound token its own."""
    push(house, f"{project}/app")
    mine, theirs = f"{project}/app", "secret/app"

    assert {mine, theirs} <= set(names(read(house, "?page_size=100")))
    assert {mine, theirs} <= set(names(read(house, "?page_size=100", "admin")))
    assert [] == names(read(house, "?page_size=100", "foreigner"))
    project_id = read(house, f"?project={project}")["repositories"][0]["project_id"]
    token = house.new_token(house.people["guest"], "read", project_ids=[project_id])
    bound = house.ask("GET", "/api/v1/repositories", f"Bearer {token}")
    assert [mine] == names(json.loads(bound.body)["data"])


def test_lists_come_in_pages(house: House, project: str) -> None:
    """Sorted by name from either end; past the end nothing, and the total all the same."""
    for name in ("b", "a", "c/d"):
        push(house, f"{project}/{name}")
    every = [f"{project}/{name}" for name in ("a", "b", "c/d")]
    query = f"?project={project}"

    assert every[:2] == names(read(house, f"{query}&page_size=2"))
    assert every[2:] == names(read(house, f"{query}&page_size=2&page=2"))
    assert every[::-1] == names(read(house, f"{query}&sort=-name"))
    assert [every[2]] == names(read(house, f"{query}&keyword=C/D"))
    beyond = read(house, f"{query}&page=1000000")
    assert ([], 3, 1_000_000) == (beyond["repositories"], beyond["total"], beyond["page"])


def test_a_tag_is_listed_with_what_it_points_at(house: House, project: str) -> None:
    """Who pushed it and when, and the size and platform of the image."""
    digest = push(house, f"{project}/app", "v1")
    (tag,) = read(house, f"/{project}/app/tags")["tags"]
    pushed_at = datetime.fromisoformat(tag.pop("pushed_at"))

    assert pushed_at.tzinfo is not None
    assert tag == {
        "name": "v1",
        "digest": digest,
        "media_type": "application/vnd.oci.image.manifest.v1+json",
        "artifact_type": "application/vnd.oci.image.config.v1+json",
        "size": FULL_SIZE,
        "platforms": ["linux/arm/v7"],
        "pushed_by": "the-maintainer",
        "last_pulled_at": None,
        "pull_count": 0,
        "scan_status": None,
    }


def test_an_index_has_the_platforms_of_its_images(house: House, project: str) -> None:
    """Its size is with all images that it lists; what BuildKit attests is no platform."""
    child = push(house, f"{project}/app")
    platforms = [{"os": "linux", "architecture": it} for it in ("arm64", "amd64")]
    platforms.append({"os": "unknown", "architecture": "unknown"})
    media_type = "application/vnd.oci.image.index.v1+json"
    children = [descriptor(IMAGE, "application/vnd.oci.image.manifest.v1+json")] * 3
    document = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "manifests": [
            it | {"platform": platform} for it, platform in zip(children, platforms, strict=True)
        ],
    }
    index = json.dumps(document).encode()
    digest = push(house, f"{project}/app", "all", manifest=index)
    (tag,) = read(house, f"/{project}/app/tags")["tags"]
    listed = {it["digest"]: it for it in read(house, f"/{project}/app/manifests")["manifests"]}

    assert ["linux/amd64", "linux/arm64"] == tag["platforms"]
    assert len(index) + FULL_SIZE == tag["size"] == listed[digest]["size"]
    assert (None, "linux/arm/v7") == (listed[digest]["platform"], listed[child]["platform"])


def test_tags_are_sorted_by_name_or_push(house: House, project: str) -> None:
    """A tag that is pushed again is the newest; a keyword is found in any case."""
    push(house, f"{project}/app", "b", "C", "a", "b")

    def listed(query: str) -> list[str]:
        return names(read(house, f"/{project}/app/tags{query}"), "tags")

    assert ["C", "a", "b"] == listed("")
    assert ["b", "a", "C"] == listed("?sort=-name")
    assert ["C", "a", "b"] == listed("?sort=pushed_at")
    assert ["b", "a"] == listed("?sort=-pushed_at&page_size=2")
    assert ["C"] == listed("?keyword=c") == listed("?keyword=c&sort=pushed_at")
    assert [] == listed("?keyword=%00") == listed("?keyword=!") == listed("?keyword=%C3%A9")


def test_manifests_are_listed_with_tags_and_referrers(house: House, project: str) -> None:
    """By digest, those without a tag too, and a subject knows how many refer to it."""
    subject = push(house, f"{project}/app", "b", "a")
    referrer = image(config=EMPTY, subject=subject, artifact_type="application/x.note")
    push(house, f"{project}/app", manifest=referrer)
    listed = read(house, f"/{project}/app/manifests")["manifests"]
    found = {it["digest"]: it for it in listed}

    assert sorted(found) == [it["digest"] for it in listed]
    assert (["a", "b"], 1, None) == tuple(
        found[subject][field] for field in ("tags", "referrer_count", "subject")
    )
    other = found[Digest.of(referrer)]
    assert ([], 0, subject) == (other["tags"], other["referrer_count"], other["subject"])
    assert other["artifact_type"] == "application/x.note"


def test_a_tag_is_deleted_alone(house: House, project: str) -> None:
    """The manifest stays, and what is not there can't be deleted."""
    digest = push(house, f"{project}/app", "v1", "v2")
    path = f"/{project}/app/tags/v1"
    maintainer = house.people["maintainer"]

    house.api("DELETE", f"/repositories{path}", maintainer)
    assert ["v2"] == names(read(house, f"/{project}/app/tags"), "tags")
    assert [digest] == [
        it["digest"] for it in read(house, f"/{project}/app/manifests")["manifests"]
    ]
    assert (404, 20007) == refused(house, path, "maintainer", "DELETE")
    assert (400, 10004) == refused(house, f"/{project}/app/tags/-", "maintainer", "DELETE")
    assert (403, 30004) == refused(house, f"/{project}/app/tags/v2", "developer", "DELETE")


def test_deleting_can_be_switched_off(tmp_path: Path) -> None:
    """With access.delete = false a tag stays, as it does in the OCI API."""
    settings = {"CYPD_AUTH_REGISTRATION": "open", "CYPD_ACCESS_DELETE": "false"}
    with Daemon(tmp_path, settings) as daemon:
        house = House(daemon)
        path = "/secret/app/tags/latest"

        assert (409, 20011) == refused(house, path, "admin", "DELETE")
        assert ["latest"] == names(read(house, "/secret/app/tags"), "tags")
        house.close()


@pytest.mark.parametrize("tail", ["/tags", "/manifests", "/tags/v1"])
def test_absent_and_private_look_the_same(house: House, project: str, tail: str) -> None:
    """Repositories that are not there and those that one may not read: the same bytes."""
    push(house, f"{project}/app", "v1")
    method = "DELETE" if tail == "/tags/v1" else "GET"

    def answer(repository: str, who: str) -> tuple[int, int]:
        return refused(house, f"/{repository}{tail}", who, method)

    assert (404, 20005) == answer(f"{project}/app", "foreigner")
    assert (404, 20005) == answer(f"{project}/none", "foreigner")
    assert (404, 20005) == answer(f"{project}/none", "owner")
    assert (404, 20005) == answer("nothing/none", "owner")
    assert (404, 20003) == refused(house, f"?project={project}", "foreigner")
    assert (404, 20003) == refused(house, "?project=nothing", "foreigner")


@pytest.mark.parametrize("name", ["app", "tags", "a/tags", "tags/tags", "manifests", "a/tags/b"])
def test_a_repository_may_have_any_name(house: House, project: str, name: str) -> None:
    """Its path is taken as it is or encoded, and the last of the route's words is the route's."""
    repository = f"{project}/{name}"
    push(house, repository, "tags", "v1")
    for written in (repository, quote(repository, safe=""), quote(repository, safe="").lower()):
        assert ["tags", "v1"] == names(read(house, f"/{written}/tags"), "tags")
        assert 1 == read(house, f"/{written}/manifests")["total"]
    house.api("DELETE", f"/repositories/{repository}/tags/tags", house.people["maintainer"])

    assert ["v1"] == names(read(house, f"/{repository}/tags"), "tags")


@pytest.mark.parametrize(
    "path", ["a%252Fb/tags", "A/b/tags", "a//b/tags", "%2Fa/tags", "a%00b/tags", "../a/manifests"]
)
def test_what_is_no_name_is_refused(house: House, path: str) -> None:
    """Nothing is decoded twice, and the field is named."""
    access = f"Bearer {house.admin.access}"
    answer = house.ask("GET", f"/api/v1/repositories/{path}", access)

    assert answer.status == 400
    assert "repository" == json.loads(answer.body)["data"]["errors"][0]["field"]


def test_pulls_are_counted_and_kept(house: House, project: str) -> None:
    """By tag, by digest, and those that are answered 304; not HEAD. A restart loses none."""
    digest = push(house, f"{project}/app", "v1", "v2")
    guest = house.people["guest"]
    base = f"/v2/{project}/app/manifests"
    for method, reference in (("GET", "v1"), ("HEAD", "v1"), ("GET", digest), ("HEAD", digest)):
        assert house.ask(method, f"{base}/{reference}", house.password(guest)).status == 200
    assert 304 == known(house, f"{base}/v1", digest, guest).status
    house.close()
    house.daemon.stop()
    house.daemon.start()
    counts = {it["name"]: it for it in read(house, f"/{project}/app/tags")["tags"]}
    (repository,) = read(house, f"?project={project}")["repositories"]

    assert (2, 0) == (counts["v1"]["pull_count"], counts["v2"]["pull_count"])
    assert (3, True) == (repository["pull_count"], repository["last_pulled_at"] is not None)
    assert (True, True) == (
        counts["v1"]["last_pulled_at"] is not None,
        counts["v2"]["last_pulled_at"] is None,
    )


def known(house: House, path: str, digest: str, person: Person) -> Response:
    """Ask for a manifest that one has."""
    answer = house.daemon.request(
        "GET",
        path,
        headers={
            "Authorization": basic(person.name, person.password),
            "If-None-Match": f'"{digest}"',
        },
    )
    assert isinstance(answer.headers, HTTPMessage)
    return answer
