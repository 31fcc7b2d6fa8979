"""Guessing passwords tells nothing, gets slow, and is nobody else's trouble."""

import json
import secrets
import subprocess
import sys
import time
from math import sqrt
from pathlib import Path
from random import Random
from statistics import mean, quantiles, variance

import pytest

from tests.attacks.wire import Wire, ask, request
from tests.daemon import USER, Daemon, basic

# No throttle: every guess is hashed, as those of a crowd of addresses would be.
UNTHROTTLED = {
    "CYPD_AUTH_MAX_FAILURES_PER_ACCOUNT": "1000000",
    "CYPD_AUTH_MAX_FAILURES_PER_ADDRESS": "1000000",
}
_SAMPLES = 1000  # of each kind
_FLOOD = 500  # guesses a second
_SECONDS = 6


@pytest.mark.timeout(600)
def test_an_unknown_name_takes_as_long_as_a_wrong_password(tmp_path: Path) -> None:
    """Status, body and time of the answer are the same: Welch's t of 2,000 samples below 4.5."""
    names = [USER, "nobody"] * _SAMPLES
    Random(1).shuffle(names)
    times: dict[str, list[float]] = {USER: [], "nobody": []}
    answers = set()
    with Daemon(tmp_path, UNTHROTTLED) as daemon, Wire(daemon.port) as wire:
        for name in names:
            field = ("Authorization", basic(name, secrets.token_hex(8)))
            message = request("GET", "/v2/", fields=[field])
            start = time.perf_counter()
            wire.send(message)
            answer = wire.answer()
            times[name].append(time.perf_counter() - start)
            answers.add((answer.status, answer.body))

    assert 1 == len(answers)
    assert abs(_welch(*times.values())) < 4.5


def _welch(one: list[float], other: list[float]) -> float:
    """Return Welch's t of two samples."""
    error = sqrt(variance(one) / len(one) + variance(other) / len(other))
    return (mean(one) - mean(other)) / error


@pytest.mark.alone
def test_a_flood_of_guesses_slows_nobody_else(tmp_path: Path) -> None:
    """At 500 wrong passwords a second, none of them throttled, others' p99 is below 50 ms."""
    with Daemon(tmp_path, UNTHROTTLED) as daemon:
        token = json.loads(ask(daemon.port, "GET", "/v2/auth", auth=True).body)["token"]
        command = [sys.executable, "-m", "tests.attacks.guesses"]
        arguments = [str(daemon.port), str(_FLOOD), str(_SECONDS)]
        with subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE) as flood:
            time.sleep(1)  # until its queues are full
            times = _probe(daemon.port, f"Bearer {token}", _SECONDS - 2)
            answered = int(flood.communicate()[0])

    assert answered > 0.9 * _FLOOD * _SECONDS
    assert quantiles(times, n=100)[98] < 0.05


def _probe(port: int, authorization: str, seconds: float) -> list[float]:
    """Return how long others wait for their answers."""
    message = request("GET", "/v2/", fields=[("Authorization", authorization)])
    times = []
    until = time.monotonic() + seconds
    with Wire(port) as wire:
        while time.monotonic() < until:
            start = time.perf_counter()
            wire.send(message)
            assert wire.answer().status == 200
            times.append(time.perf_counter() - start)
            time.sleep(0.002)
    return times
