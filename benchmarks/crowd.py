"""Claims: a crowd of large pulls keeps no small one waiting, and limits cost next to nothing."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import oci
from benchmarks.figures import SUBJECT, Figure, Result, Target
from benchmarks.kernel import Window
from benchmarks.lab import Lab, Sample
from benchmarks.oci import Blob
from benchmarks.pulse import Pulse
from benchmarks.servers import Server
from cypd.config import Limits
from cypd.doors.asgi import Application, Message, Receive, Scope, Send
from cypd.limits import Rates

QUIET = "cypd, no large pulls"
_RATE = 300
_CROWD = 32
_SECONDS = 5
_MOST_RATIO = 3.0
_CALLS = 200_000
_MOST_MICROSECONDS = 1.5
_CLIENTS = 1000


def run(lab: Lab) -> Iterator[Result]:
    """GET a manifest 300 times a second beside one client's 32 large pulls; time the limits."""
    if SUBJECT not in lab.servers:
        return
    p99 = Figure(
        f"p99 of GET manifest, {_RATE}/s beside {_CROWD} large pulls of one client",
        "ms",
        "lower",
        [Target(_MOST_RATIO, QUIET)],
    )
    with lab.running(SUBJECT) as servers:
        server = servers[SUBJECT]
        blob = server.put_blob(Blob.of(bytes(lab.scale.large)))
        config = Blob.of(b"{}")
        server.put_blob(config)
        manifest = server.put_manifest(oci.manifest(config, []))

        def take(name: str) -> Sample:
            if name == QUIET:
                return _pulse(server, manifest)
            with _greedy(server, blob):
                return _pulse(server, manifest)

        yield lab.alternate(p99, [QUIET, SUBJECT], take)
    cost = Figure("a limit of requests, added to each", "µs", "lower", [Target(_MOST_MICROSECONDS)])
    yield lab.alternate(cost, [SUBJECT], lambda _: _limits_cost())


def _pulse(server: Server, path: str) -> Sample:
    with Window(server.pid) as window, Pulse(server.anonymous, path, _RATE) as pulse:
        time.sleep(_SECONDS)
    return Sample(pulse.percentile(0.99) * 1000, window.disturbance)


@contextmanager
def _greedy(server: Server, blob: str) -> Iterator[None]:
    # It takes what is left of the CPU that it shares with who measures.
    program = ["nice", "-n", "19", sys.executable, "-m", "benchmarks.greedy"]
    command = [*program, str(server.port), blob, str(_CROWD)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        try:
            time.sleep(1)  # it has begun on all its connections
            yield
        finally:
            process.kill()


async def _nothing(_scope: Scope, _receive: Receive, _send: Send) -> None:
    pass


async def _refuse(_scope: Scope, _receive: Receive, _send: Send, _seconds: int) -> None:
    raise AssertionError("there is a limit, and nobody comes near it")


async def _receive() -> Message:
    return {"type": "http.disconnect"}


async def _send(_message: Message) -> None:
    pass


def _limits_cost() -> Sample:
    """Return the microseconds that a limit adds to a call of an application that does nothing."""
    limited = Rates(Limits(requests_per_client=1e9)).limited(_nothing, _refuse)
    with_limit, without = (
        min(_time(application) for _ in range(3)) for application in (limited, _nothing)
    )
    return Sample((with_limit - without) / _CALLS * 1e6)


def _time(application: Application) -> float:
    scopes: list[Scope] = [
        {"client": (f"192.0.2.{number % 256}", number), "scheme": "http"}
        for number in range(_CLIENTS)
    ]
    begun = time.process_time()
    for scope in scopes * (_CALLS // _CLIENTS):
        try:
            application(scope, _receive, _send).send(None)
        except StopIteration:
            continue
    return time.process_time() - begun
