"""Findings of several images as one list, the worst first, and fit to be shown."""

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from cypd.logs import printable
from cypd.scanning.ports import Finding

MAX_FINDINGS = 5000
"""Of one image: thousands are found in what nobody has looked after for years."""
_MAX_TEXT = 512


def merged(each: Iterable[Sequence[Finding]]) -> list[Finding]:
    """Return the findings of several images, what they share once, worst first."""
    found: dict[tuple[str, str, str], Finding] = {}
    for findings in each:
        for it in findings:
            found.setdefault((it.id, it.package, it.installed_version), it)
    return sorted(found.values(), key=_order)


def tidy(findings: Sequence[Finding]) -> list[Finding]:
    """Return findings as they are kept: what images and databases say is neither long nor wild."""
    return [
        replace(
            it,
            id=_text(it.id),
            package=_text(it.package),
            installed_version=_text(it.installed_version),
            fixed_version=_text(it.fixed_version),
            title=_text(it.title),
            url=_text(it.url),
            purl=_text(it.purl),
        )
        for it in sorted(findings, key=_order)[:MAX_FINDINGS]
    ]


def _text(text: str) -> str:
    return printable(text, _MAX_TEXT)


def _order(finding: Finding) -> tuple[int, float, str, str]:
    return (-finding.severity.rank, -(finding.cvss or 0.0), finding.id, finding.package)
