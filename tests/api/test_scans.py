"""Scans by the product's own API, in a real daemon whose engine is a stand-in for Trivy."""

import json
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cypd.oci.digest import Digest
from tests.access.house import House, Person
from tests.authority import Authority
from tests.daemon import Daemon, Response, free_port
from tests.events.listener import Listener
from tests.samples import EMPTY, artifact, image, index

STAND_IN = Path(__file__).parent.parent / "scanning" / "trivy.py"
SEVERITIES = ("critical", "high", "medium", "low", "unknown")


def environment(directory: Path, **more: str) -> Mapping[str, str]:
    """Return the settings of a daemon that scans with the stand-in."""
    program = directory / "trivy"
    if not program.exists():
        program.write_text(f"#!{sys.executable}\n{STAND_IN.read_text()}")
        program.chmod(0o755)
    return {
        "CYPD_AUTH_REGISTRATION": "open",
        "CYPD_SCANNING_ENGINE": "trivy",
        "CYPD_SCANNING_TRIVY": str(program),
        **more,
    }


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A daemon with somebody in every role."""
    directory = tmp_path_factory.mktemp("house")
    with Daemon(directory, environment(directory)) as daemon:
        house = House(daemon)
        yield house
        house.close()


class Project:
    """A new project, in which images are pushed and scanned."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.id = house.new_project()
        self.name = house.api("GET", f"/projects/{self.id}", house.admin)["name"]
        self.repository = f"{self.name}/app"
        self.people = house.people

    def push(self, tag: str, *layers: Any, **more: Any) -> str:
        """Push an image whose layers say what is found in it; return its digest."""
        blobs = [json.dumps(it).encode() for it in layers]
        return self.put(tag, image(*blobs, **more), *blobs)

    def put(self, tag: str, manifest: bytes, *blobs: bytes) -> str:
        """Push a manifest with its blobs; return its digest."""
        for blob in (EMPTY, *blobs):
            url = f"blobs/uploads/?digest={Digest.of(blob)}"
            assert self.v2("POST", url, blob).status == 201
        assert self.v2("PUT", f"manifests/{tag}", manifest).status == 201
        return str(Digest.of(manifest))

    def v2(
        self, method: str, path: str, body: bytes | None = None, who: Person | None = None
    ) -> Response:
        """Ask the OCI API as the administrator, or as somebody else."""
        authorization = self.house.password(who or self.house.admin)
        return self.house.ask(method, f"/v2/{self.repository}/{path}", authorization, body)

    def ask(self, method: str, path: str, body: Any = None, who: str = "developer") -> Any:
        """Ask the API as a role; return status, code and data."""
        access = f"Bearer {self.people[who].access}"
        response = self.house.ask(method, f"/api/v1{path}", access, body)
        document = json.loads(response.body)
        return response.status, document["code"], document["data"]

    def request(self, reference: str = "latest", who: str = "developer") -> Any:
        """Ask for a scan."""
        body = {"repository": self.repository, "reference": reference}
        return self.ask("POST", "/scans", body, who)

    def scan(self, reference: str = "latest") -> Any:
        """Have an image scanned and return the scan when it is over."""
        status, code, data = self.request(reference)
        assert (202, 20000, "pending") == (status, code, data["status"])
        return self.ended(data["id"])

    def ended(self, scan_id: str) -> Any:
        """Wait for the end of a scan and return it."""
        return self.until(scan_id, "succeeded", "failed", "cancelled")

    def until(self, scan_id: str, *statuses: str) -> Any:
        """Wait for one of some statuses of a scan and return it."""
        end = time.monotonic() + 40
        while True:
            status, _, data = self.ask("GET", f"/scans/{scan_id}")
            assert status == 200
            if data["status"] in statuses:
                return data
            assert time.monotonic() < end, data
            time.sleep(0.05)

    def eventually(self, is_so: Callable[[], bool]) -> None:
        """Wait for something to be so."""
        end = time.monotonic() + 40
        while not is_so():
            assert time.monotonic() < end
            time.sleep(0.1)

    def vulnerabilities(self, query: str = "", who: str = "guest") -> Any:
        """Ask what was found."""
        return self.ask("GET", f"/repositories/{self.repository}/vulnerabilities{query}", None, who)

    def scan_status(self) -> dict[str, str | None]:
        """Return what the list of tags says."""
        _, _, data = self.ask("GET", f"/repositories/{self.repository}/tags")
        return {it["name"]: it["scan_status"] for it in data["tags"]}

    def policy(self, who: str = "owner", **policy: Any) -> Any:
        """Set the policy."""
        return self.ask("PUT", f"/projects/{self.id}/scan-policy", policy, who)


