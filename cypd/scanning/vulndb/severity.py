"""How bad a vulnerability is: by its CVSS vector, or else by the word of who published it."""

from collections.abc import Callable, Iterable
from typing import Any

from cvss import CVSS2, CVSS3, CVSS4
from cvss.exceptions import CVSSError

from cypd.scanning.ports import Severity
from cypd.scanning.vulndb.osv import Affected, Record, Score

# The newest system first: where a record has vectors of two, that is what was judged last.
_SYSTEMS: dict[str, Callable[[str], float]] = {
    "CVSS_V4": lambda vector: float(CVSS4(vector).base_score),
    "CVSS_V3": lambda vector: float(CVSS3(vector).base_score),
    "CVSS_V2": lambda vector: float(CVSS2(vector).base_score),
}
# GitHub's, Ubuntu's, Debian's and Red Hat's words.
_WORDS = {
    "critical": Severity.CRITICAL,
    "important": Severity.HIGH,
    "high": Severity.HIGH,
    "moderate": Severity.MEDIUM,
    "medium": Severity.MEDIUM,
    "low": Severity.LOW,
    "minor": Severity.LOW,
    "negligible": Severity.LOW,
    "unimportant": Severity.LOW,
}


def rate(record: Record, affected: Affected) -> tuple[Severity, float | None]:
    """Return a vulnerability's severity for one package, and its CVSS base score, if it has one."""
    scores = (*(affected.severity or ()), *(record.severity or ()))
    for system, compute in _SYSTEMS.items():
        for score in scores:
            if score.type == system and (value := _computed(compute, score.score)) is not None:
                return _rating(value), value
    return _by_word(scores, affected.ecosystem_specific, affected.database_specific,
                    record.database_specific), None  # fmt: skip


def _computed(compute: Callable[[str], float], vector: str) -> float | None:
    try:
        return compute(vector)
    except (CVSSError, ArithmeticError, ValueError):  # published with a mistake
        return None


def _rating(score: float) -> Severity:
    """Return the rating of a base score (CVSS 3.1, 5; CVSS 4.0, 6)."""
    steps = ((9.0, Severity.CRITICAL), (7.0, Severity.HIGH), (4.0, Severity.MEDIUM))
    return next((severity for bound, severity in steps if score >= bound), Severity.LOW)


def _by_word(scores: Iterable[Score], *documents: dict[str, Any] | None) -> Severity:
    words = [score.score for score in scores]
    words += [str((it or {}).get(key, "")) for it in documents for key in ("severity", "urgency")]
    known = (_WORDS.get(word.lower()) for word in words)
    return next((severity for severity in known if severity), Severity.UNKNOWN)
