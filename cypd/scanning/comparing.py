"""Compares packages with the vulnerability data.

Databases tell of one vulnerability under many ids. Those that name each other as aliases are one
finding of a package, under its CVE where it has one: people, policies and exceptions go by that.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from cypd.oci.digest import Digest
from cypd.scanning.packages import (
    SYSTEM_KINDS,
    Distribution,
    Package,
    advisory_names,
    ecosystem,
    package_url,
)
from cypd.scanning.ports import Finding, Say, Severity
from cypd.scanning.vulndb.matching import affection
from cypd.scanning.vulndb.store import Advice, VulnerabilityData
from cypd.scanning.wire import MAX_FINDINGS, MAX_FINDINGS_BYTES, MAX_LINE

_LONGEST = 300


class _Hit(NamedTuple):
    """An advice that holds for an installed package."""

    advice: Advice
    fixed_version: str

    @property
    def names(self) -> set[str]:
        told = self.advice.vulnerability
        # What a distribution made of several CVEs is none of them alone.
        return {told.id, *told.aliases, *(told.upstream if len(told.upstream) == 1 else ())}


def findings(
    packages: Mapping[Package, int],
    layers: list[Digest],
    distribution: Distribution | None,
    data: VulnerabilityData,
    say: Say,
) -> list[Finding]:
    """Return the vulnerabilities of packages, the worst first, each once a package and version.

    ``packages`` say the number of their layer. More than can be told are cut off at the least
    severe, which the log says.
    """
    _say_what_is_missing(packages, distribution, data, say)
    found: dict[tuple[str, str, str], Finding] = {}
    for package, number in packages.items():
        name, url = ecosystem(package, distribution), package_url(package, distribution)
        for group in _groups(_hits(package, name, data)):
            finding = _finding(group, package, url, layers[number])
            found.setdefault((finding.id, finding.purl, finding.installed_version), finding)
    ordered = sorted(found.values(), key=lambda it: (-it.severity.rank, -(it.cvss or 0), it.id))
    return _bounded(ordered, say)


def _hits(package: Package, ecosystem: str, data: VulnerabilityData) -> Iterator[_Hit]:
    if not ecosystem:
        return
    for name, version in advisory_names(package, ecosystem):
        for advice in data.about(ecosystem, name):
            if affected := affection(advice.rule, version, advice.ecosystem):
                yield _Hit(advice, affected.fixed_version)


def _groups(hits: Iterable[_Hit]) -> list[list[_Hit]]:
    """Put those together that are aliases of each other, over however many others."""
    groups: list[tuple[set[str], list[_Hit]]] = []
    for hit in hits:
        names, members = hit.names, [hit]
        apart = []
        for group in groups:
            if group[0].isdisjoint(names):
                apart.append(group)
            else:
                names |= group[0]
                members = group[1] + members
        groups = [*apart, (names, members)]
    return [members for _, members in groups]


def _finding(group: list[_Hit], package: Package, url: str, layer: Digest) -> Finding:
    # The same record may come from two sources, so the order must not depend on theirs.
    hits = sorted(group, key=lambda it: it.advice.vulnerability.id)
    scores = [hit.advice.cvss for hit in hits if hit.advice.cvss is not None]
    told = [hit.advice.vulnerability for hit in hits]
    return Finding(
        id=_name(hits),
        package=package.name[:_LONGEST],
        installed_version=package.version[:_LONGEST],
        fixed_version=next((it.fixed_version for it in hits if it.fixed_version), "")[:_LONGEST],
        severity=max((Severity(it.advice.severity) for it in hits), key=lambda it: it.rank),
        title=next((it.title for it in told if it.title), ""),
        url=next((it.url for it in told if it.url), "")[:_LONGEST],
        cvss=max(scores, default=None),
        layer=layer,
        purl=url[: 2 * _LONGEST],
    )


def _name(hits: list[_Hit]) -> str:
    """Return what a group goes by: a CVE of its own, one that it names, or its first id."""
    own = [hit.advice.vulnerability.id for hit in hits]
    named = sorted(name for hit in hits for name in hit.names)
    return next((it for it in (*own, *named) if it.startswith("CVE-")), own[0])


def _bounded(ordered: list[Finding], say: Say) -> list[Finding]:
    size = 0
    for count, finding in enumerate(ordered):
        # At most 4 bytes a character, and 2 for an escape: well within a line.
        size += sum(len(it.encode()) for it in (finding.package, finding.title, finding.purl)) + 512
        if count == MAX_FINDINGS or size > MAX_FINDINGS_BYTES - MAX_LINE:
            say(f"{len(ordered) - count} findings are left out, the least severe")
            return ordered[:count]
    return ordered


def _say_what_is_missing(
    packages: Iterable[Package],
    distribution: Distribution | None,
    data: VulnerabilityData,
    say: Say,
) -> None:
    """Say which packages are not compared: no finding does not mean there that all is well."""
    counts: dict[str, int] = {}
    for package in packages:
        name = ecosystem(package, distribution)
        system = f"{distribution.name} (a distribution not known here)" if distribution else ""
        system = system or "a system without /etc/os-release"
        label = name or (system if package.kind in SYSTEM_KINDS else package.kind)
        counts[label] = counts.get(label, 0) + 1
    for label, count in sorted(counts.items()):
        if data.knows(label):
            say(f"compared {count:,} packages of {label.rstrip(':*')}")
        else:
            say(f"no vulnerability data for {label.rstrip(':*')}: {count:,} not compared")