@pytest.fixture
def project(house: House) -> Project:
    """A new project."""
    return Project(house)


def vulnerability(identity: str = "CVE-2024-1", severity: str = "HIGH", **more: Any) -> Any:
    """Return a vulnerability as Trivy writes it."""
    return {
        "VulnerabilityID": identity,
        "PkgName": "libfoo",
        "PkgIdentifier": {"PURL": "pkg:deb/debian/libfoo@1.0"},
        "InstalledVersion": "1.0",
        "FixedVersion": "1.1",
        "Severity": severity,
        "Title": "a hole",
        "PrimaryURL": "https://example.com/1",
        "CVSS": {"nvd": {"V3Score": 7.5, "V3Vector": "x"}, "ghsa": {"V3Score": 9.0}},
    } | more


def test_a_scan_from_request_to_findings(project: Project) -> None:
    """Each field of the contract, at the scan itself and at the image."""
    layer = {"vulnerabilities": [vulnerability()], "packages": [{"Name": "a"}, {"Name": "b"}]}
    digest = project.push("latest", {"packages": [{"Name": "base"}]}, layer)
    assert (404, 20015, None) == project.vulnerabilities()
    assert {"latest": None} == project.scan_status()
    scan = project.scan()
    (found,), (examined,) = scan["findings"], scan["images"]

    assert {
        "id": "CVE-2024-1",
        "package": "libfoo",
        "installed_version": "1.0",
        "fixed_version": "1.1",
        "severity": "high",
        "title": "a hole",
        "url": "https://example.com/1",
        "cvss": 7.5,
        "layer": str(Digest.of(json.dumps(layer).encode())),
        "purl": "pkg:deb/debian/libfoo@1.0",
    } == found
    assert {
        "status": "succeeded",
        "repository": project.repository,
        "reference": "latest",
        "digest": digest,
        "project_id": project.id,
        "requested_by": "the-developer",
        "trigger": "request",
        "scanner": "trivy 0.99.0",
        "database_updated_at": "2026-01-02T03:04:05Z",
        "summary": dict.fromkeys(SEVERITIES, 0) | {"high": 1},
        "error": "",
    } == {name: scan[name] for name in scan if name in (
        "status", "repository", "reference", "digest", "project_id", "requested_by", "trigger",
        "scanner", "database_updated_at", "summary", "error",
    )}  # fmt: skip
    assert (digest, 3) == (examined["digest"], examined["packages"])
    assert {"latest": "succeeded"} == project.scan_status()
    for query in ("", "?reference=latest", f"?reference={digest}"):
        assert (200, 20000, scan) == project.vulnerabilities(query)


def test_the_log_of_a_scan_can_be_read(project: Project) -> None:
    """What was read, how many packages, how long it took."""
    project.push("latest", {"packages": [{"Name": "a"}]})
    scan = project.scan()
    status, _, data = project.ask("GET", f"/scans/{scan['id']}/logs", who="guest")
    log = "\n".join(data["lines"])

    assert 200 == status
    for part in ("1 image(s), by trivy", "INFO\\tlayer sha256:", "1 packages", "seconds"):
        assert part in log


