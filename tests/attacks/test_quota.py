"""Quotas of a real daemon: sixty-four clients at the edge, and bodies that are never asked for."""

import os
import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest

from cypd.metadata.lmdb import LmdbMetadata
from cypd.oci.digest import Digest
from cypd.oci.media_types import OCI_MANIFEST
from cypd.projects.ports import Usage
from tests.attacks.watch import complaints
from tests.attacks.wire import Wire, ask, request
from tests.crash.client import Client
from tests.daemon import Daemon, Response
from tests.metadata.recount import check_counters
from tests.samples import image

CLIENTS = 64
ROUNDS = int(os.environ.get("QUOTA_ROUNDS") or (200 if os.environ.get("CI") else 12))
SEED = int(os.environ.get("QUOTA_SEED") or secrets.randbits(32))
_SMALL, _LARGE = 30_000, 1_200_000  # the larger has to be reserved
QUOTA = _LARGE + 20 * _SMALL
_SOURCES = [Random(number).randbytes(_SMALL) for number in range(8)]


class Taken(NamedTuple):
    """What a client was told that it has."""

    digest: Digest
    size: int
    path: str


@pytest.fixture(scope="module")
def tight(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon where a project holds one large blob and a few small ones."""
    settings = {
        "CYPD_PROJECTS_DEFAULT_QUOTA": str(QUOTA),
        "CYPD_MANIFESTS_ALLOW_SPARSE": "true",
    }
    with Daemon(tmp_path_factory.mktemp("tight"), settings) as daemon:
        yield daemon
        assert complaints(daemon) == []


class Meter:
    """What a project takes, read from the store beside the daemon."""

    def __init__(self, state: Path, name: str) -> None:
        self._metadata = LmdbMetadata(state / "metadata", 1 << 30)
        standing = self._metadata.projects.standing(name, "")
        assert standing is not None
        self._project_id = standing.project.id
        self._ending = threading.Event()
        self._watch = threading.Thread(target=self._look)
        self.highest = 0
        self._watch.start()

    def usage(self) -> Usage:
        """Return what it takes at this moment."""
        return self._metadata.projects.usage(self._project_id)

    def recount(self, digests: set[Digest]) -> None:
        """Hold the counters to what is there."""
        check_counters(self._metadata, digests)

    def close(self) -> None:
        """Stop watching."""
        self._ending.set()
        self._watch.join()
        self._metadata.close()

    def _look(self) -> None:
        while not self._ending.wait(0.001):
            usage = self.usage()
            self.highest = max(self.highest, usage.used + usage.reserved)


@pytest.mark.timeout(60 + 4 * ROUNDS)
def test_no_round_is_a_byte_over(tight: Daemon) -> None:
    """After each round what was acknowledged is what is used, to the byte; and after deletes."""
    print(f"QUOTA_SEED={SEED} QUOTA_ROUNDS={ROUNDS}")  # noqa: T201 (shown if it fails)
    ever = {Digest.of(content) for content in _SOURCES}
    refusals = 0
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(tight)) for _ in range(CLIENTS)]
        for source in _SOURCES:
            assert clients[0].push("source/app", Digest.of(source), source) == 201
        assert clients[0].push("edge/one", Digest.of(b"first"), b"first") == 201
        assert clients[0].send("DELETE", f"/v2/edge/one/blobs/{Digest.of(b'first')}").status == 202
        meter = Meter(tight.state, "edge")
        stack.callback(meter.close)
        pool = stack.enter_context(ThreadPoolExecutor(CLIENTS))
        for number in range(ROUNDS):
            attackers = [
                _Attacker(tight, client, Random(f"{SEED} {number} {index}"), number, index)
                for index, client in enumerate(clients)
            ]
            taken = [it for it in pool.map(_Attacker.attack, attackers) if it]
            sizes = {it.digest: it.size for it in taken}
            assert meter.usage()[:2] == (sum(sizes.values()), 0), (number, taken)
            refusals += CLIENTS - len(taken)
            ever |= sizes.keys()
            for path, client in zip({it.path for it in taken}, clients, strict=False):
                assert client.send("DELETE", path).status == 202
            assert meter.usage() == (0, 0, 0, 0)
        assert 0 < meter.highest <= QUOTA
        meter.recount(ever)
    assert refusals > ROUNDS


class _Attacker:
    """One client of one round: it takes what it can get, in one of many ways."""

    def __init__(
        self, daemon: Daemon, client: Client, random: Random, number: int, index: int
    ) -> None:
        self._daemon = daemon
        self._client = client
        self._random = random
        self._repository = f"edge/{random.choice(['one', 'two'])}"
        self._shared = Random(number).randbytes(_SMALL)
        ways: list[Callable[[], Taken | None]] = [
            self._push, self._push, self._push_shared, self._upload, self._stream, self._mount,
            self._manifest, self._break_off,
        ]  # fmt: skip
        self._way = self._push_large if index % 16 == 0 else ways[index % len(ways)]

    def attack(self) -> Taken | None:
        """Do it; return what was taken."""
        return self._way()

    def _push(self) -> Taken | None:
        return self._push_blob(self._random.randbytes(_SMALL))

    def _push_shared(self) -> Taken | None:
        return self._push_blob(self._shared)

    def _push_large(self) -> Taken | None:
        return self._push_blob(self._random.randbytes(_LARGE))

    def _push_blob(self, content: bytes) -> Taken | None:
        digest = Digest.of(content)
        path = f"/v2/{self._repository}/blobs/uploads/?digest={digest}"
        return self._taken(self._client.send("POST", path, content), digest, len(content))

    def _upload(self) -> Taken | None:
        return self._finish(self._random.randbytes(_SMALL), chunked=False)

    def _stream(self) -> Taken | None:
        return self._finish(self._random.randbytes(_SMALL), chunked=True)

    def _finish(self, content: bytes, *, chunked: bool) -> Taken | None:
        location = self._client.open_session(self._repository)
        head = content[: _SMALL // 2]
        if chunked:
            response = self._daemon.request("PATCH", location, body=iter([head]))
        else:
            response = self._client.send("PATCH", location, head)
        digest = Digest.of(content)
        if response.status == 202:
            path = f"{location}?digest={digest}"
            response = self._client.send("PUT", path, content[_SMALL // 2 :])
            if response.status == 201:
                return self._taken(response, digest, len(content))
        assert response.status == 403
        assert self._client.send("DELETE", location).status == 204
        return None

    def _mount(self) -> Taken | None:
        content = self._random.choice(_SOURCES)
        digest = Digest.of(content)
        path = f"/v2/{self._repository}/blobs/uploads/?mount={digest}&from=source/app"
        return self._taken(self._client.send("POST", path, b""), digest, len(content))

    def _manifest(self) -> Taken | None:
        lie = image(b"layer", note=self._random.randbytes(20_000).hex())
        lie = lie.replace(b'"size": 5', b'"size": 0')
        path = f"/v2/{self._repository}/manifests/{Digest.of(lie)}"
        response = self._client.send("PUT", path, lie, {"Content-Type": OCI_MANIFEST})
        return self._taken(response, Digest.of(lie), len(lie), "manifests")

    def _break_off(self) -> Taken | None:
        location = self._client.open_session(self._repository)
        with Wire(self._daemon.port) as wire:
            fields = [("Content-Length", str(_LARGE))]
            wire.send(request("PATCH", location, b"0" * (_LARGE // 2), fields))
            if self._random.random() < 0.5:
                wire.finish()
                assert wire.answer().status in (400, 403)
        while self._client.send("DELETE", location).status != 204:
            pass
        return None

    def _taken(
        self, response: Response, digest: Digest, size: int, kind: str = "blobs"
    ) -> Taken | None:
        if response.status == 403:
            assert b'"left"' in response.body
            return None
        assert response.status == 201, response
        return Taken(digest, size, f"/v2/{self._repository}/{kind}/{digest}")


@pytest.mark.parametrize("length", [QUOTA + 1, 1 << 40, 10**18 - 1])
def test_a_body_that_does_not_fit_is_never_asked_for(tight: Daemon, length: int) -> None:
    """403 in place of 100-continue, with what is left, for each way to push a blob."""
    session = ask(tight.port, "POST", "/v2/expect/app/blobs/uploads/", b"").headers["location"]
    digest = Digest.of(b"whatever")
    for method, target in (
        ("POST", f"/v2/expect/app/blobs/uploads/?digest={digest}"),
        ("PATCH", session),
        ("PUT", f"{session}?digest={digest}"),
    ):
        with Wire(tight.port) as wire:
            fields = [("Expect", "100-continue"), ("Content-Length", str(length))]
            wire.send(request(method, target, None, fields))
            answer = wire.answer(method)
        assert answer.status == 403, (method, answer)
        assert f'"left":{QUOTA}'.encode() in answer.body
    assert ask(tight.port, "GET", session).status == 204
