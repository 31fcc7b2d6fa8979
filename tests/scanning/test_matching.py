"""Which versions a vulnerability affects, and in which order versions come."""

import itertools
import random
import shutil
import subprocess
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cypd.scanning.ports import Severity
from cypd.scanning.vulndb.matching import affection
from cypd.scanning.vulndb.osv import Affected, Record, Rule
from cypd.scanning.vulndb.severity import rate
from cypd.scanning.vulndb.versions import parse

# Ascending. From PEP 440, semver.org, Go's x/mod/semver, Maven's and RubyGems' documentation,
# rpm's tests/rpmvercmp.at, and Alpine's aports.
ORDERS = {
    "PyPI": ["1.0.dev1", "1.0a1", "1.0b2", "1.0rc1", "1.0", "1.0.post1", "1.1", "1.10", "1!0.1"],
    "npm": ["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta.2", "1.0.0-beta.11",
            "1.0.0-rc.1", "1.0.0", "1.9.0", "1.10.0"],
    "Go": ["0.0.0-20190101000000-abcdefabcdef", "0.0.0-20220906165146-f3363e06e74c",
           "v0.1.0", "0.1.1-0.20230101000000-abcdefabcdef", "0.1.1", "1.21.0-rc.2",
           "1.21.0-rc.10", "1.21.0", "v2.0.0+incompatible"],
    "crates.io": ["0.1.0-pre", "0.1.0", "0.1.43", "0.2.0"],
    "Maven": ["2.0-alpha1", "2.0-beta9", "2.0-rc1", "2.0", "2.0.1", "2.14.1", "2.15.0"],
    "RubyGems": ["1.0.0.pre", "1.0.0.rc1", "1.0.0", "1.0.0.1", "1.9", "1.10"],
    "Debian:12": ["1.0~~", "1.0~rc1-1", "1.0-1", "1.0-1+b1", "1.0-1+deb12u1", "1.0-2", "1.0-10",
                  "1.0+dfsg-1", "1.1-1", "1:0.1-1"],
    "Ubuntu:22.04:LTS": ["3.0.2-0ubuntu1", "3.0.2-0ubuntu1.2", "3.0.2-0ubuntu1.10"],
    "Alpine:v3.18": ["1.2_alpha1-r0", "1.2_beta-r0", "1.2_rc1-r9", "1.2-r0", "1.2-r2", "1.2-r10",
                     "1.2_git20200101-r0", "1.2_p1-r0", "1.2_p2-r0", "1.2a-r0", "1.2b-r0",
                     "1.2.0-r0", "1.2.05-r0", "1.2.1-r0", "1.9-r0", "1.10-r0", "20230506-r0"],
    "Rocky Linux:9": ["1.0~rc1-1", "1.0-1", "1.0-1.el9", "1.0-1.el9_2", "1.0-2.el9", "1.0-10.el9",
                      "1.0^git1-1", "1.0.1-1", "1:0.1-1"],
}  # fmt: skip


@pytest.mark.parametrize("ecosystem", ORDERS)
def test_versions_have_their_ecosystems_order(ecosystem: str) -> None:
    """Any two of a list compare as their places do; that a version is fixed hangs on it."""
    versions = [parse(text, ecosystem) for text in ORDERS[ecosystem]]
    assert None not in versions
    for (i, one), (j, other) in itertools.product(enumerate(versions), repeat=2):
        assert one is not None
        assert other is not None
        assert (one < other) == (i < j), (ORDERS[ecosystem][i], ORDERS[ecosystem][j])


@pytest.mark.skipif(
    not shutil.which("dpkg"), reason="needs dpkg, which compares them as Debian does"
)
def test_debian_versions_compare_as_dpkg_does() -> None:
    """dpkg itself is asked about versions of all kinds of pieces."""
    chance = random.Random(7)
    pieces = ["1", "2", "10", "0", "a", "rc", "~", "+", ".", "-1", "+deb12u1", "~bpo", "b"]
    texts = [f"1{''.join(chance.choices(pieces, k=chance.randint(0, 5)))}" for _ in range(120)]
    for one, other in itertools.pairwise(texts):
        a, b = parse(one, "Debian:12"), parse(other, "Debian:12")
        if a is not None and b is not None:
            older = subprocess.run(
                ["dpkg", "--compare-versions", one, "lt", other], check=False, timeout=20
            )
            assert (a < b) == (older.returncode == 0), (one, other)


@given(st.text(max_size=300), st.sampled_from(sorted(ORDERS)))
def test_what_is_no_version_is_none(text: str, ecosystem: str) -> None:
    """Whatever an image calls a version, it is one that compares, or none; it never fails."""
    version, other = parse(text, ecosystem), parse("1.0.0", ecosystem)
    if version is not None and other is not None:
        assert (version < other, other < version) != (True, True)
    assert parse("9" * 5000, ecosystem) is None


def affected(rule: dict[str, Any], version: str, ecosystem: str = "PyPI") -> str | None:
    """Return the version that fixes an affected one, ``None`` for one that is not."""
    found = affection(msgspec.convert(rule, Rule), version, ecosystem)
    return found.fixed_version if found else None


