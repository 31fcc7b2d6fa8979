"""SIGKILL in the middle of pushes, again and again, on the same state."""

import os
import secrets
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from random import Random

import pytest

from tests.crash import oracle
from tests.crash.client import Client
from tests.crash.pusher import Pusher
from tests.crash.shelf import Log, Shelf
from tests.daemon import Daemon

ROUNDS = int(os.environ.get("CRASH_ROUNDS") or (200 if os.environ.get("CI") else 20))
SEED = int(os.environ.get("CRASH_SEED") or secrets.randbits(32))
_LANES = 2  # daemons at a time: one of them starts while the other is pushed to
_ROUNDS_PER_STATE = 10
_PUSHERS = 4
_LONGEST = 0.25  # seconds until a kill
_TIGHT = 4_000_000  # bytes: one large blob, and a few others


@pytest.mark.timeout(60 + 3 * ROUNDS)
def test_sigkill_at_random_times(tmp_path: Path) -> None:
    """What was acknowledged before a SIGKILL is there after it, and nothing is there by half."""
    print(f"CRASH_SEED={SEED} CRASH_ROUNDS={ROUNDS}")  # noqa: T201 (shown if it fails)
    states = [
        (tmp_path / str(number), min(_ROUNDS_PER_STATE, ROUNDS - number), SEED + number)
        for number in range(0, ROUNDS, _ROUNDS_PER_STATE)
    ]
    with ThreadPoolExecutor(_LANES) as pool:
        for _ in pool.map(_crash_one_state, *zip(*states, strict=True)):
            pass


def _crash_one_state(directory: Path, rounds: int, seed: int) -> None:
    random = Random(seed)
    directory.mkdir()
    log = Log(directory / "acknowledged.jsonl")
    shelves = [Shelf(f"crash/{number}", log) for number in range(_PUSHERS)]
    # Beside half of the pushes the janitor removes what was deleted a moment ago.
    sweeps = {"CYPD_GC_INTERVAL": "0.2", "CYPD_GC_BLOB_GRACE": "0.1"}
    tight = {"CYPD_PROJECTS_DEFAULT_QUOTA": str(_TIGHT)}
    settings = random.choice([{}, sweeps]) | random.choice([{}, tight])
    daemon = Daemon(directory, settings)
    with daemon:
        del daemon.environment["CYPD_AUTH_ADMIN_PASSWORD"]  # it holds; to set it anew costs a hash
        for _ in range(rounds):
            with Client(daemon) as client:
                assert client.send("GET", "/v2/").status == 200
            _push_until_killed(daemon, shelves, random)
            log.sync()
            if random.random() < 0.2:
                _kill_while_starting(daemon, random)
            oracle.check_metadata(daemon.state, oracle.ever(shelves))
            daemon.start()
            with Client(daemon) as client:
                for shelf in shelves:
                    oracle.check(client, shelf, shelf.touched)
        _check_everything(daemon, shelves)
    log.close()


def _push_until_killed(daemon: Daemon, shelves: Sequence[Shelf], random: Random) -> None:
    killed = threading.Event()
    with ExitStack() as stack:
        # The pool is left first: a client must not be closed under the thread that reads from it.
        clients = [stack.enter_context(Client(daemon)) for _ in shelves]
        pool = stack.enter_context(ThreadPoolExecutor(len(shelves)))
        pushers = [
            Pusher(client, shelf, shelves, Random(random.random()), killed)
            for client, shelf in zip(clients, shelves, strict=True)
        ]
        running = [pool.submit(pusher.run) for pusher in pushers]
        time.sleep(random.uniform(0, _LONGEST))
        killed.set()
        daemon.kill()
    for future in running:
        future.result()


def _kill_while_starting(daemon: Daemon, random: Random) -> None:
    def kill() -> None:
        time.sleep(random.uniform(0, 0.4))
        with suppress(AssertionError):  # it was not even begun
            os.killpg(daemon.pid, signal.SIGKILL)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(kill)
        with suppress(AssertionError):  # "exit status -9 at start"
            daemon.start()
    with suppress(AssertionError):  # it is not running
        daemon.kill()


def _check_everything(daemon: Daemon, shelves: Sequence[Shelf]) -> None:
    """A last crash, everything ever asked for, and the janitor's work."""
    with Client(daemon) as client:
        for shelf in shelves:
            oracle.check(client, shelf, shelf.ever)
        before = oracle.snapshot(client, shelves)
    daemon.kill()
    oracle.check_metadata(daemon.state, oracle.ever(shelves))
    ttl = "0.1"
    daemon.environment |= {
        "CYPD_UPLOADS_SESSION_TTL": ttl,
        "CYPD_GC_BLOB_GRACE": ttl,
        "CYPD_GC_INTERVAL": ttl,
    }
    daemon.start()
    oracle.wait_until_clean(daemon.state, shelves)
    with Client(daemon) as client:
        assert oracle.snapshot(client, shelves) == before
    daemon.stop()
    oracle.check_metadata(daemon.state, oracle.ever(shelves))
