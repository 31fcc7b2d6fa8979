"""Scans, ``/api/v1/scans``, and the vulnerabilities that they found in a repository."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from cypd.access import Scope
from cypd.api.paging import Listing, Page
from cypd.api.people import moment
from cypd.api.routes import PREFIX, Answer, Call, Input, Route, Time, in_projects
from cypd.oci.names import RepositoryName
from cypd.refusals import Code
from cypd.registry.inventory_ports import ScanStatus
from cypd.scanning import scan_ports as ports
from cypd.scanning.ports import Finding
from cypd.scanning.scans import Details, Scans, reference_of

_Severity = Literal["critical", "high", "medium", "low", "unknown"]
_Repository = Annotated[str, Meta(min_length=1, max_length=255)]
_Reference = Annotated[str, Meta(min_length=1, max_length=255)]


class NewScan(Input, frozen=True):
    """An image to be scanned."""

    repository: _Repository
    reference: _Reference = "latest"
    """A tag or a digest."""


class ScansQuery(Page, frozen=True):
    """Which scans; ``keyword`` has no meaning here."""

    repository: Annotated[str, Meta(max_length=255)] = ""
    """Those of this one alone."""
    status: ScanStatus | None = None


class VulnerabilitiesQuery(Input, frozen=True):
    """Of which image."""

    reference: _Reference = "latest"
    """A tag or a digest."""


class Summary(Answer, frozen=True):
    """How many vulnerabilities there are of each severity."""

    critical: int
    high: int
    medium: int
    low: int
    unknown: int


class Vulnerability(Answer, frozen=True):
    """A vulnerability of one package."""

    id: str
    package: str
    installed_version: str
    fixed_version: str
    """Empty where there is none."""
    severity: _Severity
    title: str
    url: str
    cvss: float | None
    """The base score."""
    layer: str
    """The digest of the layer that the package came with."""
    purl: str
    """The package URL."""


class ScannedImage(Answer, frozen=True):
    """One of the images that a scan has looked at: an index has several."""

    digest: str
    platform: str
    packages: int
    sbom_digest: str | None


class ScanInfo(Answer, frozen=True):
    """A scan."""

    id: str
    project_id: str
    repository: str
    reference: str
    """What was asked for."""
    digest: str
    """What that pointed at."""
    status: ScanStatus
    trigger: ports.Trigger
    requested_by: str
    """A user's name; empty for the registry itself."""
    created_at: Time
    started_at: Time | None
    finished_at: Time | None
    summary: Summary
    scanner: str
    database_updated_at: Time | None
    """When the vulnerability data was last changed."""
    sbom_digest: str | None
    """Of the manifest that carries the first image's SBOM, which is its subject."""
    error: str
    """Why it failed."""


class ScanList(Listing, frozen=True):
    """A page of scans, the newest first."""

    scans: list[ScanInfo]


class ScanDetail(ScanInfo, frozen=True):
    """A scan, and what it found."""

    images: list[ScannedImage]
    findings: list[Vulnerability]
    """The worst first; what several images share stands here once."""


class ScanLog(Answer, frozen=True):
    """What a scan had to say."""

    lines: list[str]


_ALL = f"{PREFIX}/scans"
_ONE = f"{_ALL}/{{id}}"
_NOWHERE = (Code.VALIDATION_FAILED, Code.IMAGE_NOT_FOUND, Code.TAG_NOT_FOUND)