def test_the_sbom_is_found_beside_the_image(project: Project) -> None:
    """By the referrers API, as CycloneDX, once however often the image is scanned."""
    digest = project.push("latest", {"packages": [{"Name": "a"}]})
    sboms = {project.scan()["sbom_digest"] for _ in range(2)}
    referrers = json.loads(project.v2("GET", f"referrers/{digest}").body)["manifests"]

    assert sboms == {it["digest"] for it in referrers}
    assert ["application/vnd.cyclonedx+json"] == [it["artifactType"] for it in referrers]
    manifest = json.loads(project.v2("GET", f"manifests/{sboms.pop()}").body)
    assert digest == manifest["subject"]["digest"]
    sbom = json.loads(project.v2("GET", f"blobs/{manifest['layers'][0]['digest']}").body)
    assert ("CycloneDX", "1.6", ["a"]) == (
        sbom["bomFormat"],
        sbom["specVersion"],
        [it["name"] for it in sbom["components"]],
    )


def test_trivy_gets_no_more_than_it_needs(project: Project, tmp_path: Path) -> None:
    """No shell, nothing of the daemon's environment, and a token that reads one repository while
    the scan runs.
    """
    told = tmp_path / "told"
    digest = project.push("latest", {"record": str(told), "sleep": 50})
    other = Project(project.house)
    other.push("latest", {})
    _, _, data = project.request()
    end = time.monotonic() + 30
    while not (told.exists() and told.read_text().endswith("}")):
        assert time.monotonic() < end
        time.sleep(0.02)
    found = json.loads(told.read_text())
    bearer = f"Bearer {found['environment']['TRIVY_REGISTRY_TOKEN']}"
    url = f"/v2/{project.repository}/manifests/latest"

    def statuses() -> list[int]:
        ask = project.house.ask
        return [
            ask("GET", url, bearer).status,
            ask("PUT", url, bearer, image()).status,
            ask("DELETE", url, bearer).status,
            ask("GET", f"/v2/{other.repository}/manifests/latest", bearer).status,
            ask("GET", "/v2/_catalog", bearer).status,
            ask("GET", "/api/v1/user/profile", bearer).status,
        ]

    assert [200, 401, 401, 401, 401, 401] == statuses()
    project.ask("POST", f"/scans/{data['id']}/cancel")
    assert [401] * 6 == statuses()
    assert f"{project.house.daemon.host}/{project.repository}@{digest}" == found["arguments"][-1]
    assert "--" == found["arguments"][-2]
    assert [] == [it for it in found["environment"] if it.startswith("CYPD_")]
    assert (19, 0) == (found["niceness"], found["core"])
    assert 0 < found["cpu"] <= 600


@pytest.mark.parametrize(
    ("trusts", "status", "error"),
    [("authority", "succeeded", ""), ("stranger", "failed", "certificate verify failed")],
)
def test_by_https_the_certificate_is_checked(
    tmp_path: Path, trusts: str, status: str, error: str
) -> None:
    """Trivy shows its token to nobody but who has a certificate that this machine trusts."""
    authorities = {it: Authority(tmp_path / it) for it in ("authority", "stranger")}
    address = f"127.0.0.1:{free_port()}"
    settings = {
        **authorities["authority"].settings(address),
        "CYPD_SERVER_EXTERNAL_URL": f"https://{address}",
        "SSL_CERT_FILE": str(authorities[trusts].root),
    }
    with Daemon(tmp_path, environment(tmp_path, **settings)) as daemon:
        project = Project(House(daemon))
        project.push("latest", {})
        scan = project.scan()
        project.house.close()

    assert status == scan["status"], scan["error"]
    assert error in scan["error"]


def test_a_scan_is_no_pull(project: Project) -> None:
    """What the registry does for itself is counted for nobody."""
    project.push("latest", {})
    project.scan()
    _, _, data = project.ask("GET", f"/repositories/{project.repository}/tags")

    assert [(0, None)] == [(it["pull_count"], it["last_pulled_at"]) for it in data["tags"]]


@pytest.mark.parametrize(
    ("layer", "error"),
    [
        ({"fail": "no such layer"}, "trivy image ended with status 1: no such layer"),
        ({"vulnerabilities": [{"VulnerabilityID": 1}]}, "what trivy wrote is not understood"),
    ],
)
def test_a_scan_that_fails_says_why(project: Project, layer: Any, error: str) -> None:
    """The vulnerabilities are those of the newest scan that did not."""
    project.push("latest", layer)
    scan = project.scan()

    assert "failed" == scan["status"]
    assert error in scan["error"]
    assert {"latest": "failed"} == project.scan_status()
    assert (404, 20015, None) == project.vulnerabilities()


