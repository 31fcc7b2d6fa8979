"""SIGKILL of the daemon, of the store that its blobs are in, and of both, while clients push."""

import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import HTTPException
from pathlib import Path
from random import Random

import pytest

from cypd.metadata.lmdb import LmdbMetadata
from cypd.oci.digest import Digest
from tests.bucket import Bucket
from tests.crash import oracle
from tests.crash.client import Client
from tests.crash.pusher import Pusher
from tests.crash.shelf import Log, Shelf
from tests.daemon import Daemon, Response
from tests.weed import Weed

ROUNDS = int(os.environ.get("CRASH_ROUNDS") or (50 if os.environ.get("CI") else 6))
SEED = int(os.environ.get("CRASH_SEED") or secrets.randbits(32))
_ROUNDS_PER_STATE = 10
_PUSHERS = 4
_LONGEST = 1.0  # seconds until a kill
_PROBE = b"is there a store?"
_PROBE_DIGEST = str(Digest.of(_PROBE))
_SWEEPS = {"CYPD_GC_INTERVAL": "0.3", "CYPD_GC_BLOB_GRACE": "0.1"}


class Away(HTTPException):
    """The daemon could not do it, or this client has been told to stop."""


class StoppableClient(Client):
    """A client to whom a failure of the registry's is the same as none to talk to."""

    def __init__(self, daemon: Daemon, stopped: threading.Event) -> None:
        super().__init__(daemon, timeout=120)
        self._stopped = stopped

    def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Send a request; raise ``Away`` where the daemon blames itself."""
        if self._stopped.is_set():
            raise Away
        response = super().send(method, path, body, headers)
        if response.status >= 500:
            raise Away(f"{method} {path}: {response.status} {response.body!r}")
        return response


@pytest.mark.waits
@pytest.mark.timeout(300 + 60 * ROUNDS)
def test_daemon_and_store_are_killed_at_random_times(tmp_path: Path) -> None:
    """What was acknowledged stays, and the janitor leaves nothing else in the store."""
    print(f"CRASH_SEED={SEED} CRASH_ROUNDS={ROUNDS}")  # noqa: T201 (shown if it fails)
    for number in range(0, ROUNDS, _ROUNDS_PER_STATE):
        rounds = min(_ROUNDS_PER_STATE, ROUNDS - number)
        _crash_one_state(tmp_path / str(number), rounds, Random(SEED + number))


def _crash_one_state(directory: Path, rounds: int, random: Random) -> None:
    directory.mkdir()
    log = Log(directory / "acknowledged.jsonl")
    shelves = [Shelf(f"crash/{number}", log) for number in range(_PUSHERS)]
    settings = random.choice([{}, _SWEEPS])
    with Weed(directory) as weed, Daemon(directory, weed.environment | settings) as daemon:
        del daemon.environment["CYPD_AUTH_ADMIN_PASSWORD"]  # it holds; to set it anew costs a hash
        victims: list[tuple[Daemon | Weed, ...]] = [(daemon,), (weed,), (daemon, weed)]
        for _ in range(rounds):
            _wait_until_well(daemon)
            killed = random.choice(victims)
            _push_until_killed(daemon, shelves, random, killed)
            log.sync()
            if daemon in killed:
                oracle.check_metadata(daemon.state, _ever(shelves))
                daemon.start()
            _wait_until_well(daemon)
            with Client(daemon, timeout=120) as client:
                for shelf in shelves:
                    oracle.check(client, shelf, shelf.touched)
        _check_everything(daemon, Bucket(weed), shelves)
    log.close()


def _push_until_killed(
    daemon: Daemon, shelves: Sequence[Shelf], random: Random, victims: Sequence[Daemon | Weed]
) -> None:
    """Push, kill the victims, and start the store again where it is one of them."""
    killed, stopped = threading.Event(), threading.Event()
    with ExitStack() as stack:
        # The pool is left first: a client must not be closed under the thread that reads from it.
        clients = [stack.enter_context(StoppableClient(daemon, stopped)) for _ in shelves]
        pool = stack.enter_context(ThreadPoolExecutor(len(shelves)))
        pushers = [
            Pusher(client, shelf, shelves, Random(random.random()), killed)
            for client, shelf in zip(clients, shelves, strict=True)
        ]
        running = [pool.submit(pusher.run) for pusher in pushers]
        time.sleep(random.uniform(0, _LONGEST))
        killed.set()
        for victim in random.sample(victims, len(victims)):
            victim.kill()
        for victim in victims:
            if isinstance(victim, Weed):
                time.sleep(random.uniform(0, _LONGEST))  # some find nobody, some an old connection
                victim.start()
        stopped.set()
    for future in running:
        future.result()


def _wait_until_well(daemon: Daemon) -> None:
    """Wait until the daemon has noticed that the store is there."""

    def push() -> bool:
        with Client(daemon) as client:
            return client.push("probe/probe", _PROBE_DIGEST, _PROBE) == 201

    _wait_until(push, "nothing can be pushed", 120)


def _check_everything(daemon: Daemon, bucket: Bucket, shelves: Sequence[Shelf]) -> None:
    """A last crash, everything ever asked for, and the janitor's work."""
    with Client(daemon, timeout=120) as client:
        for shelf in shelves:
            oracle.check(client, shelf, shelf.ever)
        before = oracle.snapshot(client, shelves)
    daemon.kill()
    oracle.check_metadata(daemon.state, _ever(shelves))
    daemon.environment |= {
        "CYPD_UPLOADS_SESSION_TTL": "0.1",
        "CYPD_GC_BLOB_GRACE": "0.1",
        "CYPD_GC_INTERVAL": "0.3",
    }
    daemon.start()
    _wait_until(lambda: not _litter(daemon.state, bucket), "the janitor leaves litter", 120)
    with Client(daemon, timeout=120) as client:
        assert oracle.snapshot(client, shelves) == before
    daemon.stop()
    oracle.check_metadata(daemon.state, _ever(shelves))


def _ever(shelves: Sequence[Shelf]) -> set[str]:
    return oracle.ever(shelves) | {_PROBE_DIGEST}


def _litter(state: Path, bucket: Bucket) -> list[str]:
    """Return what nobody has a use for: sessions, parts, multipart uploads, and blobs."""
    metadata = LmdbMetadata(state / "metadata", 1 << 30)
    try:
        sessions = [it.id for it in metadata.registry.uploads(started_before=float("inf"))]
        held = {digest.hex for digest, _ in metadata.registry.held(after="", limit=1_000_000)}
    finally:
        metadata.close()
    return [*sessions, *bucket.unfinished(), *(bucket.blobs() - held)]


def _wait_until(condition: Callable[[], bool], failure: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, failure
        time.sleep(0.1)
