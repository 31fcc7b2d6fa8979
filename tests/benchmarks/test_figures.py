"""Medians, and how they stand to their targets."""

from collections.abc import Mapping, Sequence
from typing import Literal

import pytest

from benchmarks.figures import Figure, Result, Target, Verdict


def _result(
    better: Literal["lower", "higher"], target: Target, samples: Mapping[str, Sequence[float]]
) -> Result:
    return Result(Figure("a measure", "CPU-s", better, [target]), samples, 0.0)


def test_the_value_is_the_median() -> None:
    """One sample that went wrong does not move a figure."""
    result = _result("lower", Target(1), {"cypd": [2.0, 90.0, 3.0]})

    assert result.value("cypd") == 3.0


@pytest.mark.parametrize(
    ("better", "target", "reached", "met"),
    [
        ("lower", Target(1.3, "nginx"), 2.0, False),
        ("lower", Target(2, "nginx"), 2.0, True),
        ("higher", Target(2, "nginx"), 2.0, True),
        ("higher", Target(2.1, "nginx"), 2.0, False),
        ("lower", Target(10), 10.0, True),
        ("lower", Target(9), 10.0, False),
    ],
)
def test_a_target_is_met_at_its_limit(
    better: Literal["lower", "higher"], target: Target, reached: float, met: bool
) -> None:
    """Less is better for a cost, more for a rate; a peer named is the unit."""
    result = _result(better, target, {"cypd": [10.0], "nginx": [5.0]})

    assert result.verdicts() == [Verdict(target, reached, met)]


@pytest.mark.parametrize("samples", [{"cypd": [1.0]}, {"nginx": [1.0]}])
def test_no_verdict_without_both_servers(samples: Mapping[str, Sequence[float]]) -> None:
    """A server left out of the run decides nothing."""
    target = Target(1, "nginx")

    assert _result("lower", target, samples).verdicts() == [Verdict(target, None, None)]
