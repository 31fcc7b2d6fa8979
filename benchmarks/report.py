"""The tables of a run, as Markdown for screen and file, and as JSON."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

from benchmarks.figures import SUBJECT, Figure, Result, Target, Verdict


def markdown(machine: Mapping[str, str], results: Sequence[Result], servers: Sequence[str]) -> str:
    """Return the machine, the figures and the targets."""
    return "\n".join(
        [
            *(f"- {key}: {value}" for key, value in machine.items()),
            "",
            "Median (lowest-highest); others: CPUs kept busy by anything else.",
            "",
            *table(
                ["measure", "unit", *servers, "others"],
                (
                    [
                        r.figure.name,
                        r.figure.unit,
                        *(_spread(r, server) for server in servers),
                        f"{r.disturbance:.2f}",
                    ]
                    for r in results
                ),
            ),
            "",
            *table(
                ["measure", f"{SUBJECT} is to reach", "reached", "met"],
                (
                    [r.figure.name, wanted(r.figure, verdict.target), *_outcome(verdict)]
                    for r in results
                    for verdict in r.verdicts()
                ),
            ),
            "",
        ]
    )


def as_json(machine: Mapping[str, str], results: Sequence[Result]) -> str:
    """Return everything that was measured, and how it compares."""
    return json.dumps(
        {
            "machine": machine,
            "results": [
                {**asdict(r), "verdicts": [asdict(verdict) for verdict in r.verdicts()]}
                for r in results
            ],
        },
        indent=2,
    )


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table whose columns stand below each other."""
    cells = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |"
        for row in cells
    ]
    lines.insert(1, f"|{'|'.join('-' * (width + 2) for width in widths)}|")
    return lines


def number(value: float) -> str:
    """Return three significant digits, more for what is larger, without an exponent."""
    for limit, digits in ((1, 3), (10, 2), (100, 1)):
        if abs(value) < limit:
            return f"{value:.{digits}f}"
    return f"{value:,.0f}"


def wanted(figure: Figure, target: Target) -> str:
    """Return a target in words."""
    sign = "≤" if figure.better == "lower" else "≥"
    if target.peer is None:
        return f"{sign} {target.limit:g} {figure.unit}"
    return f"{sign} {target.limit:g} x {target.peer}"


def _spread(result: Result, server: str) -> str:
    samples = result.samples.get(server)
    value = result.value(server)
    if not samples or value is None:
        return "-"
    return f"{number(value)} ({number(min(samples))}-{number(max(samples))})"


def _outcome(verdict: Verdict) -> tuple[str, str]:
    if verdict.reached is None:
        return "-", "-"
    times = "" if verdict.target.peer is None else " x"
    return f"{number(verdict.reached)}{times}", "yes" if verdict.met else "NO"