class ScanHandlers:
    """The handlers."""

    def __init__(self, scans: Scans) -> None:
        self._scans = scans

    def routes(self) -> list[Route]:
        """Return what the API serves of it."""
        return [
            Route(
                "GET", _ALL, self.list, in_projects(Scope.READ),
                query=ScansQuery, answer=ScanList, refusals=(Code.IMAGE_NOT_FOUND,),
                tag="scans", summary="List the scans of what one may read",
            ),
            Route(
                "POST", _ALL, self.request, in_projects(Scope.WRITE),
                body=NewScan, answer=ScanInfo, status=202,
                refusals=(
                    *_NOWHERE, Code.PERMISSION_MISSING, Code.TOO_MANY_REQUESTS, Code.NO_SCANNER,
                ),
                tag="scans", summary="Have an image scanned",
            ),
            Route(
                "GET", _ONE, self.get, in_projects(Scope.READ),
                answer=ScanDetail, refusals=(Code.SCAN_NOT_FOUND,),
                tag="scans", summary="Show a scan and what it found",
            ),
            Route(
                "GET", f"{_ONE}/logs", self.log, in_projects(Scope.READ),
                answer=ScanLog, refusals=(Code.SCAN_NOT_FOUND,),
                tag="scans", summary="Show the log of a scan",
            ),
            Route(
                "POST", f"{_ONE}/cancel", self.cancel, in_projects(Scope.WRITE),
                answer=ScanInfo,
                refusals=(
                    Code.SCAN_NOT_FOUND, Code.PERMISSION_MISSING, Code.NOT_IN_THIS_STATE,
                ),
                tag="scans", summary="End a scan that waits or runs",
            ),
            Route(
                "GET", f"{PREFIX}/repositories/{{path:repo}}/vulnerabilities",
                self.vulnerabilities, in_projects(Scope.READ),
                query=VulnerabilitiesQuery, answer=ScanDetail,
                refusals=(*_NOWHERE, Code.SCAN_NOT_FOUND),
                tag="repositories", summary="Show what the newest good scan of an image found",
            ),
        ]  # fmt: skip

    async def list(self, call: Call, query: ScansQuery) -> ScanList:
        """List scans."""
        found = await self._scans.page(
            call.principal,
            repository=RepositoryName.parse(query.repository) if query.repository else None,
            status=query.status,
            offset=query.offset,
            limit=query.page_size,
        )
        return ScanList(scans=[_info(it) for it in found.items], **query.place(found.total))

    async def request(self, call: Call, body: NewScan) -> ScanInfo:
        """Have an image scanned."""
        repository = RepositoryName.parse(body.repository)
        reference = reference_of(body.reference)
        call.facts.update(repository=body.repository, reference=body.reference)
        scan = await self._scans.request(call.principal, repository, reference, call.act)
        call.facts.update(project_id=scan.project_id, id=scan.id)
        return _info(scan)

    async def get(self, call: Call) -> ScanDetail:
        """Show a scan."""
        return _detail(await self._scans.get(call.principal, call.path["id"]))

    async def log(self, call: Call) -> ScanLog:
        """Show the log of a scan."""
        return ScanLog(lines=[*self._scans.log(call.principal, call.path["id"])])

    async def cancel(self, call: Call) -> ScanInfo:
        """End a scan."""
        scan = await self._scans.cancel(call.principal, call.path["id"])
        call.facts["project_id"] = scan.project_id
        return _info(scan)

    async def vulnerabilities(self, call: Call, query: VulnerabilitiesQuery) -> ScanDetail:
        """Show what was found."""
        repository = RepositoryName.parse(call.path["repo"])
        reference = reference_of(query.reference)
        return _detail(await self._scans.newest(call.principal, repository, reference))


def _info(scan: ports.Scan) -> ScanInfo:
    return ScanInfo(**_fields(scan))


def _detail(details: Details) -> ScanDetail:
    scan = details.scan
    return ScanDetail(
        **_fields(scan),
        images=[
            ScannedImage(
                digest=it.digest,
                platform=it.platform,
                packages=it.packages,
                sbom_digest=it.sbom_digest,
            )
            for it in scan.images
        ],
        findings=[_vulnerability(it) for it in details.findings],
    )


def _fields(scan: ports.Scan) -> dict[str, Any]:
    return {
        "id": scan.id,
        "project_id": scan.project_id,
        "repository": scan.repository,
        "reference": scan.reference,
        "digest": scan.digest,
        "status": scan.status,
        "trigger": scan.trigger,
        "requested_by": scan.username,
        "created_at": moment(scan.created_at),
        "started_at": _moment(scan.started_at),
        "finished_at": _moment(scan.finished_at),
        "summary": Summary(**msgspec.structs.asdict(scan.summary)),
        "scanner": scan.scanner,
        "database_updated_at": _moment(scan.database_updated_at),
        "sbom_digest": scan.images[0].sbom_digest if scan.images else None,
        "error": scan.error,
    }


def _vulnerability(found: Finding) -> Vulnerability:
    return Vulnerability(
        id=found.id,
        package=found.package,
        installed_version=found.installed_version,
        fixed_version=found.fixed_version,
        severity=found.severity.value,
        title=found.title,
        url=found.url,
        cvss=found.cvss,
        layer=str(found.layer),
        purl=found.purl,
    )


def _moment(seconds: float | None) -> Time | None:
    return None if seconds is None else moment(seconds)
