"""Rules of tags by the product's own API, and what they do to pushes and deletes of clients."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.access.house import LAYER, House
from tests.daemon import Daemon, Response
from tests.samples import image

OTHER = image(LAYER, note="other")
NONE: dict[str, Any] = {"immutable": [], "retention": []}
RULE = {
    "repositories": "a*",
    "tags": "*",
    "keep_last": 1,
    "keep_days": None,
    "keep_pulled_days": None,
}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A daemon with somebody in every role."""
    with Daemon(tmp_path_factory.mktemp("house"), {"CYPD_AUTH_REGISTRATION": "open"}) as daemon:
        house = House(daemon)
        yield house
        house.close()


class Project:
    """A new project with an image ``app:v1``."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.id = house.new_project()
        self.name = house.api("GET", f"/projects/{self.id}", house.admin)["name"]
        self.repository = f"{self.name}/app"
        self.digest = house.push(self.repository, "v1")

    def rules(self, method: str, body: Any = None, path: str = "") -> Any:
        """Read, set or try rules as the maintainer."""
        maintainer = self.house.people["maintainer"]
        return self.house.api(method, f"/projects/{self.id}/tag-rules{path}", maintainer, body)

    def refused(self, body: Any) -> tuple[int, str]:
        """Return code and field of the refusal of rules, which is the same for a dry run."""
        access = f"Bearer {self.house.people['maintainer'].access}"
        path = f"/api/v1/projects/{self.id}/tag-rules"
        found = [
            json.loads(self.house.ask(method, url, access, body).body)
            for method, url in (("PUT", path), ("POST", f"{path}/dry-run"))
        ]
        answers = [(it["code"], it["data"]["errors"][0]["field"]) for it in found]
        assert answers[0] == answers[1]
        code, field = answers[0]
        return code, field

    def v2(self, method: str, reference: str, body: bytes | None = None) -> Response:
        """Send a request about a manifest as the administrator."""
        path = f"/v2/{self.repository}/manifests/{reference}"
        return self.house.ask(method, path, self.house.password(self.house.admin), body)


@pytest.fixture
def project(house: House) -> Project:
    """A project of this test alone."""
    return Project(house)


def test_rules_are_replaced_as_a_whole(project: Project) -> None:
    """A project has none at first; what was left away of a rule is read with its default."""
    assert NONE == project.rules("GET")
    rules = {"immutable": ["v*", "release-?"], "retention": [RULE]}
    given = {**rules, "retention": [{"repositories": "a*", "keep_last": 1}]}

    assert rules == project.rules("PUT", given)
    assert rules == project.rules("GET")
    assert NONE == project.rules("PUT", NONE)
    assert NONE == project.rules("GET")


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"immutable": [""]}, 10004, "immutable[0]"),
        ({"immutable": ["x" * 129]}, 10004, "immutable[0]"),
        ({"immutable": ["x"] * 21}, 10004, "immutable"),
        ({"immutable": [1]}, 10003, "immutable[0]"),
        ({"retention": [RULE] * 21}, 10004, "retention"),
        ({"retention": [{}]}, 10004, "retention[0]"),
        ({"retention": [RULE, {"tags": "v*"}]}, 10004, "retention[1]"),
        ({"retention": [{"keep_last": 0}]}, 10004, "retention[0].keep_last"),
        ({"retention": [{"keep_days": 1.5}]}, 10003, "retention[0].keep_days"),
        ({"retention": [{"keep_pulled_days": -1}]}, 10004, "retention[0].keep_pulled_days"),
        ({"retention": [RULE | {"repositories": ""}]}, 10004, "retention[0].repositories"),
        ({"retention": [RULE | {"keep": 1}]}, 10001, "retention[0].keep"),
        ({"more": 1}, 10001, "more"),
    ],
)
def test_what_is_no_rule_is_named(project: Project, change: Any, code: int, field: str) -> None:
    """And nothing changes."""
    assert (code, field) == project.refused(NONE | change)
    assert NONE == project.rules("GET")


@pytest.mark.parametrize("missing", NONE)
def test_both_parts_are_given(project: Project, missing: str) -> None:
    """To leave one away would lift the rules that it has."""
    given = {name: it for name, it in NONE.items() if name != missing}

    assert (10002, missing) == project.refused(given)


def test_a_client_can_neither_move_nor_delete_an_immutable_tag(project: Project) -> None:
    """409 DENIED with the tag, even to an administrator; the same digest again is fine."""
    project.rules("PUT", NONE | {"immutable": ["v?"]})
    refused = [
        project.v2("PUT", "v1", OTHER),
        project.v2("PUT", "latest?tag=v1", OTHER),
        project.v2("DELETE", "v1"),
        project.v2("DELETE", project.digest),
    ]
    error = {
        "code": "DENIED",
        "message": "the tag is immutable in this project",
        "detail": {"tag": "v1"},
    }

    assert [(409, {"errors": [error]})] * 4 == [(it.status, json.loads(it.body)) for it in refused]
    assert 201 == project.v2("PUT", "v1", image(LAYER)).status
    assert image(LAYER) == project.v2("GET", "v1").body
    assert [201, 201] == [project.v2("PUT", "latest", it).status for it in (image(LAYER), OTHER)]


def test_the_api_does_not_delete_an_immutable_tag(project: Project) -> None:
    """409, as for all that is not allowed in this state; without the rule it does."""
    house, path = project.house, f"/api/v1/repositories/{project.repository}/tags/v1"
    access = f"Bearer {house.admin.access}"
    project.rules("PUT", NONE | {"immutable": ["*"]})
    answer = house.ask("DELETE", path, access)
    assert (409, 20011) == (answer.status, json.loads(answer.body)["code"])
    project.rules("PUT", NONE)

    assert 200 == house.ask("DELETE", path, access).status


def test_a_project_with_immutable_tags_can_be_ended(project: Project) -> None:
    """With force, as any other that holds images."""
    project.rules("PUT", NONE | {"immutable": ["*"]})
    project.house.api("DELETE", f"/projects/{project.id}?force=true", project.house.people["owner"])

    assert 404 == project.v2("GET", "v1").status


def test_a_dry_run_shows_what_would_go(project: Project) -> None:
    """Each tag with its times and the reason, and nothing changes."""
    project.v2("PUT", "v2", OTHER)
    found = project.rules("POST", NONE | {"retention": [RULE]}, "/dry-run")
    (tag,) = found["tags"]

    assert (1, 1) == (found["total"], found["kept"])
    reason = "rule 1: not among the last 1 pushed"
    expected = {"repository": project.repository, "tag": "v1", "digest": project.digest}
    assert expected | {"last_pulled_at": None, "reason": reason} == {
        key: value for key, value in tag.items() if key != "pushed_at"
    }
    assert tag["pushed_at"].endswith("Z")
    assert NONE == project.rules("GET")
    assert [200, 200] == [project.v2("GET", tag).status for tag in ("v1", "v2")]


def test_the_daemon_takes_what_no_rule_keeps(tmp_path: Path) -> None:
    """In a round at its start; a manifest goes with the last of its tags."""
    with Daemon(tmp_path, {"CYPD_AUTH_REGISTRATION": "open"}) as daemon:
        house = House(daemon)
        project = Project(house)
        project.v2("PUT", "v2", OTHER)
        project.rules("PUT", NONE | {"retention": [RULE]})
        house.close()
    with daemon:
        name = project.name
        daemon.wait_for(f"retention: removed 1 tags of 1 repositories of project {name}")
        url = f"/v2/{project.repository}/manifests/"
        statuses = [daemon.request("GET", url + it).status for it in ("v1", project.digest, "v2")]

    assert [404, 404, 200] == statuses
