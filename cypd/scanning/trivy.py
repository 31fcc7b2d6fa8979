"""Scans by an installed Trivy, which pulls the image from this registry as any client does.

It is started by its argument list, never by a shell, with a token by its environment that is good
for one repository and ends with the scan.
"""

import asyncio
import contextlib
import os
import resource
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, TypeVar

import msgspec

from cypd.oci.digest import Digest
from cypd.oci.errors import OCIError
from cypd.scanning.ports import Finding, Image, NotReady, Report, Say, ScanFailed, Severity

MAX_REPORT = 32 << 20
_T = TypeVar("_T")
_MAX_FILE = 8 << 30  # its own database is one file of some hundred MiB
_LOG_BYTES = 16 << 10
_LOG_LINES = 40
_NICEST = 19
# What tells it how to reach its database; all else is none of its business.
_PASSED_ON = ("PATH", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy",
              "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR")  # fmt: skip


class Registry(NamedTuple):
    """Where Trivy finds this registry."""

    host: str
    """With its port."""
    is_plain: bool
    """By plain HTTP."""


# --- what it writes: github.com/aquasecurity/trivy, pkg/types/report.go ---------------------------


class _Struct(msgspec.Struct, frozen=True, rename="pascal"):
    pass


class _Layer(_Struct, frozen=True):
    digest: str = ""
    diff_id: str = msgspec.field(default="", name="DiffID")


class _Identifier(_Struct, frozen=True):
    purl: str = msgspec.field(default="", name="PURL")


class _Score(_Struct, frozen=True):
    v3_score: float | None = msgspec.field(default=None, name="V3Score")
    v40_score: float | None = msgspec.field(default=None, name="V40Score")


class _Vulnerability(_Struct, frozen=True):
    vulnerability_id: str = msgspec.field(name="VulnerabilityID")
    pkg_name: str = ""
    pkg_identifier: _Identifier = _Identifier()
    installed_version: str = ""
    fixed_version: str = ""
    severity: str = ""
    title: str = ""
    primary_url: str = msgspec.field(default="", name="PrimaryURL")
    layer: _Layer = _Layer()
    cvss: dict[str, _Score] = msgspec.field(default_factory=dict, name="CVSS")


class _Result(_Struct, frozen=True):
    packages: tuple[msgspec.Raw, ...] | None = None
    vulnerabilities: tuple[_Vulnerability, ...] | None = None


class _Metadata(_Struct, frozen=True):
    diff_ids: tuple[str, ...] | None = msgspec.field(default=None, name="DiffIDs")


class _Report(_Struct, frozen=True):
    metadata: _Metadata = _Metadata()
    results: tuple[_Result, ...] | None = None


class _Database(_Struct, frozen=True):
    updated_at: datetime | None = None


class _Version(_Struct, frozen=True):
    version: str = ""
    vulnerability_db: _Database | None = msgspec.field(default=None, name="VulnerabilityDB")


