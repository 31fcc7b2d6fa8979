"""Where measurements are taken: which servers, how often, how much, in what order."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from benchmarks.figures import Figure, Result
from benchmarks.kernel import Window
from benchmarks.servers import KINDS, Server

NOISE = 0.15  # CPUs that others may keep busy before a sample is taken again


@dataclass(frozen=True)
class Scale:
    """How much work one sample is."""

    large: int = 256 << 20  # bytes of a large blob
    small: int = 10_000  # bytes of a small blob
    large_pulls: int = 4  # on each connection
    large_pushes: int = 2
    small_pushes: int = 1000
    seconds: int = 3  # under load of small pulls
    stalled_pulls: int = 300
    idle_connections: int = 2000
    rows: int = 100_000  # of a long list
    slow_clients: int = 5000


QUICK = Scale(
    large=64 << 20,
    small_pushes=300,
    seconds=1,
    stalled_pulls=100,
    idle_connections=500,
    rows=20_000,
    slow_clients=500,
)


class Sample(NamedTuple):
    """One value, and the CPUs that others kept busy while it was taken."""

    value: float
    disturbance: float = 0.0

    @classmethod
    def cpu_per(cls, units: float, window: Window) -> "Sample":
        """Return the server's CPU seconds per unit of work."""
        return cls(window.cpu / units, window.disturbance)

    @classmethod
    def per_cpu(cls, units: float, window: Window) -> "Sample":
        """Return the work done per CPU second of the server."""
        return cls(units / window.cpu, window.disturbance)

    @classmethod
    def per_second(cls, units: float, window: Window) -> "Sample":
        """Return the work done per second on the wall clock."""
        return cls(units / window.wall, window.disturbance)


@dataclass(frozen=True)
class Lab:
    """The circumstances every measurement shares."""

    servers: tuple[str, ...]
    rounds: int
    patience: float  # seconds a sample may be repeated for while others keep the machine busy
    scale: Scale
    server_cpu: int

    @contextmanager
    def running(self, *names: str, tls: bool = False) -> Iterator[Mapping[str, Server]]:
        """Run those of the named servers that take part, each from an empty state."""
        with TemporaryDirectory(prefix="benchmarks-") as directory, ExitStack() as stack:
            yield {
                name: stack.enter_context(
                    KINDS[name](Path(directory) / name, self.server_cpu, tls=tls)
                )
                for name in names
                if name in self.servers
            }

    def compare(
        self, figure: Figure, names: Iterable[str], take: Callable[[str], Sample]
    ) -> Result:
        """Take a sample of each server that takes part in every round, in alternating order."""
        return self.alternate(figure, [name for name in names if name in self.servers], take)

    def alternate(
        self, figure: Figure, order: Sequence[str], take: Callable[[str], Sample]
    ) -> Result:
        """Take a sample of each of ``order`` in every round, in alternating order."""
        samples: dict[str, list[float]] = {name: [] for name in order}
        worst = 0.0
        for number in range(self.rounds):
            for name in order if number % 2 == 0 else reversed(order):
                sample = _undisturbed(partial(take, name), self.patience)
                samples[name].append(sample.value)
                worst = max(worst, sample.disturbance)
                _progress(f"{figure.name}, round {number + 1}: {name} {sample.value:.4g}")
        return Result(figure, samples, worst)


def _undisturbed(take: Callable[[], Sample], patience: float) -> Sample:
    """Return the first sample taken in quiet; when patience ends, the least disturbed."""
    deadline = time.monotonic() + patience
    samples = [take()]
    while samples[-1].disturbance > NOISE and time.monotonic() < deadline:
        time.sleep(1)
        samples.append(take())
    return min(samples, key=lambda sample: sample.disturbance)


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