def test_an_index_is_scanned_as_a_whole(project: Project) -> None:
    """Each of its images shows what was found in it, the index what was found in all of them."""
    layers = [{"vulnerabilities": [vulnerability(it)]} for it in ("CVE-1", "CVE-2")]
    digests = [project.push(f"t{number}", it) for number, it in enumerate(layers)]
    images = [image(json.dumps(it).encode()) for it in layers]
    project.put("latest", index(*images))
    scan = project.scan()

    assert ["CVE-1", "CVE-2"] == [it["id"] for it in scan["findings"]]
    assert digests == [it["digest"] for it in scan["images"]]
    for digest, expected in zip(digests, ("CVE-1", "CVE-2"), strict=True):
        _, _, data = project.vulnerabilities(f"?reference={digest}")
        assert [expected] == [it["id"] for it in data["findings"]]
    assert {"latest", "t0", "t1"} == {
        name for name, status in project.scan_status().items() if status == "succeeded"
    }


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ({}, (400, 10002, "repository")),
        ({"repository": "x", "more": 1}, (400, 10001, "more")),
        ({"repository": 1}, (400, 10003, "repository")),
        ({"repository": "UPPER"}, (400, 10004, "repository")),
        ({"repository": "--config=x"}, (400, 10004, "repository")),
        ({"repository": "-o/x"}, (400, 10004, "repository")),
        ({"repository": "{repository}", "reference": "-"}, (400, 10004, "tag")),
        ({"repository": "{repository}", "reference": "-o"}, (400, 10004, "tag")),
        ({"repository": "{repository}", "reference": "--config=/etc/x"}, (400, 10004, "tag")),
        ({"repository": "x", "reference": "sha256:1"}, (400, 10004, "digest")),
        ({"repository": "there/is-none"}, (404, 20005, None)),
        ({"repository": "{repository}", "reference": "none"}, (404, 20007, None)),
        ({"repository": "{repository}", "reference": str(Digest.of(b"x"))}, (404, 20005, None)),
        ({"repository": "{repository}", "reference": "artifact"}, (400, 10004, "reference")),
    ],
)
def test_what_cannot_be_scanned_is_named(project: Project, body: Any, answer: Any) -> None:
    """4xx with the field, and nothing waits for it."""
    project.push("latest", {})
    project.put("artifact", artifact(b"x"), b"x")
    if "repository" in body and body["repository"] == "{repository}":
        body = body | {"repository": project.repository}
    status, code, data = project.ask("POST", "/scans", body)

    field = data["errors"][0]["field"] if data else None
    assert answer == (status, code, field)
    assert 0 == project.ask("GET", f"/scans?repository={project.repository}")[2]["total"]


def test_scans_are_listed(project: Project) -> None:
    """Newest first, in pages, of a repository, by status, and only to who may see them."""
    project.push("latest", {})
    project.push("bad", {"fail": "x"})
    scans = [project.scan(it) for it in ("latest", "bad", "latest")]
    newest = [it["id"] for it in reversed(scans)]

    def ids(query: str, who: str = "guest") -> list[str]:
        status, _, data = project.ask("GET", f"/scans?{query}", who=who)
        assert status == 200
        return [it["id"] for it in data["scans"]]

    of = f"repository={project.repository}"
    assert newest == ids(of)
    assert newest[1:2] == ids(f"{of}&page=2&page_size=1")
    assert [newest[1]] == ids(f"{of}&status=failed")
    assert newest == ids("page_size=100")[:3]
    assert not set(newest) & set(ids("page_size=100", "foreigner"))
    assert (404, 20005) == project.ask("GET", f"/scans?{of}", who="foreigner")[:2]
    assert 400 == project.ask("GET", "/scans?status=over")[0]


