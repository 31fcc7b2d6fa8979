"""From a push to a receiver: signed, at least once, in order, whatever the receiver does."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from cypd.oci.digest import Digest
from tests.attacks.content import push_blob
from tests.attacks.watch import eventually
from tests.daemon import Daemon
from tests.samples import EMPTY, image
from tests.webhooks.sink import SECRET, Received, Sink, api, hook, mac, project

SETTINGS = {"CYPD_WEBHOOKS_ALLOW_NETWORKS": "127.0.0.0/8"}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that may send to this machine."""
    with Daemon(tmp_path_factory.mktemp("hooks"), SETTINGS) as daemon:
        yield daemon


def push(daemon: Daemon, repository: str, tag: str, note: str = "") -> bytes:
    """Push an image; return its manifest."""
    push_blob(daemon, repository, EMPTY)
    document = image(EMPTY, note=note) if note else image(EMPTY)
    path = f"/v2/{repository}/manifests/{tag}"
    assert daemon.request("PUT", path, body=document).status == 201
    return document


def test_a_push_is_told_and_signed(daemon: Daemon) -> None:
    """The receiver gets the contract's body and headers, and both signatures are right."""
    with Sink() as sink:
        made = hook(daemon, project(daemon, "signed"), sink.url, headers={"X-Own": "value"})
        document = push(daemon, "signed/app", "v1")
        (received,) = sink.wait_for(1)

    headers, told = received.headers, received.document
    assert ("push", made, "value") == (
        headers["X-Webhook-Event"],
        headers["X-Webhook-ID"],
        headers["X-Own"],
    )
    stamp = headers["X-Webhook-Timestamp"]
    assert f"sha256={mac(received.body)}" == headers["X-Webhook-Signature"]
    second = mac(f"{stamp}.".encode() + received.body)
    assert f"t={stamp},v1={second}" == headers["X-Webhook-Signature-V2"]
    assert abs(time.time() - int(stamp)) < 60
    assert told["actor"]["username"] == daemon.user
    assert ("push", "signed", "signed/app", "v1", len(document)) == tuple(
        told[name] for name in ("event", "project", "repository", "tag", "size")
    )
    kept = _over(daemon, made)
    assert (headers["X-Webhook-Delivery"], told["event_id"]) == (kept["id"], kept["event_id"])
    assert ("delivered", 1, 200, "ok") == tuple(
        kept[name] for name in ("status", "attempts", "response_status", "response_body")
    )


def test_whatever_the_receiver_does_every_event_arrives_in_order(tmp_path: Path) -> None:
    """It fails, stalls, resets and answers 500: all pushes of a repository come in their order.

    What comes twice bears the same ids and the same bytes.
    """
    random = Random(5)
    outcomes = [random.choice(["500", "reset", "stall", "404", "200", "200"]) for _ in range(24)]

    def behave(count: int) -> str:
        return outcomes[count] if count < len(outcomes) else "200"

    impatient = Daemon(tmp_path, SETTINGS | {"CYPD_WEBHOOKS_TIMEOUT": "1"})
    with impatient as daemon, Sink(behave) as sink:
        hook(daemon, project(daemon, "rough"), sink.url)
        for number in range(4):
            for repository in ("rough/a", "rough/b", "rough/c"):
                push(daemon, repository, f"v{number}")
        assert eventually(lambda: len(set(map(_id, sink.taken()))) == 12, 50)
        taken, everything = sink.taken(), list(sink.received)

    for repository in ("rough/a", "rough/b", "rough/c"):
        tags = [it.document["tag"] for it in taken if it.document["repository"] == repository]
        assert [f"v{number}" for number in range(4)] == list(dict.fromkeys(tags))
    bodies: dict[str, set[bytes]] = {}
    for it in everything:
        bodies.setdefault(_id(it), set()).add(it.body)
    assert 12 == len(bodies) == len({it.document["event_id"] for it in everything})
    assert {1} == {len(it) for it in bodies.values()}


def _id(received: Received) -> str:
    return received.headers["X-Webhook-Delivery"]


def test_a_target_that_is_given_up_can_be_told_anew(daemon: Daemon) -> None:
    """After the last retry a delivery has failed, says why, and is delivered again when told to."""
    with Sink(lambda count: "503" if count < 3 else "200") as sink:
        policy = {"max_retries": 2, "initial_delay_ms": 100, "max_delay_ms": 100}
        made = hook(daemon, project(daemon, "dead"), sink.url, retry_policy=policy)
        push(daemon, "dead/app", "v1")
        failed = _over(daemon, made)
        assert ("failed", 3, 503, "it answered 503", None) == tuple(
            failed[it]
            for it in ("status", "attempts", "response_status", "error", "next_attempt_at")
        )
        path = f"/webhooks/{made}/deliveries/{failed['id']}"
        anew = api(daemon, "POST", f"{path}/redeliver", status=202)
        (received,) = sink.wait_for(1)

    assert anew["id"] == received.headers["X-Webhook-Delivery"] != failed["id"]
    assert anew["event_id"] == received.document["event_id"] == failed["event_id"]
    assert eventually(lambda: _attempts(daemon, made) == (1, 4), 10)


def _attempts(daemon: Daemon, webhook: str) -> tuple[int, int]:
    """Return how many deliveries have failed, and how many attempts there were."""
    counted = api(daemon, "GET", f"/webhooks/{webhook}/statistics")
    return counted["failed"], counted["attempts"]


