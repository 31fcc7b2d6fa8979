"""Does the scans that wait, one after another: of all processes one at a time may run it."""

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

from cypd.logs import printable
from cypd.oci.digest import Digest
from cypd.oci.errors import OCIError
from cypd.oci.names import RepositoryName
from cypd.refusals import Code, Refusal
from cypd.registry.ports import BlobMissing, MetadataStore, Unavailable
from cypd.scanning.findings import merged, tidy
from cypd.scanning.images import Images, Platformed
from cypd.scanning.ports import Engine, NotReady, Report, Say, ScanFailed
from cypd.scanning.sboms import Sboms
from cypd.scanning.scan_ports import (
    MAX_LINES,
    Examined,
    Outcome,
    Result,
    Scan,
    ScanStore,
    Status,
    Summary,
)

log = logging.getLogger(__name__)

ATTEMPTS = 3
"""How often a scan is begun whose process dies of it, or of something else."""
_LOOK_SECONDS = 0.5
_STEP = 64
_ROUND_STEP = 32  # few, since who asks for a scan waits behind those that are found
_MAX_LINE = 500


class Runner:
    """The queue's other end."""

    def __init__(
        self,
        store: ScanStore,
        metadata: MetadataStore,
        images: Images,
        sboms: Sboms,
        engine: Engine,
        *,
        queue: int,
        history: int,
        parallel: int,
        timeout: float,
        on_push: bool,
        on_new_data: bool,
        on_end: Callable[[Status], None] = lambda _: None,
    ) -> None:
        """``on_end`` is told of each scan that succeeds or fails."""
        self._store = store
        self._metadata = metadata
        self._images = images
        self._sboms = sboms
        self._engine = engine
        self._queue = queue
        self._history = history
        self._parallel = parallel
        self._timeout = timeout
        self._on_push = on_push
        self._on_new_data = on_new_data
        self._on_end = on_end
        self._round = ("", b"")
        """The data that is being looked for, and the last image that was looked at."""
        self._trouble = ""

    async def run(self) -> None:
        """Scan for as long as it is not cancelled; raises what the store raises."""
        await self._store.recover_scans(attempts=ATTEMPTS, at=time.time())
        if not self._on_push:
            await self._store.forget_pushes()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._feed())
                for _ in range(self._parallel):
                    group.create_task(self._work())
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None

    async def _work(self) -> None:
        while True:
            scan = None
            if self._is_ready():
                scan = await self._store.start_scan(at=time.time())
            if scan is None:
                await asyncio.sleep(_LOOK_SECONDS)
            else:
                await self._perform(scan)

    def _is_ready(self) -> bool:
        """Tell whether the engine can scan; what waits waits until it can."""
        try:
            self._engine.require_ready()
        except NotReady as error:
            if self._trouble != str(error) and self._store.scan_counts()["pending"]:
                self._trouble = str(error)
                log.warning("scans wait: %s", error)
            return False
        self._trouble = ""
        return True

    # --- what is to be scanned without being asked for ------------------------------------------

    async def _feed(self) -> None:
        while True:
            try:
                is_more = await self._follow()
            except Unavailable as error:
                log.warning("scans of what is pushed: %s", error)
                is_more = False
            await asyncio.sleep(0 if is_more else _LOOK_SECONDS)

    async def _follow(self) -> bool:
        generation = self._engine.generation()
        if self._on_push and await self._store.follow_pushes(
            limit=self._queue, step=_STEP, generation=generation
        ):
            return True
        if not self._on_new_data or not generation or not self._is_ready():
            return False
        if self._store.scan_counts()["pending"]:
            return False
        return await self._look_for_outdated(generation)

    async def _look_for_outdated(self, generation: str) -> bool:
        """Have images scanned again that were scanned with other data, while nothing else waits."""
        of, after = self._round
        if of != generation:
            after = b""
        elif not after:
            return False  # all of them were looked at since the data changed
        found = self._store.outdated(generation, after=after, limit=_ROUND_STEP)
        for scan in found.scans:
            await self._again(scan)
        self._round = (generation, found.after)
        return bool(found.after)

    async def _again(self, before: Scan) -> None:
        new = Scan(
            id=str(uuid.uuid4()),
            number=0,
            project_id=before.project_id,
            repository=before.repository,
            reference=before.reference,
            digest=before.digest,
            trigger="data",
            user_id="",
            username="",
            created_at=time.time(),
        )
        try:
            await self._store.request_scan(new, limit=self._queue)
        except Refusal as refusal:
            if refusal.code is not Code.IMAGE_NOT_FOUND:
                raise

    # --- one scan -------------------------------------------------------------------------------

    async def _perform(self, scan: Scan) -> None:
        lines = _Log()
        work = asyncio.create_task(self._outcome(scan, lines.say))
        try:
            await self._watch(scan, work, lines)
        except asyncio.CancelledError:
            # The daemon ends, and the scan is not to blame: it begins anew after the restart.
            await _end(work)
            with contextlib.suppress(Unavailable):
                await self._store.put_back_scan(scan.id)
            raise
        finally:
            await _end(work)
        await self._store.note_scan(scan.id, lines.take())
        if not work.cancelled():
            outcome = work.result()
            if await self._store.finish_scan(scan.id, outcome, keep=self._history):
                self._on_end("failed" if outcome.error else "succeeded")

    async def _watch(self, scan: Scan, work: "asyncio.Task[Outcome]", lines: "_Log") -> None:
        """Return when the work is done, or when nobody wants it any more."""
        while not work.done():
            await asyncio.wait([work], timeout=_LOOK_SECONDS)
            current = self._store.scan(scan.id)
            if current is None or current.status != "running":
                lines.say("cancelled")
                return
            if not work.done() and (some := lines.take()):
                await self._store.note_scan(scan.id, some)

    async def _outcome(self, scan: Scan, say: Say) -> Outcome:
        """Scan, and return how it ended, whatever happens."""
        start = time.monotonic()
        try:
            outcome = await self._scan(scan, say)
        except TimeoutError:
            outcome = _failed(f"it took longer than {self._timeout:g} seconds")
        except (ScanFailed, NotReady) as error:
            outcome = _failed(str(error))
        except BlobMissing:
            outcome = _failed("a part of the image is damaged or missing: push it again")
        except Unavailable as error:
            outcome = _failed(f"the registry could not do it: {error}")
        except Exception:
            log.exception("scan %s of %s", scan.id, scan.repository)
            outcome = _failed("internal error; the daemon's log tells more")
        result = f"failed: {outcome.error}" if outcome.error else _told(outcome.summary)
        say(f"{result}; {time.monotonic() - start:.1f} seconds")
        return outcome

    async def _scan(self, scan: Scan, say: Say) -> Outcome:
        repository, digest = RepositoryName(scan.repository), Digest(scan.digest)
        generation = self._engine.generation()
        found = await self._images.find(repository, digest)
        say(f"{repository}@{digest}: {len(found.images)} image(s), by {self._engine.name}")
        results: list[Result] = []
        reports: list[Report] = []
        for digest in found.elsewhere:
            say(f"the layer {digest} is not looked at: it is kept elsewhere")
        for it in found.images:
            async with asyncio.timeout(self._timeout):
                report = await self._engine.scan(it.image, say=say)
            reports.append(report)
            results.append(await self._result(it, report, say))
        together = await asyncio.to_thread(merged, [it.findings for it in results])
        return Outcome(
            time.time(),
            results=results,
            summary=Summary.of(together),
            scanner=reports[0].scanner,
            database_updated_at=reports[0].database_updated_at,
            generation=generation,
        )

    async def _result(self, it: Platformed, report: Report, say: Say) -> Result:
        image = it.image
        say(f"{it.platform or image.digest}: {report.packages} packages")
        sbom = await self._attach(it, report.sbom, say) if report.sbom else None
        examined = Examined(str(image.digest), it.platform, report.packages, sbom)
        # Thousands of them: in a thread, so that nobody waits for them.
        return Result(examined, await asyncio.to_thread(tidy, report.findings))

    async def _attach(self, it: Platformed, sbom: bytes, say: Say) -> str | None:
        """Store an SBOM; where it has no room, the findings are worth having all the same."""
        manifest = self._metadata.manifest(it.image.repository, it.image.digest)
        if manifest is None:
            raise ScanFailed("the image was deleted while it was scanned")
        try:
            return str(
                await self._sboms.attach(it.image.repository, manifest, sbom, at=time.time())
            )
        except OCIError as error:
            say(f"the SBOM is not stored: {error.message}")
            return None


class _Log:
    """Lines that a scan has to say, until they are stored."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._count = 0

    def say(self, text: str) -> None:
        """Add a line: this is the ``Say``."""
        self._count += 1
        if self._count <= MAX_LINES:
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            self._lines.append(f"{now} {printable(text, _MAX_LINE)}")

    def take(self) -> list[str]:
        """Return what was said since the last call."""
        lines, self._lines = self._lines, []
        return lines


async def _end(work: "asyncio.Task[Outcome]") -> None:
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.wait([work])


def _failed(error: str) -> Outcome:
    return Outcome(time.time(), error=printable(error, _MAX_LINE))


def _told(summary: Summary) -> str:
    counts = [f"{getattr(summary, it)} {it}" for it in summary.__struct_fields__]
    return f"succeeded: {', '.join(counts)}"
