"""Run the benchmarks: ``python -m benchmarks [names…] [--rounds 5] [--quick] [--strict]``."""

import argparse
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import (
    credentials,
    crowd,
    dead_webhooks,
    large_pulls,
    large_pushes,
    lists,
    machine,
    memory,
    report,
    s3,
    scans,
    scrape,
    slow_clients,
    small_pulls,
    small_pushes,
    tls_pulls,
    workers,
)
from benchmarks.figures import Result
from benchmarks.lab import QUICK, Lab, Scale
from benchmarks.servers import KINDS

CLAIMS: Mapping[str, Callable[[Lab], Iterable[Result]]] = {
    "large-pulls": large_pulls.run,
    "tls-pulls": tls_pulls.run,
    "small-pulls": small_pulls.run,
    "credentials": credentials.run,
    "lists": lists.run,
    "large-pushes": large_pushes.run,
    "small-pushes": small_pushes.run,
    "dead-webhooks": dead_webhooks.run,
    "scans": scans.run,
    "memory": memory.run,
    "workers": workers.run,
    "scrape": scrape.run,
    "crowd": crowd.run,
    "slow-clients": slow_clients.run,
    "s3": s3.run,
}
RESULTS = Path(__file__).with_name("results")
MISSED, UNABLE, ENDED = 1, 2, 128


def main() -> int:
    """Measure, show and keep the figures; return the exit status."""
    arguments = _parse()
    if packages := machine.missing_packages():
        print(f"missing; install with: apt install {' '.join(packages)}", file=sys.stderr)
        return UNABLE
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        print("two CPUs are needed, one for the server and one for the client", file=sys.stderr)
        return UNABLE
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(ENDED + number))
    os.sched_setaffinity(0, {cpus[1]})
    _allow_many_connections()

    lab = Lab(
        servers=tuple(arguments.server or KINDS),
        rounds=arguments.rounds or (1 if arguments.quick else 5),
        patience=arguments.patience,
        scale=QUICK if arguments.quick else Scale(),
        server_cpu=cpus[0],
    )
    facts = machine.describe()
    results, failures = _run(lab, arguments.names or list(CLAIMS))
    _keep(facts, results, lab.servers)
    if failures:
        return UNABLE
    missed = any(verdict.met is False for result in results for verdict in result.verdicts())
    return MISSED if missed and arguments.strict else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"which ones of {', '.join(CLAIMS)} (all)")
    parser.add_argument("--rounds", type=int, help="samples of each figure (5, or 1 with --quick)")
    parser.add_argument(
        "--patience",
        type=float,
        default=10,
        metavar="SECONDS",
        help="how long to repeat a sample while others keep the machine busy (%(default)s)",
    )
    parser.add_argument("--quick", action="store_true", help="less of everything: a smoke test")
    parser.add_argument("--strict", action="store_true", help="exit 1 if a target is missed")
    parser.add_argument(
        "--server", action="append", choices=KINDS, help="only this one (repeatable)"
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(CLAIMS):
        parser.error(f"no benchmark is named {', '.join(unknown)}")
    return arguments


def _run(lab: Lab, names: Sequence[str]) -> tuple[list[Result], int]:
    """Return the results and the number of benchmarks that could not be finished."""
    results: list[Result] = []
    failures = 0
    for name in names:
        try:
            results.extend(CLAIMS[name](lab))
        except (OSError, subprocess.SubprocessError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            failures += 1
    return results, failures


def _keep(facts: Mapping[str, str], results: Sequence[Result], servers: Sequence[str]) -> None:
    text = report.markdown(facts, results, servers)
    print(text)
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{datetime.now(UTC):%Y-%m-%dT%H%M%S}"
    file.with_suffix(".md").write_text(text)
    file.with_suffix(".json").write_text(report.as_json(facts, results))


def _allow_many_connections() -> None:
    """Raise the limit of open files, for the servers too, which inherit it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(ENDED + signal.SIGINT)
