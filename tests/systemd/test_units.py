"""The units: what systemd thinks of them, and whether the daemon can live with what they forbid."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from random import Random

import pytest

from tests.authority import Authority
from tests.crash.client import Client
from tests.daemon import CYPD
from tests.metrics.measured import series
from tests.syscalls.strace import Call, parse, require_strace
from tests.systemd import use
from tests.systemd.launcher import Launcher
from tests.weed import Weed

ROOT = Path(__file__).parent.parent.parent
UNITS = ROOT / "systemd"
SERVICE = UNITS / "cypd.service"
BLOB = Random(0).randbytes(1 << 20)
PARTS = Random(0).randbytes(17 << 20)  # a part of 16 MiB that is sent while the rest comes
PROC_OF_PROCESSES = (
    *("unshare", "--mount", "--propagation=private", "sh", "-c"),
    *('mount -t proc -o subset=pid proc /proc && exec "$@"', "sh"),
)


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze; skip the test where it is not installed."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed (Debian: systemd)")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def settings(name: str) -> list[str]:
    """Return the values of a setting of the service, in their order."""
    return re.findall(rf"(?m)^{name}=(.*)$", SERVICE.read_text())


def test_the_units_are_understood(tmp_path: Path) -> None:
    """systemd-analyze verify finds nothing to say, once the program is where it looks for it."""
    additions = tmp_path / "cypd.service.d"
    additions.mkdir()
    for unit in UNITS.iterdir():
        text = unit.read_text().replace("/opt/cypd/bin/cypd", CYPD)
        folder = additions if unit.suffix == ".conf" else tmp_path
        (folder / unit.name).write_text(text)
    done = analyze("verify", *(str(it) for it in tmp_path.iterdir() if it.is_file()))

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("additions", "tenths"), [([], 5), (["outbound.conf"], 12)])
def test_the_service_is_confined(tmp_path: Path, additions: list[str], tenths: int) -> None:
    """systemd's own measure of exposure is 0.5 of 10, and 1.2 of one that reaches other hosts."""
    unit = tmp_path / SERVICE.name
    folder = unit.with_suffix(".service.d")
    folder.mkdir()
    shutil.copy(SERVICE, unit)
    for name in additions:
        shutil.copy(UNITS / name, folder)
    done = analyze("security", "--offline=true", f"--threshold={tenths}", str(unit))
    tighter = analyze("security", "--offline=true", f"--threshold={tenths - 1}", str(unit))

    assert done.returncode == 0, done.stdout[-2000:]
    assert tighter.returncode != 0  # the addition is read, and the figure is this one


@pytest.mark.timeout(240)
def test_the_daemon_does_nothing_that_the_service_forbids(tmp_path: Path) -> None:
    """From start over a reload to its stop it makes no forbidden call, and no writable code."""
    allowed = _allowed_calls()
    strace, log = require_strace(), tmp_path / "strace.log"
    authority = Authority(tmp_path / "tls")
    sweeps = {"CYPD_GC_INTERVAL": "0.2", "CYPD_GC_BLOB_GRACE": "0.2"}
    settings = {**use.settings(authority), **sweeps}
    daemon = Launcher(tmp_path, settings, names=use.NAMES, watchdog=0.5)
    daemon.command = (strace, "-D", "-f", "-o", str(log), *daemon.command)
    with daemon, Client(daemon) as client:
        use.use(daemon, client, authority, BLOB, tmp_path)
        daemon.hear("WATCHDOG=1", count=3)
        os.kill(daemon.pid, signal.SIGHUP)
        daemon.hear("READY=1", count=2, deadline=100)
    calls = parse(log.read_text(errors="replace"))

    names = {call.name for call in calls}

    assert {"sendfile", "flock", "accept4", "landlock_create_ruleset", "setpriority"} <= names
    assert names - allowed == set()
    assert {call.arguments for call in calls if _is_foreign_socket(call)} == set()
    assert [call for call in calls if _is_writable_code(call)] == []


@pytest.mark.timeout(240)
def test_the_daemon_needs_no_more_of_proc_than_processes(tmp_path: Path) -> None:
    """With /proc as ProcSubset=pid leaves it: parts for S3, TLS, a scan, a process's figures."""
    if os.geteuid() != 0:
        pytest.skip("mounting takes root")
    authority = Authority(tmp_path / "tls")
    with Weed(tmp_path) as weed:
        settings = {**use.settings(authority), **weed.environment}
        daemon = Launcher(tmp_path, settings, names=use.NAMES)
        daemon.command = (*PROC_OF_PROCESSES, *daemon.command)
        with daemon, Client(daemon, timeout=60) as client:
            assert not Path(f"/proc/{daemon.pid}/root/proc/stat").exists()
            found = use.use(daemon, client, authority, PARTS, tmp_path)

    assert found[series("process_resident_memory_bytes")] > 10 << 20
    assert found[series("process_open_fds")] > 5
    assert found[series("process_cpu_seconds_total")] > 0
    assert 0 <= time.time() - found[series("process_start_time_seconds")] < 240


def _is_foreign_socket(call: Call) -> bool:
    families = settings("RestrictAddressFamilies")[-1].split()
    return call.name == "socket" and call.arguments.split(",")[0] not in families


def _is_writable_code(call: Call) -> bool:
    return call.name in ("mmap", "mprotect") and "PROT_WRITE|PROT_EXEC" in call.arguments


def _allowed_calls() -> set[str]:
    """Return what the filters of the service let through: each names more, or with ~ takes away."""
    groups = _groups()
    allowed: set[str] = set()
    for names in settings("SystemCallFilter"):
        calls = set().union(*(_expand(name, groups) for name in names.lstrip("~").split()))
        allowed = allowed - calls if names.startswith("~") else allowed | calls
    return allowed


def _groups() -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    name = ""
    for line in analyze("syscall-filter").stdout.splitlines():
        if line.startswith("@"):
            name = line
        elif line.startswith("    ") and not line.startswith("    #"):
            groups.setdefault(name, []).append(line.strip())
    return groups


def _expand(name: str, groups: dict[str, list[str]]) -> set[str]:
    if not name.startswith("@"):
        return {name}
    return set().union(*(_expand(member, groups) for member in groups[name]))
