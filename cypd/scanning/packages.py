"""Packages: what detectors find in the files of an image."""

import re
from typing import Literal, NamedTuple

from packageurl import PackageURL

Kind = Literal["deb", "apk", "rpm", "pypi", "npm", "golang", "maven", "gem", "cargo"]
"""A type of package URLs (purl-spec)."""

SYSTEM_KINDS = frozenset({"deb", "apk", "rpm"})
ECOSYSTEMS: dict[Kind, str] = {
    "pypi": "PyPI",
    "npm": "npm",
    "golang": "Go",
    "maven": "Maven",
    "gem": "RubyGems",
    "cargo": "crates.io",
}
"""What OSV calls the ecosystem of a kind; that of system packages depends on the distribution."""


_LONGEST = 512
# A name never begins or ends with what separates it from its namespace.
_NAME = re.compile(r"[^\s/:]|[^\s/:].*[^\s/:]")


class Package(NamedTuple):
    """A package that is installed, or compiled into a file."""

    kind: Kind
    name: str
    """In full: ``@scope/name`` of npm, ``group:artifact`` of Maven (or the artifact alone, where
    nobody says the group), a module's path of Go."""
    version: str
    source: str = ""
    """Of a system package: what it was built from. Distributions publish advisories of that."""
    source_version: str = ""
    arch: str = ""

    @property
    def is_plausible(self) -> bool:
        """Whether these are names and versions as real ones are; others can't be written down."""
        parts = (self.name, self.version, self.source, self.source_version, self.arch)
        return (
            all(len(part) <= _LONGEST and part.isprintable() for part in parts)
            and _NAME.fullmatch(self.name) is not None
            and self.version == self.version.strip() != ""
        )


class Distribution(NamedTuple):
    """What os-release(5) says."""

    id: str
    version: str
    name: str


class Owned(NamedTuple):
    """A file that a system package brought along.

    What is installed there is patched by the distribution without a new version, so only the
    system package's own version tells whether it is vulnerable.
    """

    path: str


Fact = Package | Distribution | Owned


class Damaged(Exception):
    """A file that is not what it should be; the message says how."""


def package_url(package: Package, distribution: Distribution | None) -> str:
    """Return the package URL."""
    qualifiers = {"arch": package.arch} if package.arch else {}
    namespace, name = None, package.name
    if package.kind in SYSTEM_KINDS:
        namespace = distribution.id if distribution else None
        if distribution and distribution.version:
            qualifiers["distro"] = f"{distribution.id}-{distribution.version}"
    elif package.kind == "maven":
        namespace, _, name = name.rpartition(":")
    elif package.kind in ("npm", "golang"):
        namespace, _, name = name.rpartition("/")
    url = PackageURL(package.kind, namespace or None, name, package.version, qualifiers or None)
    return str(url.to_string())


def ecosystem(package: Package, distribution: Distribution | None) -> str:
    """Return what OSV calls the ecosystem of a package, ``""`` where it has none.

    One with ``*`` stands for all that are so but for anything in its place.
    """
    if package.kind in SYSTEM_KINDS:
        return _system_ecosystem(distribution) if distribution else ""
    return ECOSYSTEMS[package.kind]


def _system_ecosystem(distribution: Distribution) -> str:
    """Return the ecosystem of a distribution (ossf.github.io/osv-schema, Defined ecosystems)."""
    major, _, rest = distribution.version.partition(".")
    minor = rest.partition(".")[0]
    if not major:
        return {"wolfi": "Wolfi", "chainguard": "Chainguard"}.get(distribution.id, "")
    release = f"{major}.{minor}" if minor else major
    # Canonical's releases of April in even years have long term support.
    lts = ":LTS" if minor == "04" and major[-1] in "02468" else ""
    # It is called "openEuler 22.03 (LTS-SP3)"; only what has long term support has advisories.
    stage = distribution.name.partition("(")[2].rstrip(")")
    # Advisories of SUSE's are of products and modules, each named with its release at the end, or
    # with what support it is in after that. Until 15 the release has service packs.
    packs = f"{major} SP{minor}" if minor and major in ("12", "15") else release
    return {
        "debian": f"Debian:{major}",
        "ubuntu": f"Ubuntu:{release}{lts}",
        "alpine": f"Alpine:v{release}",
        "wolfi": "Wolfi",
        "chainguard": "Chainguard",
        "rhel": f"Red Hat:enterprise_linux:{major}::*",
        "rocky": f"Rocky Linux:{major}",
        "almalinux": f"AlmaLinux:{major}",
        "opensuse-leap": f"openSUSE:Leap {release}",
        "opensuse-tumbleweed": "openSUSE:Tumbleweed",
        "sles": f"SUSE:* {packs}*",
        "openEuler": f"openEuler:{release}-{stage}",
        "mageia": f"Mageia:{major}",
        "azurelinux": f"Azure Linux:{major}",
    }.get(distribution.id, "")


def advisory_names(package: Package, ecosystem: str) -> list[tuple[str, str]]:
    """Return the names, each with the version, under which advisories may speak of a package.

    Distributions speak of source packages (OSV's schema, Defined ecosystems), but those with rpm of
    binary ones as well, or of them alone: Red Hat's of both, AlmaLinux' of all that were built.
    """
    names = [(normalised(package.name, ecosystem), package.version)]
    if package.source:
        source = (package.source, package.source_version or package.version)
        names = [source, *names] if package.kind == "rpm" and source not in names else [source]
    return names


def normalised(name: str, ecosystem: str) -> str:
    """Return a name in the one form under which it is looked up."""
    if ecosystem == "PyPI":
        from packaging.utils import canonicalize_name  # noqa: PLC0415 (where it is needed at all)

        return canonicalize_name(name)
    return name