def test_what_is_anothers_does_not_exist(project: Project) -> None:
    """A scan, its log and its end, for who may not read the project; guests look only."""
    project.push("latest", {})
    scan = project.scan()["id"]
    for method, path in (("GET", ""), ("GET", "/logs"), ("POST", "/cancel")):
        answer = project.ask(method, f"/scans/{scan}{path}", who="foreigner")
        assert (404, 20015, None) == answer
    assert (404, 20005, None) == project.request(who="foreigner")
    assert (403, 30004, None) == project.request(who="guest")
    assert (403, 30004, None) == project.ask("POST", f"/scans/{scan}/cancel", who="guest")
    assert (404, 20005, None) == project.vulnerabilities(who="foreigner")


def test_a_scan_can_be_cancelled(project: Project) -> None:
    """Its process ends with it; one that is over can't be."""
    project.push("latest", {"sleep": 300})
    _, _, data = project.request()
    project.until(data["id"], "running")
    time.sleep(0.5)
    status, _, cancelled = project.ask("POST", f"/scans/{data['id']}/cancel")
    assert (200, "cancelled") == (status, cancelled["status"])
    again = project.ask("POST", f"/scans/{data['id']}/cancel")
    assert (409, 20011, None) == again
    project.push("next", {})

    assert "succeeded" == project.scan("next")["status"]


def test_the_end_of_a_scan_is_an_event(project: Project) -> None:
    """``scan`` with the summary, ``scan_fail`` with the reason, to who listens and to webhooks."""
    project.push("latest", {"vulnerabilities": [vulnerability()]})
    project.push("bad", {"fail": "x"})
    owner = project.people["owner"]
    hook = project.house.webhook(project.id) | {"events": ["scan", "scan_fail"]}
    assert (
        201 == project.ask("POST", "/webhooks", hook | {"url": "https://example.com/"}, "owner")[0]
    )
    daemon = project.house.daemon
    with Listener(daemon, owner.access, query=f"?project_id={project.id}") as listener:
        scans = [project.scan(it) for it in ("latest", "bad")]
        told = [it for it in (listener.next() for _ in range(3)) if it.kind.startswith("scan")]

    good, bad = told
    assert ("scan", "scan_fail") == (good.kind, bad.kind)
    assert (scans[0]["id"], scans[0]["summary"]) == (
        good.data["scan"]["id"],
        good.data["scan"]["summary"],
    )
    assert (scans[1]["id"], scans[1]["error"]) == (
        bad.data["scan_fail"]["id"],
        bad.data["scan_fail"]["error"],
    )
    assert ("the-developer", "latest") == (good.data["actor"]["username"], good.data["tag"])


def test_requests_are_audited(project: Project) -> None:
    """Who asked for which, and who ended which."""
    project.push("latest", {"sleep": 5})
    _, _, data = project.request()
    project.ask("POST", f"/scans/{data['id']}/cancel")
    project.policy(block_at="high")
    _, _, found = project.ask("GET", f"/audit-logs?project_id={project.id}", who="owner")
    entries = {it["action"]: it["target"] for it in found["entries"]}

    assert data["id"] == entries["scans.request"]["id"] == entries["scans.cancel"]["id"]
    assert project.repository == entries["scans.request"]["repository"]
    assert "projects.set_scan_policy" in entries


# --- the policy ---------------------------------------------------------------------------------


def pull(project: Project, reference: str, method: str = "GET") -> tuple[int, Any]:
    """Pull as a guest; return the status, and the error that the body tells."""
    answer = project.v2(method, f"manifests/{reference}", who=project.people["guest"])
    body = json.loads(answer.body) if answer.body else {}
    return answer.status, body.get("errors", [{}])[0]


