"""What only this machine can reach, by the API: it can't even be set."""

import json
import time
from collections.abc import Iterator

import pytest

from tests.daemon import Daemon
from tests.webhooks.sink import Sink, api, project, sign_in
from tests.webhooks.targets import INSIDE, NO_TARGETS


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that may send to public addresses alone."""
    with Daemon(tmp_path_factory.mktemp("inside")) as daemon:
        yield daemon


def test_no_webhook_leads_inside(daemon: Daemon) -> None:
    """Each spelling of an inner address, and whatever is no target at all, is 400 for the URL."""
    made = project(daemon, "inside")
    with Sink() as sink:
        port = sink.url.rpartition(":")[2].partition("/")[0]
        for target in (*INSIDE, *NO_TARGETS):
            webhook = {
                "project_id": made,
                "name": "inside",
                "url": target.replace("{port}", port),
                "events": ["push"],
            }
            headers = {
                "Authorization": f"Bearer {sign_in(daemon)}",
                "Content-Type": "application/json",
            }
            body = json.dumps(webhook).encode()
            answer = daemon.request("POST", "/api/v1/webhooks", headers=headers, body=body)
            assert answer.status == 400, target
            (error,) = json.loads(answer.body)["data"]["errors"]
            assert error["field"] in {"url", "body"}, target  # half a surrogate pair is no JSON
        time.sleep(0.2)
        assert not sink.received
    assert 0 == api(daemon, "GET", "/webhooks")["total"]
