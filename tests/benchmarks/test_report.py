"""The tables, and what is read out of the output of others."""

import pytest

from benchmarks import report
from benchmarks.figures import Figure, Result, Target
from benchmarks.small_pulls import answered


def test_a_report_shows_figures_and_targets() -> None:
    """Median and spread of each server, a dash where there is none, and every verdict."""
    figure = Figure("pulls", "requests/CPU-s", "higher", [Target(0.4, "nginx")])
    results = [Result(figure, {"cypd": [1000.0, 3000.0, 2000.0], "nginx": [4000.0]}, 0.1)]

    text = report.markdown({"CPU": "one"}, results, ["cypd", "nginx", "docker-registry"])

    assert "- CPU: one" in text
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    spread = ["2,000 (1,000-3,000)", "4,000 (4,000-4,000)", "-", "0.10"]
    assert ["pulls", "requests/CPU-s", *spread] in rows
    assert ["pulls", "≥ 0.4 x nginx", "0.500 x", "yes"] in rows


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.12345, "0.123"), (1.2345, "1.23"), (12.345, "12.3"), (123.45, "123"), (12345.6, "12,346")],
)
def test_numbers_have_three_digits_or_all_before_the_point(value: float, text: str) -> None:
    """More digits would pretend a precision that no run has."""
    assert report.number(value) == text


def test_a_load_with_errors_does_not_count() -> None:
    """Answers other than asked for are cheap to give."""
    clean = "  184 requests in 1.00s, 1.05MB read\n"

    assert answered(clean) == 184
    with pytest.raises(ConnectionError):
        answered(clean + "  Non-2xx or 3xx responses: 3\n")
