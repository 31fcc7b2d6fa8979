"""What the scans of a registry need of an engine, and an engine of an image.

An engine looks at one image and says what it found. When that is done, for whom, and what becomes
of it are no concern of its.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple, Protocol

import msgspec

from cypd.oci.digest import Digest
from cypd.oci.names import RepositoryName


class Severity(StrEnum):
    """How bad a vulnerability is, the worst first."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    UNKNOWN = "unknown"

    @property
    def rank(self) -> int:
        """Its place in the order: 4 for critical, 0 for unknown."""
        return _RANKS[self]


_RANKS = {severity: rank for rank, severity in enumerate(reversed(Severity))}


class Layer(NamedTuple):
    """A layer, as the image's manifest lists it."""

    digest: Digest
    media_type: str
    size: int
    """In bytes, as it is stored."""


class Image(NamedTuple):
    """An image of one platform."""

    repository: RepositoryName
    digest: Digest
    """Of its manifest."""
    config: Digest | None
    layers: tuple[Layer, ...]
    """The bottom one first."""


class Finding(msgspec.Struct, frozen=True):
    """A vulnerability of one package."""

    id: str
    """As its source names it: CVE-…, GHSA-…, PYSEC-…"""
    package: str
    installed_version: str
    fixed_version: str
    """Empty where there is none."""
    severity: Severity
    title: str
    url: str
    cvss: float | None
    """The base score, 0 to 10."""
    layer: Digest
    """Which layer the package came with."""
    purl: str = ""
    """The package URL."""


class Report(msgspec.Struct, frozen=True):
    """What an engine found in an image."""

    findings: tuple[Finding, ...]
    packages: int
    """How many there are, vulnerable or not."""
    sbom: bytes
    """CycloneDX 1.6 as JSON; empty, if the engine makes none."""
    scanner: str
    """The engine's name and version."""
    database_updated_at: float | None
    """Of the vulnerability data, in unix seconds."""


class ScanFailed(Exception):
    """The image can't be scanned; the message says why, for people."""


class NotReady(Exception):
    """There is no program or no data to scan with; the message says exactly what to do."""


Say = Callable[[str], None]
"""Adds a line to the log of a scan."""


class Engine(Protocol):
    """Finds the packages of an image, and which of them are vulnerable."""

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    def require_ready(self) -> None:
        """Raise NotReady unless images can be scanned now; cheap enough for each request."""
        ...

    def generation(self) -> str:
        """Return what changes whenever the vulnerability data does; empty, if that is unknown."""
        ...

    async def scan(self, image: Image, *, say: Say) -> Report:
        """Scan an image; raise ScanFailed, NotReady.

        Cancelling the task that awaits this ends the work at once.
        """
        ...
