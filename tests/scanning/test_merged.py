"""Findings as one list, and fit to be shown."""

from cypd.scanning.findings import MAX_FINDINGS, merged, tidy
from cypd.scanning.ports import Severity
from cypd.scanning.scan_ports import Summary
from tests.scanning.house import finding


def test_findings_come_worst_first_and_once() -> None:
    """By severity; what several images share stands there once, other versions by themselves."""
    low, high = finding("CVE-1", Severity.LOW), finding("CVE-2")
    unknown, worst = finding("CVE-0", Severity.UNKNOWN), finding("CVE-3", Severity.CRITICAL)
    newer = finding("CVE-2", installed_version="2")

    assert [worst, high, newer, low, unknown] == merged(
        [[low, high], [high, unknown, newer], [worst]]
    )
    assert Summary(critical=1, high=2, low=1, unknown=1) == Summary.of(
        [low, high, newer, unknown, worst]
    )


def test_what_is_kept_is_neither_long_nor_wild() -> None:
    """The worst of too many; texts are cut, and control characters told as letters."""
    many = [finding(f"CVE-{number}", Severity.LOW) for number in range(MAX_FINDINGS)]
    kept = tidy([*many, finding("CVE-x", Severity.CRITICAL, title="\x1b[31m" + "x" * 1000)])

    assert MAX_FINDINGS == len(kept)
    assert "CVE-x" == kept[0].id
    assert kept[0].title.startswith(r"\x1b[31mx")
    assert len(kept[0].title) < 600
