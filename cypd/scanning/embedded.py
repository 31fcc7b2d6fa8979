"""The engine that cypd brings along: a process for each scan, which the daemon only listens to."""

import asyncio
import logging
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import cypd
from cypd.oci.digest import Digest
from cypd.registry.ports import BlobMissing, Inline, LocalFile
from cypd.scanning.limits import Limits
from cypd.scanning.ports import Finding, Image, Layer, NotReady, Report, Say, ScanFailed
from cypd.scanning.vulndb import require_file
from cypd.scanning.wire import (
    MAX_FINDINGS,
    MAX_FINDINGS_BYTES,
    MAX_LINE,
    MAX_SAID,
    MAX_SBOM_BYTES,
    Done,
    Failed,
    Found,
    Job,
    LayerFile,
    Message,
    Said,
    decode,
    encode,
)

log = logging.getLogger(__name__)

OpenBlob = Callable[[Digest, int], Awaitable[Inline | LocalFile]]
"""Opens content of that digest and size; raises BlobMissing."""

MAX_LAYERS = 256
"""Open files for one scan. Container runtimes mount some 120 layers at most."""
_PIECE = 64 << 10
_COMMAND = ("-I", "-m", "cypd.scanning.child")


class EmbeddedEngine:
    """Finds packages and vulnerabilities in layers of the blob storage."""

    name = "embedded"

    def __init__(self, open_blob: OpenBlob, data: Path, limits: Limits) -> None:
        """``data``: the folder of the vulnerability data, which may not exist yet."""
        self._open_blob = open_blob
        self._data = data.absolute()
        self._limits = limits

    @property
    def scanner(self) -> str:
        """The engine's name and version, as reports say it."""
        return f"cypd {cypd.__version__}"

    def require_ready(self) -> None:
        """Raise NotReady unless there is vulnerability data."""
        require_file(self._data)

    def generation(self) -> str:
        """Return what changes with each import; empty before the first one."""
        try:
            status = require_file(self._data).stat()
        except (NotReady, FileNotFoundError):
            return ""
        return f"{status.st_ino:x}-{status.st_mtime_ns:x}"

    async def scan(self, image: Image, *, say: Say) -> Report:
        """Scan an image; raise ScanFailed, NotReady. Cancelling it kills the process."""
        self.require_ready()
        if len(image.layers) > MAX_LAYERS:
            raise ScanFailed(f"the image has {len(image.layers)} layers, more than {MAX_LAYERS}")
        with ExitStack() as opened:
            layers = [await self._open(layer, opened) for layer in image.layers]
            job = Job(image.repository, image.digest, tuple(layers), f"{self._data}", self._limits)
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *_COMMAND,
                stdin=PIPE,
                stdout=PIPE,
                stderr=DEVNULL,
                pass_fds=[layer.descriptor for layer in layers if layer.descriptor >= 0],
                env={},
                cwd="/",
                limit=MAX_LINE,
            )
            try:
                async with asyncio.timeout(self._limits.timeout):
                    return await _talk(process, job, say)
            except TimeoutError:
                raise ScanFailed(
                    f"it took longer than {self._limits.timeout:g} seconds (scanning.timeout)"
                ) from None
            finally:
                await _end(process)

    async def _open(self, layer: Layer, opened: ExitStack) -> LayerFile:
        try:
            content = await self._open_blob(layer.digest, layer.size)
        except BlobMissing:
            if _may_be_elsewhere(layer.media_type):
                return LayerFile(-1, layer.digest, layer.media_type)
            raise ScanFailed(f"layer {layer.digest} is not in the storage") from None
        opened.callback(content.close)
        if isinstance(content, Inline):
            descriptor = opened.enter_context(_in_memory(content.data))
        else:
            descriptor = content.fileno()
        return LayerFile(descriptor, layer.digest, layer.media_type)


def _may_be_elsewhere(media_type: str) -> bool:
    """Tell whether it is a non-distributable layer (image-spec layer.md), as those of Windows."""
    return "nondistributable" in media_type or "foreign" in media_type


@contextmanager
def _in_memory(data: bytes) -> Iterator[int]:
    """Return a file of content that is in memory; it has at most 64 KiB."""
    descriptor = os.memfd_create("layer", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, data)
        yield descriptor
    finally:
        os.close(descriptor)


async def _talk(process: Process, job: Job, say: Say) -> Report:
    """Give the process its job and listen, but to no more than an honest one has to say."""
    assert process.stdin is not None  # noqa: S101 (they were asked for)
    assert process.stdout is not None  # noqa: S101
    with suppress(BrokenPipeError, ConnectionResetError):  # its end says more
        process.stdin.write(encode(job))
        await process.stdin.drain()
        process.stdin.close()
    findings: list[Finding] = []
    said = size = 0
    while line := await _line(process.stdout):
        match _decoded(line):
            case Said(text):
                said += 1
                say(text)
            case Found(finding):
                size += len(line)
                findings.append(finding)
            case Failed(reason, trace, is_unready):
                if is_unready:
                    raise NotReady(reason)
                if trace:
                    log.warning("The scan of %s@%s failed:\n%s", job.repository, job.digest, trace)
                raise ScanFailed(reason)
            case Done() as done:
                return await _report(done, tuple(findings), process.stdout)
        if said > MAX_SAID or len(findings) > MAX_FINDINGS or size > MAX_FINDINGS_BYTES:
            raise ScanFailed("the scanner says more than it should")
    raise ScanFailed(_why(await process.wait(), job.limits))


async def _line(stream: asyncio.StreamReader) -> bytes:
    try:
        return await stream.readline()
    except ValueError:  # longer than the stream's limit
        raise ScanFailed("the scanner says more than it should") from None


def _decoded(line: bytes) -> Message:
    try:
        return decode(line)
    except ValueError:
        raise ScanFailed("the scanner says what is not understood") from None


async def _report(
    done: Done, findings: tuple[Finding, ...], stream: asyncio.StreamReader
) -> Report:
    if not 0 <= done.sbom <= MAX_SBOM_BYTES:
        raise ScanFailed("the scanner says more than it should")
    sbom = bytearray()
    while len(sbom) < done.sbom:
        part = await stream.read(done.sbom - len(sbom))
        if not part:
            raise ScanFailed("the scanner ended within its report")
        sbom += part
    return Report(findings, done.packages, bytes(sbom), done.scanner, done.database_updated_at)


def _why(status: int, limits: Limits) -> str:
    """Return what ended a process that did not say so itself."""
    if status == -signal.SIGXCPU:
        return (
            f"it took more than {limits.cpu_seconds} seconds of a processor (scanning.cpu_seconds)"
        )
    if status < 0:
        with suppress(ValueError):
            return f"the scanner crashed ({signal.Signals(-status).name})"
    return f"the scanner ended early, with status {status}"


async def _end(process: Process) -> None:
    """End the process whatever it does, and let none of it be left."""
    with suppress(ProcessLookupError):
        process.kill()
    await asyncio.shield(_bury(process))


async def _bury(process: Process) -> None:
    """Take what a dead process has left in its pipes, for they are closed at their end only."""
    if process.stdin:
        process.stdin.close()
    while process.stdout and await process.stdout.read(_PIECE):
        pass
    await process.wait()