def test_a_project_refuses_pulls_of_vulnerable_images(project: Project) -> None:
    """At its severity and above, by tag and digest, by HEAD as well, to everybody; others pass."""
    found = [vulnerability("CVE-1", "CRITICAL"), vulnerability("CVE-2"), vulnerability("CVE-3")]
    digest = project.push("bad", {"vulnerabilities": found})
    project.push("fair", {"vulnerabilities": [vulnerability("CVE-4", "MEDIUM")]})
    project.push("unscanned", {"x": 1})
    scan = project.scan("bad")
    project.scan("fair")
    assert 200 == pull(project, "bad")[0]
    policy = {"block_at": "high", "block_unscanned": False, "exceptions": []}
    assert (200, 20000, policy) == project.policy(block_at="high")
    assert (200, 20000, policy) == project.ask("GET", f"/projects/{project.id}/scan-policy")

    message = (
        "this project refuses pulls of images with vulnerabilities of severity high or worse, "
        "and this one has 3 (1 critical, 2 high)"
    )
    detail = {"digest": digest, "block_at": "high", "vulnerabilities": 3, "scan": scan["id"]}
    refused = (403, {"code": "DENIED", "message": message, "detail": detail})
    assert [refused] * 2 == [pull(project, it) for it in ("bad", digest)]
    assert 403 == pull(project, "bad", "HEAD")[0]
    assert 403 == project.v2("GET", "manifests/bad").status  # the administrator
    assert [200, 200] == [pull(project, it)[0] for it in ("fair", "unscanned")]
    project.policy(block_at="critical")
    assert 403 == pull(project, "bad")[0]
    project.policy(block_at="medium")
    assert 403 == pull(project, "fair")[0]
    project.policy(block_at=None)
    assert [200, 200] == [pull(project, it)[0] for it in ("bad", "fair")]


def test_what_is_refused_can_still_be_scanned(project: Project) -> None:
    """Trivy's own pulls pass, so a new scan can tell that all is well again."""
    project.push("latest", {"vulnerabilities": [vulnerability()]})
    project.scan()
    project.policy(block_at="low", block_unscanned=True)

    assert 403 == pull(project, "latest")[0]
    assert "succeeded" == project.scan()["status"]


def test_unscanned_images_are_refused_where_that_is_wanted(project: Project) -> None:
    """Until they are scanned; what is no image passes, as do the images of a scanned index."""
    layers = [{"number": 1}, {"number": 2}]
    children = [project.push(f"t{it['number']}", it) for it in layers]
    images = [image(json.dumps(it).encode()) for it in layers]
    project.put("latest", index(*images))
    project.put("chart", artifact(b"x"), b"x")
    project.policy(block_at=None, block_unscanned=True)
    status, error = pull(project, "latest")
    assert (403, "DENIED") == (status, error["code"])
    assert "not scanned" in error["message"]
    assert [403, 403, 200] == [pull(project, it)[0] for it in (*children, "chart")]
    sbom = project.scan()["images"][0]["sbom_digest"]

    assert [200] * 4 == [pull(project, it)[0] for it in ("latest", *children, sbom)]


def test_exceptions_expire(project: Project) -> None:
    """A vulnerability that is excused keeps nobody from pulling, until it is excused no more."""
    project.push("latest", {"vulnerabilities": [vulnerability("CVE-1"), vulnerability("CVE-2")]})
    project.scan()

    def excuse(*names: str, for_seconds: float = 3600) -> int:
        until = datetime.now(UTC) + timedelta(seconds=for_seconds)
        exceptions = [
            {"vulnerability": it, "reason": "not reachable", "expires_at": until.isoformat()}
            for it in names
        ]
        status, _, data = project.policy(block_at="high", exceptions=exceptions)
        assert (200, len(names)) == (status, len(data["exceptions"]))
        return pull(project, "latest")[0]

    assert [403, 200] == [excuse("CVE-1"), excuse("CVE-1", "CVE-2")]
    assert 403 == excuse("CVE-1", "CVE-2", for_seconds=-1)
    assert 200 == excuse("CVE-1", "CVE-2", for_seconds=5)
    project.eventually(lambda: pull(project, "latest")[0] == 403)


