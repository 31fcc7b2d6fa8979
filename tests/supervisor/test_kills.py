"""Workers that are killed, again and again, under pushes and pulls."""

import asyncio
import os
import signal
import threading
import time
from pathlib import Path
from random import Random

import pytest

from cypd.oci.digest import Digest
from tests.crash import oracle
from tests.crash.client import Client
from tests.crash.pusher import Pusher
from tests.crash.shelf import Log, Shelf
from tests.supervisor.load import Load
from tests.supervisor.workers import Service

KILLS = 60 if os.environ.get("CI") else 8  # one a second, where there is time to start again
PUSHERS = 3
PAUSE = 0.05  # seconds between what one of them does
BLOB = Random(3).randbytes(2000)


@pytest.mark.waits
@pytest.mark.timeout(1200)
async def test_a_kill_every_second_loses_nothing(tmp_path: Path) -> None:
    """What was acknowledged is there whichever worker dies, and the other serves all the while."""
    print(f"CRASH_SEED={(seed := int(os.environ.get('CRASH_SEED') or time.time_ns()))}")  # noqa: T201
    log = Log(tmp_path / "acknowledged.jsonl")
    shelves = [Shelf(f"killed/{number}", log) for number in range(PUSHERS)]
    with Service(tmp_path, {"CYPD_ACCESS_ANONYMOUS": "pull"}) as service:
        with Client(service) as client:
            assert client.push("killed/pulled", str(Digest.of(BLOB)), BLOB) == 201
        path = f"/v2/killed/pulled/blobs/{Digest.of(BLOB)}"
        load = Load(service.port, path, BLOB, per_second=50)
        loading = asyncio.ensure_future(load.run())
        over, calm = threading.Event(), threading.Lock()
        pushing = [
            asyncio.create_task(
                asyncio.to_thread(push, service, shelf, shelves, Random(seed + number), over, calm)
            )
            for number, shelf in enumerate(shelves)
        ]
        await asyncio.to_thread(kill, service, Random(seed), calm)
        over.set()
        cuts = [await it for it in pushing]
        load.stop()
        await loading
        with Client(service) as client:
            for shelf in shelves:
                oracle.check(client, shelf, shelf.ever)
        service.stop()
        oracle.check_metadata(service.state, oracle.ever(shelves) | {str(Digest.of(BLOB))})
    log.close()

    assert sum(cuts) >= KILLS / 4
    # Whoever is cut off was with the worker that died; nobody is refused, or waits for long.
    assert load.outcomes.keys() <= {"200", "ConnectionResetError", ", cut", "200, cut"}
    assert load.outcomes["200"] >= load.sent * 0.9


def kill(service: Service, random: Random, calm: threading.Lock) -> None:
    """Kill one of two workers, again and again, as soon as both serve."""
    for _ in range(KILLS):
        time.sleep(1)
        dead = random.choice(service.wait_until_complete(60))
        with calm:
            os.kill(dead, signal.SIGKILL)
            while dead in service.workers():
                time.sleep(0.01)
    service.wait_until_complete(60)


def push(
    service: Service,
    shelf: Shelf,
    shelves: list[Shelf],
    random: Random,
    over: threading.Event,
    calm: threading.Lock,
) -> int:
    """Push until it is over, and after each cut hold the service to what it said."""
    killed = threading.Event()
    killed.set()  # at any time
    cuts = 0
    while not over.is_set():
        with Client(service) as client:
            Pusher(client, shelf, shelves, random, killed, over, PAUSE).run()
        cuts += not over.is_set()
        with calm, Client(service) as client:
            # What a worker had written when it died, and told nobody, is seen from the next write
            # on: LMDB's next writer learns of it by the lock that the dead one has left.
            assert client.push(f"{shelf.repository}-mark", str(Digest.of(BLOB)), BLOB) == 201
            oracle.check(client, shelf, shelf.touched)
    return cuts
