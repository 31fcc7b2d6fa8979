"""The fuzzer: drawn requests against a running daemon, and what no answer may be.

A longer run than the test's: ``python -m tests.attacks.fuzz [requests [seed]]``.
"""

import re
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.attacks.grammar import Attempt, Grammar
from tests.attacks.watch import MIB, anonymous_memory, complaints, descriptors, eventually, kept
from tests.attacks.wire import Closed, Wire
from tests.daemon import Daemon

_CONNECTIONS = 6
_STATUS = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9]) ")


class Outcome:
    """What came back, and what should not have."""

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.wrong: list[tuple[Attempt, object]] = []

    def note(self, attempt: Attempt, status: int, answer: object) -> None:
        """Count an answer; a fault of ours is wrong, whatever was asked."""
        self.statuses[status] += 1
        # The door may say that it does not speak a method, a coding or a version.
        if status >= 500 and (attempt.is_framed or status not in (501, 505)):
            self.wrong.append((attempt, answer))


def fuzz(daemon: Daemon, requests: int, seed: int) -> Outcome:
    """Send so many requests on a few connections at once."""
    outcome = Outcome()
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        share = requests // _CONNECTIONS
        for done in [
            pool.submit(_run, daemon.port, Grammar(seed * _CONNECTIONS + number), share, outcome)
            for number in range(_CONNECTIONS)
        ]:
            done.result()
    return outcome


def _run(port: int, grammar: Grammar, requests: int, outcome: Outcome) -> None:
    wire = Wire(port)
    for _ in range(requests):
        attempt = grammar.draw()
        try:
            keep = _try_framed(wire, attempt, grammar, outcome)
        except (Closed, OSError) as error:  # OSError: it took longer than anything may
            outcome.wrong.append((attempt, error))
            keep = False
        if not keep:
            wire.close()
            wire = Wire(port)
    wire.close()


def _try_framed(wire: Wire, attempt: Attempt, grammar: Grammar, outcome: Outcome) -> bool:
    """Send a request and read what comes; return whether the connection can go on."""
    if not attempt.is_framed:
        sending = wire.send_meanwhile(attempt.data)
        sending.join(1)
        wire.finish()
        for status in _STATUS.findall(wire.rest()):
            outcome.note(attempt, int(status), status)
        return False
    wire.send(attempt.data)
    answer = wire.answer(attempt.method)
    outcome.note(attempt, answer.status, answer)
    if answer.status == 202:
        grammar.learn(answer.headers.get("location", ""))
    return answer.headers.get("connection") != "close"


def main(requests: int, seed: int) -> int:
    """Fuzz a daemon of its own and say what came of it."""
    settings = {"CYPD_UPLOADS_MAX_SESSIONS_PER_USER": "200"}
    with tempfile.TemporaryDirectory() as folder, Daemon(Path(folder), settings) as daemon:
        fuzz(daemon, 600, seed + 1)
        before, memory = descriptors(daemon), anonymous_memory(daemon)
        start = time.monotonic()
        outcome = fuzz(daemon, requests, seed)
        seconds = time.monotonic() - start
        closed = eventually(lambda: not kept(daemon, before))
        grown = (anonymous_memory(daemon) - memory) / MIB
        faults = complaints(daemon)
    report = (
        f"{requests} requests in {seconds:.0f} s; answers {dict(sorted(outcome.statuses.items()))}",
        f"wrong: {len(outcome.wrong)}, complaints: {len(faults)}, descriptors back: {closed}, "
        f"RssAnon {grown:+.1f} MiB",
        *(f"{attempt!r:.2000} -> {answer!r:.600}" for attempt, answer in outcome.wrong[:10]),
        *faults[:10],
    )
    sys.stdout.write("\n".join(report) + "\n")
    return int(bool(outcome.wrong or faults or not closed))


if __name__ == "__main__":
    count, seed = [int(argument) for argument in sys.argv[1:]] + [500_000, 1][len(sys.argv) - 1 :]
    sys.exit(main(count, seed))