@pytest.mark.parametrize(
    ("policy", "code", "field"),
    [
        ({}, 10002, "block_at"),
        ({"block_at": "unknown"}, 10004, "block_at"),
        ({"block_at": "high", "block_unscanned": 1}, 10003, "block_unscanned"),
        ({"block_at": "high", "exceptions": [{}] * 101}, 10004, "exceptions"),
        ({"block_at": "high", "exceptions": [{}]}, 10002, "exceptions[0].vulnerability"),
        (
            {"block_at": "high", "exceptions": [{"vulnerability": "C", "reason": "r"}]},
            10002,
            "exceptions[0].expires_at",
        ),
    ],
)
def test_what_is_no_policy_is_named(project: Project, policy: Any, code: int, field: str) -> None:
    """And nothing changes."""
    status, found, data = project.policy(**policy)

    assert (400, code, field) == (status, found, data["errors"][0]["field"])
    assert project.ask("GET", f"/projects/{project.id}/scan-policy")[2]["block_at"] is None


def test_owners_alone_set_the_policy(project: Project) -> None:
    """Maintainers read it, as everybody does who may pull."""
    assert (403, 30004, None) == project.policy("maintainer", block_at="high")
    assert (404, 20003, None) == project.policy("foreigner", block_at="high")
    path = f"/projects/{project.id}/scan-policy"
    assert [200, 404] == [project.ask("GET", path, who=it)[0] for it in ("guest", "foreigner")]


# --- other daemons ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"CYPD_SCANNING_ENGINE": "off"}, "scanning is switched off: set scanning.engine"),
        ({"CYPD_SCANNING_TRIVY": "/nowhere/trivy"}, "there is no program /nowhere/trivy: install"),
    ],
)
def test_without_an_engine_it_is_told_what_to_do(
    tmp_path: Path, settings: Mapping[str, str], advice: str
) -> None:
    """503 with the code of the contract, in both languages, to who might have asked."""
    with Daemon(tmp_path, {**environment(tmp_path), **settings}) as daemon:
        project = Project(House(daemon))
        project.push("latest", {})
        access = f"Bearer {project.house.admin.access}"
        body = {"repository": project.repository}
        answer = project.house.ask("POST", "/api/v1/scans", access, body)
        document = json.loads(answer.body)

        assert (503, 50010, None) == (answer.status, document["code"], document["data"])
        assert document["message"].startswith("未配置漏洞扫描器")
        assert advice in document["message"]
        assert (403, 30004, None) == project.request(who="guest")
        project.house.close()


def test_pushes_are_scanned_where_that_is_wanted(tmp_path: Path) -> None:
    """Each by a tag, by itself."""
    with Daemon(tmp_path, environment(tmp_path, CYPD_SCANNING_ON_PUSH="true")) as daemon:
        project = Project(House(daemon))
        time.sleep(1)
        project.push("latest", {"vulnerabilities": [vulnerability()]})
        project.eventually(lambda: project.scan_status() == {"latest": "succeeded"})
        _, _, data = project.vulnerabilities()

        assert ("push", "admin", ["CVE-2024-1"]) == (
            data["trigger"],
            data["requested_by"],
            [it["id"] for it in data["findings"]],
        )
        project.house.close()


def test_two_daemons_share_one_queue(tmp_path: Path) -> None:
    """One of them scans, whichever was asked; when it is killed, the other one goes on."""
    settings = environment(tmp_path)
    first, second = Daemon(tmp_path, settings), Daemon(tmp_path, settings)
    with first, ExitStack() as stack:
        house = House(first)
        project = Project(house)
        project.push("latest", {"sleep": 4, "packages": [{"Name": secrets.token_hex(4)}]})
        stack.enter_context(second)
        _, _, data = project.request()
        project.until(data["id"], "running")
        house.close()
        first.kill()
        house.daemon = second
        house.connect()

        assert "succeeded" == project.ended(data["id"])["status"]
        house.close()


def test_a_restart_loses_no_scan(tmp_path: Path) -> None:
    """What waits and what runs is done after it."""
    with Daemon(tmp_path, environment(tmp_path)) as daemon:
        project = Project(House(daemon))
        for tag in ("a", "b"):
            project.push(tag, {"sleep": 2, "tag": tag})
        ids = [project.request(it)[2]["id"] for it in ("a", "b")]
        project.until(ids[0], "running")
        project.house.close()
        daemon.stop()
        daemon.start()
        project.house.connect()

        assert ["succeeded"] * 2 == [project.ended(it)["status"] for it in ids]
        project.house.close()