class Trivy:
    """An ``Engine``."""

    name = "trivy"

    def __init__(
        self,
        program: str,
        folder: Path,
        registry: Registry,
        token_for: Callable[[Image], str],
        *,
        memory: int,
        cpu_seconds: int,
    ) -> None:
        """``folder`` is where Trivy keeps its database; ``memory`` is in bytes."""
        self._program = program
        self._folder = folder
        self._registry = registry
        self._token_for = token_for
        self._memory = memory
        self._cpu_seconds = cpu_seconds

    def require_ready(self) -> None:
        self._require_program()

    def _require_program(self) -> str:
        """Return where the program is, from wherever it is started."""
        found = shutil.which(self._program)
        if found is None:
            raise NotReady(
                f"scanning.engine is trivy, but there is no program "
                f"{self._program}: install Trivy, or set scanning.trivy to where it is"
            )
        return str(Path(found).absolute())

    def generation(self) -> str:
        try:
            return str((self._folder / "db" / "metadata.json").stat().st_mtime_ns)
        except OSError:
            return ""

    async def scan(self, image: Image, *, say: Say) -> Report:
        program = self._require_program()
        self._folder.mkdir(mode=0o700, exist_ok=True)
        with TemporaryDirectory(dir=self._folder, prefix="scan-") as directory:
            work = _Work(program, Path(directory), self._environment(image), say)
            result = await self._run(
                work, "image", "--image-src", "remote", "--scanners", "vuln", "--format", "json",
                "--list-all-pkgs", "--no-progress", "--",
                f"{self._registry.host}/{image.repository}@{image.digest}",
            )  # fmt: skip
            report = _decode(result, _Report)
            version = await self._version(work)
            sbom = await self._sbom(work, result)
        database = version.vulnerability_db
        updated = database.updated_at if database else None
        return Report(
            findings=tuple(_findings(report, image)),
            packages=sum(len(it.packages or ()) for it in report.results or ()),
            sbom=sbom,
            scanner=f"trivy {version.version}".strip(),
            database_updated_at=updated.timestamp() if updated else None,
        )

    def _environment(self, image: Image) -> Mapping[str, str]:
        return {
            **{name: os.environ[name] for name in _PASSED_ON if name in os.environ},
            "HOME": str(self._folder),
            "TRIVY_CACHE_DIR": str(self._folder),
            "TRIVY_REGISTRY_TOKEN": self._token_for(image),
            # Whatever its value, it also leaves certificates unchecked (pkg/flag/global_flags.go).
            **({"TRIVY_NON_SSL": "true"} if self._registry.is_plain else {}),
            "TRIVY_DISABLE_VEX_NOTICE": "true",
            # A Go program reserves far more address space than it uses, so that no limit of that
            # would fit: it is told how much it may use instead.
            "GOMEMLIMIT": str(self._memory),
        }

    async def _version(self, work: "_Work") -> _Version:
        try:
            return _decode(await self._run(work, "version", "--format", "json"), _Version)
        except ScanFailed:
            return _Version()

    async def _sbom(self, work: "_Work", report: bytes) -> bytes:
        file = work.directory / "report.json"
        file.write_bytes(report)
        try:
            return await self._run(work, "convert", "--format", "cyclonedx", "--", str(file))
        except ScanFailed as error:
            work.say(f"no SBOM: {error}")
            return b""

    async def _run(self, work: "_Work", *arguments: str) -> bytes:
        """Run Trivy and return what it writes; raise ScanFailed with what it says."""
        output, errors = work.directory / "output", work.directory / "errors"
        with output.open("wb") as out, errors.open("wb") as err:
            process = await asyncio.create_subprocess_exec(
                work.program,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=work.directory,
                env={**work.environment, "TMPDIR": str(work.directory)},
                start_new_session=True,
            )
            async with _ending(process):
                self._restrain(process.pid)
                status = await process.wait()
        lines = _tail(errors)
        for line in lines:
            work.say(line)
        if status != 0:
            reason = lines[-1] if lines else "it said nothing"
            raise ScanFailed(f"trivy {arguments[0]} ended with status {status}: {reason}")
        if output.stat().st_size > MAX_REPORT:
            raise ScanFailed(f"trivy found more than {MAX_REPORT} bytes of things to say")
        return output.read_bytes()

    def _restrain(self, pid: int) -> None:
        limits = {
            resource.RLIMIT_CPU: self._cpu_seconds,
            resource.RLIMIT_FSIZE: _MAX_FILE,
            resource.RLIMIT_CORE: 0,
        }
        with contextlib.suppress(ProcessLookupError):  # it has ended already
            os.setpriority(os.PRIO_PROCESS, pid, _NICEST)
            for kind, most in limits.items():
                _, hard = resource.prlimit(pid, kind)
                bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
                resource.prlimit(pid, kind, (bound, bound))


class _Work(NamedTuple):
    """One scan, by which program, and where it works."""

    program: str
    directory: Path
    environment: Mapping[str, str]
    say: Say


@contextlib.asynccontextmanager
async def _ending(process: asyncio.subprocess.Process) -> AsyncIterator[None]:
    """See to it that nothing is left of a process and of what it started."""
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _tail(file: Path) -> Sequence[str]:
    """Return the last lines of a file."""
    with file.open("rb") as opened:
        opened.seek(max(0, file.stat().st_size - _LOG_BYTES))
        text = opened.read().decode(errors="replace")
    return [line for line in text.splitlines() if line.strip()][-_LOG_LINES:]


def _decode(content: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ScanFailed(f"what trivy wrote is not understood: {error}") from None


def _findings(report: _Report, image: Image) -> list[Finding]:
    places = report.metadata.diff_ids or ()
    return [
        Finding(
            id=it.vulnerability_id,
            package=it.pkg_name,
            installed_version=it.installed_version,
            fixed_version=it.fixed_version,
            severity=_severity(it.severity),
            title=it.title,
            url=it.primary_url,
            cvss=_score(it.cvss),
            layer=_layer(it.layer, places, image),
            purl=it.pkg_identifier.purl,
        )
        for result in report.results or ()
        for it in result.vulnerabilities or ()
    ]


def _severity(word: str) -> Severity:
    try:
        return Severity(word.lower())
    except ValueError:
        return Severity.UNKNOWN


def _score(scores: Mapping[str, _Score]) -> float | None:
    """Return the base score: NVD's, where it has one."""
    ordered = sorted(scores.items(), key=lambda it: (it[0] != "nvd", it[0]))
    found = [score for _, it in ordered for score in (it.v40_score, it.v3_score) if score]
    return found[0] if found else None


def _layer(layer: _Layer, places: Sequence[str], image: Image) -> Digest:
    """Return the layer as the manifest lists it: what Trivy calls it may be the unpacked one's."""
    if layer.diff_id in places and len(places) == len(image.layers):
        return image.layers[places.index(layer.diff_id)].digest
    try:
        return Digest.parse(layer.digest)
    except OCIError:
        return image.layers[-1].digest if image.layers else image.digest
