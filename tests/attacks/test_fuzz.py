"""Twenty thousand requests of every kind, and a daemon that is as it was."""

from pathlib import Path

import pytest

from tests.attacks.fuzz import fuzz
from tests.attacks.watch import complaints, descriptors, eventually, kept
from tests.daemon import Daemon

_REQUESTS = 20_000


@pytest.mark.timeout(180)
def test_no_request_is_our_fault(tmp_path: Path) -> None:
    """No answer is a 5xx, no connection hangs, nothing is logged as a fault, nothing is kept."""
    settings = {"CYPD_UPLOADS_MAX_SESSIONS_PER_USER": "200"}
    with Daemon(tmp_path, settings) as daemon:
        fuzz(daemon, 300, seed=0)  # so that what is opened once is open
        before = descriptors(daemon)
        outcome = fuzz(daemon, _REQUESTS, seed=1)

        assert outcome.wrong == []
        assert sum(outcome.statuses.values()) > _REQUESTS * 0.95
        assert {200, 201, 202, 204, 206, 400, 401, 404, 405, 416} <= set(outcome.statuses)
        assert eventually(lambda: not kept(daemon, before))
        assert daemon.request("GET", "/v2/").status == 200
        assert complaints(daemon) == []