def ranges(*events: dict[str, str], kind: str = "ECOSYSTEM") -> dict[str, Any]:
    """Return a rule of one range."""
    return {"ranges": [{"type": kind, "events": list(events)}]}


TWO_LINES = ranges(
    {"fixed": "2.3"}, {"introduced": "2.0"}, {"introduced": "0"}, {"fixed": "1.5"}
)  # in no order, as published now and then


@pytest.mark.parametrize(
    ("rule", "version", "fix"),
    [
        (TWO_LINES, "0.1", "1.5"),
        (TWO_LINES, "1.5rc1", "1.5"),
        (TWO_LINES, "1.5", None),
        (TWO_LINES, "1.9", None),
        (TWO_LINES, "2.0", "2.3"),
        (TWO_LINES, "2.0rc1", None),
        (TWO_LINES, "2.3", None),
        (TWO_LINES, "3", None),
        (ranges({"introduced": "1.0"}), "0.9", None),
        (ranges({"introduced": "1.0"}), "99", ""),
        (ranges({"introduced": "0"}, {"last_affected": "1.5"}), "1.5.0", ""),
        (ranges({"introduced": "0"}, {"last_affected": "1.5"}), "1.5.1", None),
        (ranges({"introduced": "0"}, {"last_affected": "1"}, {"introduced": "2"}), "1.5", None),
        (ranges({"introduced": "0"}, {"last_affected": "1"}, {"introduced": "2"}), "2.5", ""),
        (ranges({"introduced": "1"}, {"fixed": "1"}), "1", None),
        (ranges({"introduced": "0"}, {"limit": "2"}), "1", ""),
        (ranges({"introduced": "0"}, {"limit": "2"}), "2", None),
        (ranges({"introduced": "0"}, {"limit": "*"}), "2", ""),
        (ranges({"introduced": "0"}, kind="GIT"), "1", None),
        (ranges({"introduced": "0"}, {"fixed": "not a version"}), "1", ""),
        ({"versions": ["1.0", "weird"]}, "weird", ""),
        ({"versions": ["1.0"]}, "1.1", None),
        ({"versions": ["1.0"], **TWO_LINES}, "1.9", None),
        ({"versions": ["1.9"], **TWO_LINES}, "1.9", "2.3"),
        ({}, "1.0", None),
    ],
)
def test_versions_are_affected_as_osv_says(
    rule: dict[str, Any], version: str, fix: str | None
) -> None:
    """Its schema, section Evaluation: introduced, fixed, last_affected, limit, and lists."""
    assert fix == affected(rule, version)


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=4),
    st.integers(0, 31),
    st.randoms(),
)
def test_ranges_are_intervals(
    pairs: list[tuple[int, int]], version: int, chance: random.Random
) -> None:
    """Apart from each other, in whatever order their events are published."""
    points = sorted({point for pair in pairs for point in pair})
    intervals = list(zip(points[::2], points[1::2], strict=False))
    events = [{"introduced": str(start)} for start, _ in intervals]
    events += [{"fixed": str(end)} for _, end in intervals]
    chance.shuffle(events)
    expected = next((str(end) for start, end in intervals if start <= version < end), None)

    assert expected == affected(ranges(*events), str(version))


V4 = "CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N"
V3 = "CVSS:3.1/AV:N/AC:H/PR:N/UI:R/S:U/C:L/I:N/A:N"


@pytest.mark.parametrize(
    ("document", "severity", "score"),
    [
        ({"severity": [{"type": "CVSS_V3", "score": V3}]}, Severity.LOW, 3.1),
        ({"severity": [{"type": "CVSS_V3", "score": V3}, {"type": "CVSS_V4", "score": V4}]},
         Severity.CRITICAL, 9.3),
        ({"severity": [{"type": "CVSS_V2", "score": "AV:N/AC:L/Au:N/C:P/I:P/A:P"}]},
         Severity.HIGH, 7.5),
        ({"severity": [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:X"}],
          "database_specific": {"severity": "MODERATE"}}, Severity.MEDIUM, None),
        ({"severity": [{"type": "Ubuntu", "score": "negligible"}]}, Severity.LOW, None),
        ({"database_specific": {"severity": "CRITICAL"}}, Severity.CRITICAL, None),
        ({"affected": [{"ecosystem_specific": {"urgency": "unimportant"}}]}, Severity.LOW, None),
        ({"affected": [{"severity": [{"type": "CVSS_V4", "score": V4}]}],
          "severity": [{"type": "CVSS_V4", "score": V3}]}, Severity.CRITICAL, 9.3),
        ({"database_specific": {"severity": ["strange"]}}, Severity.UNKNOWN, None),
        ({}, Severity.UNKNOWN, None),
    ],
)  # fmt: skip
def test_severity(document: dict[str, Any], severity: Severity, score: float | None) -> None:
    """By the newest CVSS vector, the package's own first; else by the publisher's word."""
    record = msgspec.convert({"id": "CVE-1", **document}, Record)
    about = record.affected[0] if record.affected else Affected()

    assert (severity, score) == rate(record, about)
