"""Versions, in the order of their ecosystem.

The orders are ``univers``', but Alpine's: it knows Gentoo's for it, which has no ``_git`` and its
like. Of its classes only ``<`` and ``>`` can be relied on, for some compare ``>=`` as text.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Protocol, Self

from univers import versions as univers

from cypd.scanning.vulndb.osv import base


class Version(Protocol):
    """A version that can be compared with others of its ecosystem."""

    def __lt__(self, other: Self, /) -> bool:
        """Tell whether it is older."""
        ...


def parse(text: str, ecosystem: str) -> Version | None:
    """Return a version that can be compared with others of its ecosystem, if it is one."""
    return _parse(text, base(ecosystem)) if 0 < len(text) <= _LONGEST else None


@lru_cache(maxsize=65536)
def _parse(text: str, ecosystem: str) -> Version | None:
    order = _ORDERS.get(ecosystem)
    try:
        return order(text) if order else None
    except (ValueError, TypeError, AttributeError, LookupError):  # each refuses in its own way
        return None


# apk-package(5) and apk-tools' version.c: numbers, a letter, suffixes, a revision of the package.
_APK = re.compile(
    r"(\d+(?:\.\d+)*)([a-z]?)((?:_(?:alpha|beta|pre|rc|cvs|svn|git|hg|p)\d*)*)"
    r"(?:~[0-9a-f]+)?(?:-r(\d+))?",
    re.ASCII,
)
_APK_SUFFIX = re.compile(r"_([a-z]+)(\d*)", re.ASCII)
_APK_RANKS = {"alpha": -4, "beta": -3, "pre": -2, "rc": -1, "cvs": 1, "svn": 2, "git": 3, "hg": 4,
              "p": 5}  # fmt: skip


def _apk(text: str) -> Version:
    match = _APK.fullmatch(text)
    if not match:
        raise ValueError(f"not a version of Alpine: {text!r}")
    numbers, letter, suffixes, revision = match.groups()
    first, *others = numbers.split(".")
    # What begins with a zero is a fraction: 1.05 is older than 1.5, and than 1.1.
    parts = [(0, 0, it) if it.startswith("0") else (1, int(it), "") for it in others]
    ranks = [(_APK_RANKS[word], int(n or 0)) for word, n in _APK_SUFFIX.findall(suffixes)]
    return (int(first), *parts), letter, (*ranks, (0, 0)), int(revision or 0)


_ORDERS: dict[str, Callable[[str], Version]] = {
    "PyPI": univers.PypiVersion,
    "npm": univers.SemverVersion,
    "Go": univers.GolangVersion,
    "crates.io": univers.SemverVersion,
    "Maven": univers.MavenVersion,
    "RubyGems": univers.RubygemsVersion,
    "Debian": univers.DebianVersion,
    "Ubuntu": univers.DebianVersion,
    "Alpine": _apk,
    "Wolfi": _apk,
    "Chainguard": _apk,
}
_RPM = ("Red Hat", "Rocky Linux", "AlmaLinux", "SUSE", "openSUSE", "openEuler", "Mageia",
        "Azure Linux")  # fmt: skip
_ORDERS |= dict.fromkeys(_RPM, univers.RpmVersion)
_LONGEST = 200
