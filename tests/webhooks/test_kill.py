"""SIGKILL between the commit of a push and its delivery, again and again: nothing is lost."""

import os
import secrets
import threading
import time
from http.client import HTTPException
from pathlib import Path
from random import Random

import pytest

from tests.attacks.content import push_blob
from tests.crash.client import Client
from tests.daemon import Daemon
from tests.samples import EMPTY, image
from tests.webhooks.sink import Sink, hook, project

ROUNDS = int(os.environ.get("CRASH_ROUNDS") or (100 if os.environ.get("CI") else 10))
SEED = int(os.environ.get("CRASH_SEED") or secrets.randbits(32))
_REPOSITORIES = ("kill/a", "kill/b")
_LONGEST = 0.2  # seconds until a kill


@pytest.mark.timeout(60 + 5 * ROUNDS)
def test_no_event_is_lost_by_a_kill(tmp_path: Path) -> None:
    """Every push that was acknowledged reaches the receiver, each repository's in their order."""
    print(f"CRASH_SEED={SEED} CRASH_ROUNDS={ROUNDS}")  # noqa: T201 (shown if it fails)
    random = Random(SEED)
    pushed: dict[str, list[str]] = {it: [] for it in _REPOSITORIES}
    settings = {"CYPD_WEBHOOKS_ALLOW_NETWORKS": "127.0.0.0/8", "CYPD_WEBHOOKS_TIMEOUT": "1"}
    daemon = Daemon(tmp_path, settings)
    with daemon, Sink(lambda _: random.choice(["200", "200", "200", "500"])) as sink:
        hook(daemon, project(daemon, "kill"), sink.url)
        for repository in _REPOSITORIES:
            push_blob(daemon, repository, EMPTY)
        del daemon.environment["CYPD_AUTH_ADMIN_PASSWORD"]  # it holds; to set it anew costs a hash
        for _ in range(ROUNDS):
            _push_until_killed(daemon, pushed, random.uniform(0, _LONGEST))
            daemon.start()
        sink.behave = lambda _: "200"
        _wait_for(sink, pushed)
        taken = [it.document for it in sink.taken()]

    for repository, tags in pushed.items():
        told = [it["tag"] for it in taken if it["repository"] == repository]
        first = list(dict.fromkeys(told))
        assert set(tags) <= set(first)
        assert sorted(first, key=int) == first


def _push_until_killed(daemon: Daemon, pushed: dict[str, list[str]], seconds: float) -> None:
    document = image(EMPTY)
    begun = {it: int(tags[-1]) + 1000 if tags else 0 for it, tags in pushed.items()}

    def push(repository: str) -> None:
        number = begun[repository]
        with Client(daemon) as client:
            while True:
                number += 1
                path = f"/v2/{repository}/manifests/{number}"
                try:
                    assert client.send("PUT", path, document).status == 201
                except (OSError, HTTPException):
                    return
                pushed[repository].append(str(number))

    threads = [threading.Thread(target=push, args=(it,)) for it in pushed]
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    daemon.kill()
    for thread in threads:
        thread.join()


def _wait_for(sink: Sink, pushed: dict[str, list[str]]) -> None:
    end = time.monotonic() + 60
    while True:
        told = {(it.document["repository"], it.document["tag"]) for it in sink.taken()}
        missing = [it for it, tags in pushed.items() for tag in tags if (it, tag) not in told]
        if not missing:
            return
        assert time.monotonic() < end, f"{len(missing)} events are missing"
        time.sleep(0.1)
