"""What a finding says, and that one vulnerability is one finding."""

import pytest

from cypd.scanning.ports import Severity
from tests.scanning.laboratory import DEBIAN, Entry, Laboratory, dpkg, layer, python, record

# What scans gives way to all else on the machine.
pytestmark = pytest.mark.timeout(300)

V3 = "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"
X = layer(python("X.y", "1.0"))


async def test_a_finding_says_all_that_is_known(laboratory: Laboratory) -> None:
    """From id to package URL."""
    laboratory.know(
        record(
            "GHSA-1", "PyPI", "x-y", {"introduced": "0"}, {"fixed": "1.1"},
            summary="It is bad", severity=[{"type": "CVSS_V3", "score": V3}],
            references=[{"type": "WEB", "url": "https://a"}, {"type": "ADVISORY", "url": "https://b"}],
        )
    )  # fmt: skip
    scan = await laboratory.scan(X)
    [finding] = scan.report.findings

    assert (finding.id, finding.package, finding.purl) == ("GHSA-1", "X.y", "pkg:pypi/x.y@1.0")
    assert (finding.installed_version, finding.fixed_version) == ("1.0", "1.1")
    assert (finding.severity, finding.cvss) == (Severity.CRITICAL, 9.8)
    assert (finding.title, finding.url) == ("It is bad", "https://b")
    assert finding.layer == scan.layers[0]
    assert scan.report.scanner.startswith("cypd ")


async def test_what_is_missing_is_made_up_for(laboratory: Laboratory) -> None:
    """The title by the details' first line, cut to a length; the address by OSV's page."""
    laboratory.know(record("CVE-1", "PyPI", "x-y", details=f"First {'long ' * 100}\nSecond"))
    [finding] = (await laboratory.scan(X)).report.findings

    assert finding.title.startswith("First long")
    assert (len(finding.title), finding.title[-1]) == (200, "…")
    assert finding.url == "https://osv.dev/vulnerability/CVE-1"
    assert (finding.severity, finding.cvss, finding.fixed_version) == (Severity.UNKNOWN, None, "")


async def test_aliases_are_one_finding(laboratory: Laboratory) -> None:
    """Under the CVE, with the best of each: over any number of steps, from any side."""
    laboratory.know(
        record("PYSEC-1", "PyPI", "x-y", aliases=["GHSA-1"]),
        record("GHSA-1", "PyPI", "x-y", aliases=["CVE-2"], database_specific={"severity": "HIGH"}),
        record("CVE-2", "PyPI", "x-y", {"introduced": "0"}, {"fixed": "3"}, summary="A title"),
        record("CVE-3", "PyPI", "x-y", aliases=["CVE-1-is-another"]),
        record("PYSEC-4", "PyPI", "x-y", aliases=["GHSA-4"]),
    )
    scan = await laboratory.scan(X)

    assert {"CVE-2", "CVE-3", "PYSEC-4"} == scan.ids
    assert len(scan.report.findings) == 3
    merged = scan.of("CVE-2")
    assert (merged.severity, merged.fixed_version, merged.title) == (Severity.HIGH, "3", "A title")


async def test_a_distributions_record_goes_by_its_cve(laboratory: Laboratory) -> None:
    """If it was made of one; one of several keeps its own name."""
    laboratory.know(
        record("DEBIAN-CVE-1", "Debian:12", "a", upstream=["CVE-1"]),
        record("DSA-1", "Debian:12", "a", upstream=["CVE-1", "CVE-2"]),
    )
    scan = await laboratory.scan(layer(Entry("etc/os-release", DEBIAN), dpkg(("a", "1"))))
    assert {"CVE-1", "DSA-1"} == scan.ids


async def test_withdrawn_records_are_none(laboratory: Laboratory) -> None:
    """Also if they were imported before they were withdrawn."""
    laboratory.know(record("CVE-1", "PyPI", "x-y"), record("CVE-2", "PyPI", "x-y"))
    assert {"CVE-1", "CVE-2"} == (await laboratory.scan(X)).ids
    laboratory.know(record("CVE-1", "PyPI", "x-y", withdrawn="2026-01-01T00:00:00Z"))
    assert {"CVE-2"} == (await laboratory.scan(X)).ids


async def test_the_worst_comes_first(laboratory: Laboratory) -> None:
    """By severity, then by score, then by name."""
    words = {"CVE-1": "LOW", "CVE-2": "CRITICAL", "CVE-3": "MODERATE", "CVE-4": "HIGH"}
    laboratory.know(
        record("CVE-0", "PyPI", "x-y"),
        record("CVE-5", "PyPI", "x-y", severity=[{"type": "CVSS_V3", "score": V3}]),
        *(
            record(id_, "PyPI", "x-y", database_specific={"severity": word})
            for id_, word in words.items()
        ),
    )
    found = (await laboratory.scan(X)).report.findings
    assert ["CVE-5", "CVE-2", "CVE-4", "CVE-3", "CVE-1", "CVE-0"] == [it.id for it in found]


async def test_a_package_in_many_places_is_one(laboratory: Laboratory) -> None:
    """One finding for each version of it, with the lowest layer that has it."""
    laboratory.know(record("CVE-1", "PyPI", "x-y"))
    scan = await laboratory.scan(
        layer(python("x-y", "1")),
        layer(python("x-y", "1", "opt/a"), python("x-y", "2", "opt/b")),
    )
    found = {(it.installed_version, it.layer) for it in scan.report.findings}

    assert {("1", scan.layers[0]), ("2", scan.layers[1])} == found
    assert scan.report.packages == 2
