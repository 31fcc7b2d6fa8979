"""Scanning, built over engines and rules."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from cypd.auth.authenticator import UserAuthenticator
from cypd.config import Config
from cypd.metadata.lmdb import LmdbMetadata
from cypd.projects.access import ProjectAccess
from cypd.registry.manifests import Manifests
from cypd.registry.ports import BlobStorage
from cypd.registry.uploads import Uploads
from cypd.scanning.embedded import EmbeddedEngine
from cypd.scanning.guard import Guard
from cypd.scanning.images import Images
from cypd.scanning.limits import Limits
from cypd.scanning.off import Off
from cypd.scanning.ports import Engine, Image, ScanFailed
from cypd.scanning.runner import Runner
from cypd.scanning.sboms import Sboms
from cypd.scanning.scan_ports import Status
from cypd.scanning.scans import Scans
from cypd.scanning.trivy import Registry, Trivy
from cypd.storage.spool import Spool
from cypd.turn import turn


class Scanning(NamedTuple):
    """The rules of scanning, and what scans."""

    scans: Scans
    guard: Guard
    runner: Runner
    lock: Path

    async def run(self) -> None:
        """Scan what waits, when it is this process's turn."""
        async with turn(self.lock):
            await self.runner.run()


def build_scanning(
    config: Config,
    root: Path,
    metadata: LmdbMetadata,
    storage: BlobStorage,
    *,
    access: ProjectAccess,
    authenticator: UserAuthenticator,
    on_end: Callable[[Status], None],
) -> Scanning:
    """Return everything that has to do with scanning; ``on_end`` is told how each scan ended."""
    settings = config.scanning
    store = metadata.registry
    manifests = Manifests(store, storage)
    uploads = Uploads(store, storage, max_sessions_per_user=settings.parallel)
    images = Images(store, storage, manifests)
    engine = _engine(config, root, metadata, storage, authenticator)
    return Scanning(
        Scans(
            metadata.scans,
            store,
            metadata.projects,
            access,
            images,
            engine=engine,
            queue=settings.queue,
        ),
        Guard(metadata.projects, metadata.scans),
        Runner(
            metadata.scans,
            store,
            images,
            Sboms(store, uploads, manifests),
            engine,
            queue=settings.queue,
            history=settings.history,
            parallel=settings.parallel,
            timeout=settings.timeout,
            on_push=settings.on_push,
            on_new_data=settings.on_new_data,
            on_end=on_end,
        ),
        root / "scanner.lock",
    )


def _engine(
    config: Config,
    root: Path,
    metadata: LmdbMetadata,
    storage: BlobStorage,
    authenticator: UserAuthenticator,
) -> Engine:
    settings = config.scanning
    if settings.engine == "off":
        return Off('scanning is switched off: set scanning.engine to "embedded" or "trivy"')

    def token_for(image: Image) -> str:
        """Return a token that is good for as long as a scan of that repository runs."""
        running = metadata.scans.scans(None, status="running", offset=0, limit=settings.parallel)
        for scan in running.items:
            if scan.repository == image.repository:
                return authenticator.issue_scan_token(scan.id, scan.repository)
        raise ScanFailed("cancelled")

    if settings.engine == "trivy":
        return Trivy(
            settings.trivy,
            root / "trivy",
            _own_address(config),
            token_for,
            memory=settings.memory,
            cpu_seconds=settings.cpu_seconds,
        )
    limits = Limits(
        memory=settings.memory,
        cpu_seconds=settings.cpu_seconds,
        timeout=settings.timeout,
        max_bytes=settings.max_bytes,
        max_files=settings.max_files,
        max_ratio=settings.max_ratio,
    )
    return EmbeddedEngine(Spool(storage, root).open, config.vulndb(), limits)


def _own_address(config: Config) -> Registry:
    """Return where a client on this machine finds this registry."""
    url = urlsplit(config.server.external_url)
    if url.netloc:
        return Registry(url.netloc, url.scheme == "http")
    host, port = config.server.addresses()[0]
    if host in ("0.0.0.0", "::"):  # noqa: S104 (asked, not bound)
        host = "127.0.0.1"
    return Registry(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", is_plain=True)
