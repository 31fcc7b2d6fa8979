"""Figures, the targets set for them, and the samples they rest on. Pure values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

SUBJECT = "cypd"


@dataclass(frozen=True)
class Target:
    """A limit for the subject's figure: absolute, or as a multiple of a peer's."""

    limit: float
    peer: str | None = None


@dataclass(frozen=True)
class Figure:
    """Something measured, the same way for every server."""

    name: str
    unit: str
    better: Literal["lower", "higher"]
    targets: Sequence[Target] = ()


@dataclass(frozen=True)
class Verdict:
    """What came of a target; nothing yet if one of the two servers was not measured."""

    target: Target
    reached: float | None
    met: bool | None


@dataclass(frozen=True)
class Result:
    """The samples of a figure, by server, in the order they were taken."""

    figure: Figure
    samples: Mapping[str, Sequence[float]]
    disturbance: float  # the worst of any sample kept: CPUs busy with something else

    def value(self, server: str) -> float | None:
        """Return the median of a server's samples."""
        samples = self.samples.get(server)
        return median(samples) if samples else None

    def verdicts(self) -> Sequence[Verdict]:
        """Hold the figure against each of its targets."""
        return [self._judge(target) for target in self.figure.targets]

    def _judge(self, target: Target) -> Verdict:
        own = self.value(SUBJECT)
        base = 1.0 if target.peer is None else self.value(target.peer)
        if own is None or base is None:
            return Verdict(target, None, None)
        reached = own / base
        lower = self.figure.better == "lower"
        return Verdict(
            target, reached, reached <= target.limit if lower else reached >= target.limit
        )
