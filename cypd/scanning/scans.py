"""The rules of scans: who may ask for which, and who may see what was found."""

import asyncio
import time
import uuid
from collections.abc import Sequence
from typing import NamedTuple

from cypd.access import Act, Action, Principal
from cypd.oci.digest import Digest
from cypd.oci.endpoints import Reference
from cypd.oci.names import RepositoryName, Tag
from cypd.projects.access import ProjectAccess
from cypd.projects.ports import ProjectStore
from cypd.refusals import Code, Refusal, invalid
from cypd.registry.inventory_ports import Found
from cypd.registry.ports import MetadataStore, StoredManifest
from cypd.scanning.findings import merged
from cypd.scanning.images import Images
from cypd.scanning.ports import Engine, Finding, NotReady
from cypd.scanning.scan_ports import Scan, ScanStore, Status


class Details(NamedTuple):
    """A scan with what it found, the worst first."""

    scan: Scan
    findings: Sequence[Finding]


class Scans:
    """Scans, for people. Every id and name may be anything.

    What one may not read does not exist: both are refused with the same words.
    """

    def __init__(
        self,
        store: ScanStore,
        metadata: MetadataStore,
        projects: ProjectStore,
        access: ProjectAccess,
        images: Images,
        *,
        engine: Engine,
        queue: int,
    ) -> None:
        self._store = store
        self._metadata = metadata
        self._projects = projects
        self._access = access
        self._images = images
        self._engine = engine
        self._queue = queue

    async def request(
        self, principal: Principal, repository: RepositoryName, reference: Reference, act: Act
    ) -> Scan:
        """Have an image scanned, by tag or digest.

        Raises IMAGE_NOT_FOUND, TAG_NOT_FOUND, LACKS_WRITE, PERMISSION_MISSING, NO_SCANNER,
        VALIDATION_FAILED for what is no image, and TOO_MANY_REQUESTS while too many wait.
        """
        project = self._require(principal, Action.SCAN, repository)
        try:
            self._engine.require_ready()
        except NotReady as error:
            raise Refusal(Code.NO_SCANNER, advice=str(error)) from None
        manifest = self._manifest(repository, reference)
        content = await self._images.content(manifest)
        if not content.is_image:
            raise invalid("reference", f"is no image: {content.kind or manifest.media_type}")
        new = Scan(
            id=str(uuid.uuid4()),
            number=0,
            project_id=project,
            repository=str(repository),
            reference=str(reference),
            digest=str(manifest.digest),
            trigger="request",
            user_id=act.user_id,
            username=act.name,
            created_at=act.at,
        )
        return await self._store.request_scan(new, limit=self._queue)

    async def page(
        self,
        principal: Principal,
        *,
        repository: RepositoryName | None,
        status: Status | None,
        offset: int,
        limit: int,
    ) -> Found[Scan]:
        """Return scans, newest first; raise IMAGE_NOT_FOUND."""
        projects = None
        if repository is not None:
            self._require(principal, Action.PULL, repository)
        else:
            projects = await self._access.all_readable(principal)
        return self._store.scans(
            projects, repository=repository, status=status, offset=offset, limit=limit
        )

    async def get(self, principal: Principal, scan_id: str) -> Details:
        """Return a scan; raise SCAN_NOT_FOUND."""
        scan = self._visible(principal, scan_id)
        findings = self._store.findings(scan.id)
        return Details(scan, await asyncio.to_thread(merged, findings))

    def log(self, principal: Principal, scan_id: str) -> Sequence[str]:
        """Return the lines of a scan's log; raise SCAN_NOT_FOUND."""
        return self._store.scan_log(self._visible(principal, scan_id).id)

    async def cancel(self, principal: Principal, scan_id: str) -> Scan:
        """End a scan that waits or runs.

        Raises SCAN_NOT_FOUND, LACKS_WRITE, PERMISSION_MISSING, and NOT_IN_THIS_STATE if it is over.
        """
        scan = self._visible(principal, scan_id)
        self._access.require(principal, Action.SCAN, scan.project_id)
        return await self._store.cancel_scan(scan.id, at=time.time())

    async def newest(
        self, principal: Principal, repository: RepositoryName, reference: Reference
    ) -> Details:
        """Return the newest scan of an image that succeeded.

        Raises IMAGE_NOT_FOUND, TAG_NOT_FOUND, SCAN_NOT_FOUND.
        """
        self._require(principal, Action.PULL, repository)
        digest = self._manifest(repository, reference).digest
        number = self._store.latest(repository, digest)
        scan = self._store.numbered(number) if number else None
        if scan is None or number is None:
            raise Refusal(Code.SCAN_NOT_FOUND)
        findings = self._store.findings_in(number, digest)
        return Details(scan, await asyncio.to_thread(merged, [findings]))

    # --- who may see what -----------------------------------------------------------------------

    def _require(self, principal: Principal, action: Action, repository: RepositoryName) -> str:
        """Return the id of a repository's project."""
        project = self._access.readable(principal, repository.project)
        if project is None or not self._metadata.repository_exists(repository):
            raise Refusal(Code.IMAGE_NOT_FOUND)
        self._access.require(principal, action, project)
        return project

    def _manifest(self, repository: RepositoryName, reference: Reference) -> StoredManifest:
        manifest = self._metadata.manifest(repository, reference)
        if manifest is None:
            is_tag = isinstance(reference, Tag)
            raise Refusal(Code.TAG_NOT_FOUND if is_tag else Code.IMAGE_NOT_FOUND)
        return manifest

    def _visible(self, principal: Principal, scan_id: str) -> Scan:
        scan = self._store.scan(scan_id)
        project = self._projects.project(scan.project_id) if scan else None
        if scan is None or project is None:
            raise Refusal(Code.SCAN_NOT_FOUND)
        if not self._access.allows_in(principal, Action.PULL, project):
            raise Refusal(Code.SCAN_NOT_FOUND)
        return scan


def reference_of(text: str) -> Reference:
    """Return a tag or a digest; raise OCIError for what is neither."""
    return Digest.parse(text) if ":" in text else Tag.parse(text)
