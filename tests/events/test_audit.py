"""``/api/v1/audit-logs``: who did what, to what, when, from where, and what came of it."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import CYPD, PASSWORD, Daemon
from tests.events.test_streams import person, push
from tests.webhooks.sink import api, hook, project, sign_in


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon in which everybody may have an account."""
    settings = {"CYPD_AUTH_REGISTRATION": "open"}
    with Daemon(tmp_path_factory.mktemp("audit"), settings) as daemon:
        yield daemon


def entries(daemon: Daemon, query: str, token: str = "") -> list[Any]:
    """Return entries, the newest first."""
    return list(api(daemon, "GET", f"/audit-logs?{query}", token=token)["entries"])


def test_what_changes_something_is_told(daemon: Daemon) -> None:
    """Members, settings and deletes: actor, target, address, outcome and trace id."""
    made = project(daemon, "told")
    _, user_id = person(daemon, "joins")
    api(daemon, "POST", f"/projects/{made}/members", {"user_id": user_id, "role": "guest"})
    api(daemon, "PUT", f"/projects/{made}", {"storage_quota": 1 << 30})
    push(daemon, "told/app", "v1")
    assert daemon.request("DELETE", "/v2/told/app/manifests/v1").status == 202
    api(daemon, "DELETE", f"/projects/{made}/members/{user_id}")

    found = entries(daemon, f"project_id={made}")
    assert [
        "projects.remove_member",
        "manifests.delete",
        "projects.update",
        "projects.add_member",
    ] == [it["action"] for it in found]
    assert {("admin", "127.0.0.1", 20000)} == {
        (it["username"], it["address"], it["outcome"]) for it in found
    }
    assert {"repository": "told/app", "reference": "v1"} == found[1]["target"]
    assert str(1 << 30) == found[2]["target"]["storage_quota"]
    assert (user_id, "guest") == (found[3]["target"]["user_id"], found[3]["target"]["role"])
    assert all(it["trace_id"] for it in found)


def test_what_was_refused_is_told_too(daemon: Daemon) -> None:
    """Wrong passwords, and what somebody has no right to; the code says why."""
    made = project(daemon, "refused")
    token, user_id = person(daemon, "tries")
    member = {"user_id": user_id, "role": "guest"}
    api(daemon, "POST", f"/projects/{made}/members", member)
    api(daemon, "DELETE", f"/projects/{made}?force=true", token=token, status=403)
    guess = {"username": "tries", "password": "a wrong password"}
    api(daemon, "POST", "/auth/login", guess, status=401)

    (refused,) = entries(daemon, "username=tries&action=projects.delete")
    assert (30004, {"id": made}) == (refused["outcome"], refused["target"])
    login = entries(daemon, "action=auth.login&keyword=tries")[0]
    assert (30009, "tries") == (login["outcome"], login["target"]["username"])
    assert "wrong password" not in json.dumps(login)


def test_a_pull_and_a_mistake_leave_no_row(daemon: Daemon) -> None:
    """What changes nothing, what is ill-formed and who is nobody are not told."""
    made = project(daemon, "quiet")
    push(daemon, "quiet/app", "v1")
    before = api(daemon, "GET", "/audit-logs")["total"]
    assert daemon.request("GET", "/v2/quiet/app/manifests/v1").status == 200
    api(daemon, "GET", f"/projects/{made}")
    api(daemon, "PUT", f"/projects/{made}", {"nothing": 1}, status=400)
    nobody = daemon.request("DELETE", f"/api/v1/projects/{made}", auth=False)
    assert nobody.status == 401

    assert before == api(daemon, "GET", "/audit-logs")["total"]


def test_what_belongs_to_a_project_is_told_to_its_owners(daemon: Daemon) -> None:
    """Its webhooks and tags are named by other ids than its own."""
    made = project(daemon, "belongs")
    created = hook(daemon, made, "https://example.com/")
    api(daemon, "PUT", f"/webhooks/{created}", {"name": "other"})
    api(daemon, "DELETE", f"/webhooks/{created}")
    push(daemon, "belongs/app", "v1")
    api(daemon, "DELETE", "/repositories/belongs/app/tags/v1")

    assert [
        "repositories.delete_tag",
        "webhooks.delete",
        "webhooks.update",
        "webhooks.create",
    ] == [it["action"] for it in entries(daemon, f"project_id={made}")]


