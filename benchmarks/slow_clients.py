"""Claim: thousands of slow clients keep nobody waiting, and are gone within 40 seconds."""

import base64
import json
import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks import oci
from benchmarks.figures import SUBJECT, Figure, Result, Target
from benchmarks.kernel import Window
from benchmarks.lab import Lab, Sample
from benchmarks.oci import Blob
from benchmarks.pulse import Pulse
from benchmarks.servers import Server

QUIET = "cypd, no slow clients"
_RATE = 300
_QUIET_SECONDS = 10
_BLOB_BYTES = 8 << 20
_MOST_RATIO = 2.0
_MOST_SECONDS = 40.0


def run(lab: Lab) -> Iterator[Result]:
    """GET a manifest 300 times a second, beside clients that dribble headers, bodies and reads."""
    if SUBJECT not in lab.servers:
        return
    yield from _measure(lab, lab.scale.slow_clients, tls=False)
    yield from _measure(lab, lab.scale.slow_clients // 5, tls=True)


def _measure(lab: Lab, count: int, *, tls: bool) -> Iterator[Result]:
    clients = f"{count:,} slow clients" + (" by TLS" if tls else "")
    title = f"p99 of GET manifest, {_RATE}/s beside {clients}"
    p99 = Figure(title, "ms", "lower", [Target(_MOST_RATIO, QUIET)])
    last = Figure(f"the last of {clients} closed after", "s", "lower", [Target(_MOST_SECONDS)])
    seconds: list[float] = []
    with lab.running(SUBJECT, tls=tls) as servers:
        server = servers[SUBJECT]
        blob = server.put_blob(Blob.of(bytes(_BLOB_BYTES)))
        config = Blob.of(b"{}")
        server.put_blob(config)
        manifest = server.put_manifest(oci.manifest(config, []))

        def take(name: str) -> Sample:
            with Window(server.pid) as window, Pulse(server.anonymous, manifest, _RATE) as pulse:
                if name == QUIET:
                    time.sleep(_QUIET_SECONDS)
                else:
                    seconds.append(_dribble(server, count, blob))
            return Sample(pulse.percentile(0.99) * 1000, window.disturbance)

        yield lab.alternate(p99, [QUIET, SUBJECT], take)
    yield Result(last, {SUBJECT: seconds}, 0.0)


def _dribble(server: Server, count: int, blob: str) -> float:
    """Let slow clients come; return how long the last was borne, once all are gone."""
    credentials = (server.credentials or "").encode()
    authorization = "Basic " + base64.b64encode(credentials).decode()
    port, trusted = server.port, list[str]()
    if server.tls_port is not None:
        port, trusted = server.tls_port, [str(server.directory / "root.pem")]
    # What is measured beside them shall wait for the server, not for them: they run when the core
    # has nothing else to do (sched(7), SCHED_IDLE).
    command = ["chrt", "--idle", "0", sys.executable, "-m", "benchmarks.dribble"]
    arguments = [str(port), str(count), blob, authorization, *trusted]
    done = subprocess.run([*command, *arguments], check=True, stdout=subprocess.PIPE)
    outcome = json.loads(done.stdout)
    if outcome["closed"] < count:
        raise ConnectionError(f"{count - outcome['closed']} slow clients are still there")
    return float(outcome["longest"])
