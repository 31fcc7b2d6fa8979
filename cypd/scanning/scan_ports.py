"""Scans, and what the rules of scanning need of a metadata store."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, Protocol, get_args

import msgspec

from cypd.oci.digest import Digest
from cypd.oci.names import RepositoryName
from cypd.registry.inventory_ports import Found, ScanStatus
from cypd.scanning.ports import Finding, Severity

Status = ScanStatus
STATUSES: tuple[Status, ...] = get_args(Status)
OPEN: tuple[Status, ...] = ("pending", "running")
"""Those of a scan that is not over."""

Trigger = Literal["request", "push", "data"]
"""Why it is done: somebody asked, it was pushed, or the vulnerability data changed."""

MAX_LINES = 1000
"""Of the log of a scan."""


class Summary(msgspec.Struct, frozen=True, array_like=True):
    """How many findings there are of each severity."""

    critical: int = 0
    high: int = 0
    medium: int = 0
    low: int = 0
    unknown: int = 0

    @classmethod
    def of(cls, findings: Sequence[Finding]) -> "Summary":
        """Count findings."""
        severities = [it.severity for it in findings]
        return cls(*(severities.count(severity) for severity in Severity))


class Examined(msgspec.Struct, frozen=True, array_like=True):
    """One image that a scan has looked at."""

    digest: str
    """Of its manifest."""
    platform: str
    """As ``linux/amd64``; empty, where nothing names it."""
    packages: int
    sbom_digest: str | None
    """Of the manifest that carries the SBOM and has the image as its subject."""


class Scan(msgspec.Struct, frozen=True, kw_only=True):
    """A scan of an image, or of the images of an index."""

    id: str
    """UUIDv4."""
    number: int
    """Its place among all scans, from 1; 0 for one that is yet to be stored."""
    project_id: str
    repository: str
    reference: str
    """The tag or digest that was asked for."""
    digest: str
    """What that pointed at."""
    trigger: Trigger
    user_id: str
    """Who asked for it, or pushed; empty for the registry itself."""
    username: str
    created_at: float
    """Unix seconds, as all times here."""
    status: Status = "pending"
    started_at: float | None = None
    finished_at: float | None = None
    interruptions: int = 0
    """How often the process that ran it died of something."""
    summary: Summary = Summary()
    images: tuple[Examined, ...] = ()
    scanner: str = ""
    database_updated_at: float | None = None
    generation: str = ""
    """Of the vulnerability data, as the engine tells it."""
    error: str = ""
    """Why it failed, for people."""


class Result(NamedTuple):
    """What was found in one image."""

    examined: Examined
    findings: Sequence[Finding]


class Outcome(NamedTuple):
    """How a scan ended."""

    at: float
    error: str = ""
    """Empty: it succeeded."""
    results: Sequence[Result] = ()
    summary: Summary = Summary()
    scanner: str = ""
    database_updated_at: float | None = None
    generation: str = ""


class Outdated(NamedTuple):
    """Scans whose data is not that of today."""

    scans: Sequence[Scan]
    """The newest of each image."""
    after: bytes
    """Where to go on; empty at the end."""


class ScanStore(Protocol):
    """Scans, their findings and logs, and the queue of those to come.

    As for all metadata: reads are plain calls, writes are whole intentions, durable when awaited.
    Scans end with the manifest that they are of. The end of one is an event, in the same
    transaction.
    """

    def scan(self, scan_id: str) -> Scan | None:
        """Return a scan."""
        ...

    def is_running(self, scan_id: str) -> bool:
        """Tell whether a scan runs: what was made for it is good for as long."""
        ...

    def scans(
        self,
        projects: Sequence[str] | None,
        *,
        repository: RepositoryName | None = None,
        status: Status | None = None,
        offset: int,
        limit: int,
    ) -> Found[Scan]:
        """Return scans, newest first: of a repository, or of all of some projects (ids).

        ``None``: of every project.
        """
        ...

    def findings(self, scan_id: str) -> Sequence[Sequence[Finding]]:
        """Return what was found in each of the images of a scan, in their order."""
        ...

    def findings_in(self, number: int, digest: Digest) -> Sequence[Finding]:
        """Return what the scan of that number found in one image; of an index, in all of them."""
        ...

    def scan_log(self, scan_id: str) -> Sequence[str]:
        """Return the lines of a scan's log."""
        ...

    def latest(self, repository: RepositoryName, digest: Digest) -> int | None:
        """Return the number of the newest scan that succeeded in looking at a manifest."""
        ...

    def numbered(self, number: int) -> Scan | None:
        """Return the scan of a number."""
        ...

    def scan_counts(self) -> Mapping[Status, int]:
        """Return how many scans there are of each status; costs the same however many."""
        ...

    def outdated(self, generation: str, *, after: bytes, limit: int) -> Outdated:
        """Look at some of the images that were scanned, for those not scanned with that data.

        An image that bears no tag is passed over.
        """
        ...

    async def request_scan(self, scan: Scan, *, limit: int) -> Scan:
        """Put a scan into the queue and return it.

        Returns the one that waits for the same image already, if there is one. Raises
        IMAGE_NOT_FOUND if there is no such manifest (any more), and TOO_MANY_REQUESTS while
        ``limit`` scans wait.
        """
        ...

    async def follow_pushes(self, *, limit: int, step: int, generation: str) -> bool:
        """Put the images of the next pushes by tag into the queue; tell whether there were any.

        Looks at ``step`` events at most, and waits with those for which the queue has no room. What
        was scanned with that data already, or waits already, is passed over. Begins with what
        happens after the first call.
        """
        ...

    async def forget_pushes(self) -> None:
        """Let the next call of ``follow_pushes`` be the first."""
        ...

    async def start_scan(self, *, at: float) -> Scan | None:
        """Take the oldest scan from the queue: it runs from now on."""
        ...

    async def recover_scans(self, *, attempts: int, at: float) -> None:
        """Put back what runs, since who ran it is no more; what was interrupted too often fails."""
        ...

    async def put_back_scan(self, scan_id: str) -> None:
        """Put back a scan that runs, through no fault of its own."""
        ...

    async def cancel_scan(self, scan_id: str, *, at: float) -> Scan:
        """End a scan that waits or runs.

        Raises SCAN_NOT_FOUND, and NOT_IN_THIS_STATE if it is over.
        """
        ...

    async def note_scan(self, scan_id: str, lines: Sequence[str]) -> None:
        """Add lines to the log of a scan; past ``MAX_LINES`` nothing is added."""
        ...

    async def finish_scan(self, scan_id: str, outcome: Outcome, *, keep: int) -> bool:
        """End a scan that runs; ``False`` if it does not run any more.

        Of the scans of the same manifest that are over, all but the newest ``keep`` are forgotten,
        and never the newest one that succeeded.
        """
        ...