def test_nobody_fills_the_log(tmp_path: Path) -> None:
    """What is refused to who has not signed in leaves no row, but for what the throttle counts."""
    with Daemon(tmp_path) as daemon:
        before = api(daemon, "GET", "/audit-logs")["total"]
        account = {"username": "nobody", "email": "n@example.com", "password": "long enough"}
        proof = {"mfa_token": "none", "code": "123456"}
        for path, document in (("/auth/register", account), ("/auth/mfa/verify", proof)):
            body = json.dumps(document).encode()
            headers = {"Content-Type": "application/json"}
            url = f"/api/v1{path}"
            answer = daemon.request("POST", url, headers=headers, body=body, auth=False)
            assert answer.status in {401, 403}

        assert before == api(daemon, "GET", "/audit-logs")["total"]


def test_owners_see_what_is_theirs(daemon: Daemon) -> None:
    """Their project's rows and no others; without a project they have to name one."""
    token, _ = person(daemon, "owns")
    other, _ = person(daemon, "owns-not")
    made = str(api(daemon, "POST", "/projects", {"name": "owned"}, token=token)["id"])
    project(daemon, "of-others")

    assert {made} == {it["project_id"] for it in entries(daemon, f"project_id={made}", token)} | {
        made
    }
    api(daemon, "GET", "/audit-logs", token=token, status=403)
    api(daemon, "GET", f"/audit-logs?project_id={made}", token=other, status=404)


def test_rows_are_found_by_time_and_come_in_pages(daemon: Daemon) -> None:
    """A window of time and a page say which; the total counts them all."""
    made = project(daemon, "paged")
    for number in range(5):
        api(daemon, "PUT", f"/projects/{made}", {"description": str(number)})
    query = f"project_id={made}&page_size=2"
    pages = [api(daemon, "GET", f"/audit-logs?{query}&page={page}") for page in (1, 2, 3, 4)]

    assert [2, 2, 1, 0] == [len(it["entries"]) for it in pages]
    assert {5} == {it["total"] for it in pages}
    assert not entries(daemon, f"project_id={made}&until=2020-01-01T00:00:00Z")
    assert 5 == len(entries(daemon, f"project_id={made}&since=2020-01-01T00:00:00Z"))


def test_no_secret_is_in_the_log(daemon: Daemon) -> None:
    """Passwords and tokens of every route that takes or gives one stay out of it."""
    token, _ = person(daemon, "keeps")
    made = api(daemon, "POST", "/user/tokens", {"name": "one", "scopes": ["read"]}, token=token)
    change = {"old_password": "a long enough password", "new_password": "another long password"}
    api(daemon, "PUT", "/user/password", change, token=token)
    total = api(daemon, "GET", "/audit-logs")["total"]
    text = "".join(
        json.dumps(entries(daemon, f"page_size=100&page={page}"))
        for page in range(1, total // 100 + 2)
    )

    assert "user.create_token" in text
    assert "user.change_password" in text
    for secret in (made["token"], token, sign_in(daemon), PASSWORD, *change.values()):
        assert secret not in text


def test_the_command_line_is_told_of(daemon: Daemon) -> None:
    """What is changed beside the daemon is in the log too, with who sat at the machine."""
    project(daemon, "by-hand")
    for command in (["user", "disable", "admin-no-more"], ["project", "quota", "by-hand", "1GiB"]):
        if command[0] == "user":
            person(daemon, command[2])
        done = subprocess.run(
            [CYPD, *command],
            env={"PATH": "/usr/bin:/bin", "CYPD_STORAGE_ROOT": str(daemon.state), "USER": "ada"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    (disabled,) = entries(daemon, "keyword=admin-no-more&action=users.disable")
    (quota,) = entries(daemon, "keyword=by-hand&action=projects.update")

    assert "ada on the command line" == disabled["username"] == quota["username"]
    assert {"name": "by-hand", "storage_quota": str(1 << 30)} == quota["target"]


def test_an_administrators_push_is_told(daemon: Daemon) -> None:
    """Into a project of others it is an act of office; into their own it is a push like any."""
    token, _ = person(daemon, "host")
    made = str(api(daemon, "POST", "/projects", {"name": "hosts-own"}, token=token)["id"])
    own = project(daemon, "admins-own")
    for name in ("hosts-own", "admins-own"):
        push(daemon, f"{name}/app", "v1")

    (told,) = entries(daemon, f"project_id={made}&action=manifests")
    assert ("manifests.push", "admin") == (told["action"], told["username"])
    assert not entries(daemon, f"project_id={own}&action=manifests")