def _over(daemon: Daemon, webhook: str) -> dict[str, object]:
    """Return the webhook's first delivery when it is over."""
    end = time.monotonic() + 20
    while True:
        found = api(daemon, "GET", f"/webhooks/{webhook}/deliveries")["deliveries"]
        if found and found[-1]["status"] != "pending":
            return dict(found[-1])
        assert time.monotonic() < end, found
        time.sleep(0.05)


def test_each_kind_of_event_is_told_to_who_wants_it(daemon: Daemon) -> None:
    """Deletes, members and reached quotas are events too; what one did not ask for is not sent."""
    kinds = ["delete", "member", "quota"]
    with Sink() as sink:
        made = project(daemon, "kinds")
        hook(daemon, made, sink.url, events=kinds)
        document = push(daemon, "kinds/app", "v1")
        for reference in ("v1", Digest.of(document)):
            path = f"/v2/kinds/app/manifests/{reference}"
            assert daemon.request("DELETE", path).status == 202
        push(daemon, "kinds/app", "v2")
        used = api(daemon, "GET", f"/projects/{made}/storage")["used"]
        quota = {"storage_quota": used * 100 // 96}
        api(daemon, "PUT", f"/projects/{made}", quota)
        taken = sink.wait_for(3)
        time.sleep(0.5)
        assert 3 == len(sink.taken())

    told = [it.document for it in taken]
    assert {"delete", "quota"} == {it["event"] for it in told}
    assert ["v1", ""] == [it["tag"] for it in told if it["event"] == "delete"]
    (quota_event,) = [it["quota"] for it in told if it["event"] == "quota"]
    assert (95, used) == (quota_event["percent"], quota_event["used"])


def test_what_is_pending_outlives_a_kill(tmp_path: Path) -> None:
    """The receiver is away and the daemon is killed: both come back, and every event arrives."""
    daemon = Daemon(tmp_path, SETTINGS)
    with daemon, Sink(lambda _: "500") as sink:
        made = project(daemon, "kill")
        patient = {"max_retries": 20, "initial_delay_ms": 100, "max_delay_ms": 1000}
        hook(daemon, made, sink.url, retry_policy=patient)
        for number in range(5):
            push(daemon, "kill/app", f"v{number}")
        daemon.kill()
        daemon.start()  # while the sink refuses what is still on its way from the one killed
        sink.behave = lambda _: "200"
        taken = sink.wait_for(5)

    assert [f"v{number}" for number in range(5)] == [it.document["tag"] for it in taken]


def test_nothing_that_is_secret_is_shown(daemon: Daemon) -> None:
    """Neither answers nor the log nor the metadata tell a secret or a header's value."""
    canary = "canary-in-a-header"
    with Sink() as sink:
        made = hook(daemon, project(daemon, "canary"), sink.url, headers={"X-Key": canary})
        push(daemon, "canary/app", "v1")
        sink.wait_for(1)
        shown = [
            json.dumps(api(daemon, "GET", path))
            for path in (
                "/webhooks",
                f"/webhooks/{made}",
                f"/webhooks/{made}/deliveries",
                "/audit-logs?page_size=100",
            )
        ]
        shown.append(json.dumps(api(daemon, "PUT", f"/webhooks/{made}", {"name": "other"})))
    places = [text.encode() for text in shown]
    places += [daemon.log.read_bytes(), (daemon.state / "metadata" / "data.mdb").read_bytes()]
    for place in places:
        assert SECRET.encode() not in place
        assert canary.encode() not in place


def test_a_test_is_sent_at_once(daemon: Daemon) -> None:
    """It is answered with what came of it and kept among the deliveries; in vain, it is 502."""
    with Sink(lambda count: "200" if count == 0 else "500") as sink:
        made = hook(daemon, project(daemon, "try"), sink.url)
        tried = api(daemon, "POST", f"/webhooks/{made}/test")
        assert ("test", "delivered", 200) == (
            tried["event"],
            tried["status"],
            tried["response_status"],
        )
        api(daemon, "POST", f"/webhooks/{made}/test", status=502)
        kept = api(daemon, "GET", f"/webhooks/{made}/deliveries")["deliveries"]

    assert ["failed", "delivered"] == [it["status"] for it in kept]


def test_pulls_are_told_in_sums(tmp_path: Path) -> None:
    """Many pulls of a manifest are one event in an interval, which says how many there were."""
    settings = {**SETTINGS, "CYPD_EVENTS_PULL_INTERVAL": "1"}
    with Daemon(tmp_path, settings) as daemon, Sink() as sink:
        hook(daemon, project(daemon, "pulled"), sink.url, events=["pull"])
        document = push(daemon, "pulled/app", "v1")
        for _ in range(30):
            assert daemon.request("GET", "/v2/pulled/app/manifests/v1").status == 200
        end = time.monotonic() + 20
        while sum(it.document["pull"]["count"] for it in sink.taken()) < 30:
            assert time.monotonic() < end
            time.sleep(0.05)
        told = [it.document for it in sink.taken()]

    assert 30 == sum(it["pull"]["count"] for it in told)
    assert len(told) <= 5
    assert {("pulled/app", "v1", len(document), daemon.user)} == {
        (it["repository"], it["tag"], it["size"], it["actor"]["username"]) for it in told
    }
