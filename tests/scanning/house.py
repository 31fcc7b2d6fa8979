"""A registry with an engine that does as it is told, in one process."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

from cypd.access import Principal
from cypd.metadata.lmdb import LmdbMetadata
from cypd.oci.digest import Digest
from cypd.oci.media_types import OCI_INDEX, OCI_MANIFEST
from cypd.oci.names import Tag
from cypd.projects.ports import UNLIMITED
from cypd.registry.manifests import Manifests
from cypd.registry.uploads import Body, Uploads
from cypd.scanning.images import Images
from cypd.scanning.ports import Finding, Image, NotReady, Report, Say, ScanFailed, Severity
from cypd.scanning.runner import Runner
from cypd.scanning.sboms import Sboms
from cypd.scanning.scan_ports import Scan, Status
from cypd.storage.memory import MemoryStorage
from tests.metadata.test_scans import new
from tests.samples import ACT, EMPTY, image, name, project
from tests.samples import index as document_of_index

APP = name("library/app")
_ADA = Principal("ada's id", "ada")


class Scripted:
    """An ``Engine`` that finds what it was told to find in each image."""

    name = "scripted"

    def __init__(self) -> None:
        self.found: dict[Digest, tuple[Finding, ...]] = {}
        self.trouble: Exception | None = None
        self.is_ready = True
        self.sbom = b'{"bomFormat":"CycloneDX","specVersion":"1.6"}'
        self.data = "g"
        self.holds = asyncio.Event()
        self.holds.set()
        self.scanned: list[Digest] = []
        self.ended: list[Digest] = []
        self.at_once = self.most_at_once = 0

    def require_ready(self) -> None:
        if not self.is_ready:
            raise NotReady("import some data")

    def generation(self) -> str:
        return self.data

    async def scan(self, image: Image, *, say: Say) -> Report:
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        self.scanned.append(image.digest)
        say(f"looking at {len(image.layers)} layers\x1b[31m")
        try:
            await self.holds.wait()
        finally:
            self.at_once -= 1
            self.ended.append(image.digest)
        if self.trouble:
            raise self.trouble
        return Report(self.found.get(image.digest, ()), 7, self.sbom, "scripted 1", 123.0)


class House:
    """Everything that scans, over LMDB and blobs in memory."""

    def __init__(self, path: Path) -> None:
        self.metadata = LmdbMetadata(path / "metadata", 64 << 20)
        self.store = self.metadata.scans
        self.storage = MemoryStorage()
        self.engine = Scripted()
        registry = self.metadata.registry
        self.manifests = Manifests(registry, self.storage, allow_sparse=True)
        self.uploads = Uploads(registry, self.storage, max_sessions_per_user=9)
        self.images = Images(registry, self.storage, self.manifests)
        self.sboms = Sboms(registry, self.uploads, self.manifests)
        self.told: list[Status] = []
        """How scans ended, as runners told."""
        self._running: asyncio.Task[None] | None = None

    async def begin(self, quota: int = UNLIMITED) -> None:
        """Make the project."""
        await self.metadata.projects.create_project(project("library", quota))

    def runner(
        self,
        *,
        on_push: bool = False,
        on_new_data: bool = True,
        parallel: int = 1,
        timeout: float = 60.0,
    ) -> Runner:
        """Return a runner, as each process has one."""
        return Runner(
            self.store,
            self.metadata.registry,
            self.images,
            self.sboms,
            self.engine,
            queue=100,
            history=10,
            parallel=parallel,
            timeout=timeout,
            on_push=on_push,
            on_new_data=on_new_data,
            on_end=self.told.append,
        )

    def start(self, runner: Runner | None = None) -> None:
        """Run it beside the test."""
        self._running = asyncio.create_task((runner or self.runner()).run())

    async def stop(self) -> None:
        """End it, as the daemon does when it is told to."""
        if self._running:
            self._running.cancel()
            with suppress(asyncio.CancelledError):
                await self._running
            self._running = None

    async def close(self) -> None:
        """End everything."""
        await self.stop()
        self.metadata.close()

    async def put(self, blob: bytes) -> None:
        """Push a blob."""
        body = Body(_pieces(blob), len(blob))
        await self.uploads.push(APP, _ADA, body, Digest.of(blob))

    async def push(self, tag: str, *layers: bytes, config: bytes = EMPTY) -> Digest:
        """Push an image; return its digest."""
        for blob in (config, *layers):
            await self.put(blob)
        return await self.put_manifest(image(*layers, config=config), tag)

    async def push_index(self, tag: str, *manifests: bytes) -> Digest:
        """Push an index of manifests that are there."""
        return await self.put_manifest(document_of_index(*manifests), tag, OCI_INDEX)

    async def put_manifest(
        self, content: bytes, tag: str, media_type: str = OCI_MANIFEST
    ) -> Digest:
        """Push a manifest."""
        await self.manifests.put(APP, content, media_type, Tag(tag), [], act=ACT)
        return Digest.of(content)

    async def ask(self, digest: Digest) -> Scan:
        """Ask for a scan."""
        return await self.store.request_scan(new(digest, reference=str(digest)), limit=100)

    async def until(self, is_so: Callable[[], object]) -> None:
        """Wait for something to be so."""
        async with asyncio.timeout(30):
            while not is_so():
                await asyncio.sleep(0.02)

    async def scan(self, digest: Digest) -> Scan:
        """Ask for a scan and wait for its end."""
        asked = await self.ask(digest)
        return await self.ended(asked.id)

    async def ended(self, scan_id: str) -> Scan:
        """Wait for the end of a scan."""
        await self.until(lambda: self.status(scan_id) not in ("pending", "running"))
        found = self.store.scan(scan_id)
        assert found
        return found

    def status(self, scan_id: str) -> str | None:
        """Return how a scan stands."""
        found = self.store.scan(scan_id)
        return found.status if found else None


def finding(identity: str = "CVE-1", severity: Severity = Severity.HIGH, **more: str) -> Finding:
    """Return a finding."""
    fields = {"package": "pkg", "installed_version": "1", "fixed_version": "2", "title": "t"}
    layer = Digest.of(b"layer")
    return Finding(
        id=identity, severity=severity, url="https://e/", cvss=None, layer=layer, **fields | more
    )


FAILED = ScanFailed("its layers are no archives")


async def _pieces(blob: bytes) -> AsyncIterator[bytes | memoryview]:
    yield blob
