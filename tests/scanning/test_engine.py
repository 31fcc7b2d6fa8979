"""The process that scans: its bounds, its end, and what the daemon believes of it."""

import asyncio
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from cyclonedx.model.bom import Bom
from cyclonedx.schema import SchemaVersion, _res

from cypd.scanning import embedded
from cypd.scanning.ports import Image, NotReady, ScanFailed
from tests.scanning.laboratory import (
    DEBIAN,
    LIMITS,
    Entry,
    Laboratory,
    dpkg,
    layer,
    python,
    record,
)
from tests.scanning.packing import zstd

MIB = 1 << 20
ENDLESS = 1 << 45
pytestmark = pytest.mark.timeout(300)


def endless() -> bytes:
    """Return a layer of a few MiB that takes an hour to read: 4 TiB of zeros, in frames."""
    info = tarfile.TarInfo("zeros")
    info.size = ENDLESS
    head: bytes = zstd.compress(info.tobuf(tarfile.GNU_FORMAT))
    frame: bytes = zstd.compress(
        bytes(256 * MIB), options={zstd.CompressionParameter.window_log: 27}
    )
    return head + frame * 200


SLOW: dict[str, Any] = {"max_ratio": 1 << 40, "max_bytes": 1 << 50}


async def start(laboratory: Laboratory, **limits: Any) -> "asyncio.Task[Any]":
    """Start a scan that does not end; return when its process reads the layer."""
    laboratory.know(record("CVE-1", "PyPI", "x"))
    image = await laboratory.image(endless())
    engine = laboratory.engine(**{**SLOW, **limits})
    return asyncio.create_task(engine.scan(image, say=laboratory.log.append))


def children(parent: int) -> Iterator[int]:
    """Yield the processes that a process started to scan."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status = (entry / "stat").read_text().rpartition(")")[2].split()
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if int(status[1]) == parent and b"cypd.scanning.child" in command:
                yield int(entry.name)


async def child(parent: int = 0) -> int:
    """Return the process of the scan that runs, when it has bound itself."""
    for _ in range(1200):
        for pid in children(parent or os.getpid()):
            try:
                # The last of its limits is set.
                if "Max core file size        0                    0" in limits_of(pid):
                    return pid
            except OSError:
                continue
        await asyncio.sleep(0.1)
    raise AssertionError("no process has started")


def limits_of(pid: int) -> str:
    """Return the limits of a process (proc_pid_limits(5))."""
    return Path(f"/proc/{pid}/limits").read_text()


def has_landlock() -> bool:
    """Tell whether this kernel has Landlock switched on."""
    modules = Path("/sys/kernel/security/lsm")
    return ctypes.CDLL(None).syscall(444, None, 0, 1) >= 1 or (
        modules.exists() and "landlock" in modules.read_text()
    )


def is_gone(pid: int) -> bool:
    """Tell whether a process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


async def test_the_process_gives_up_what_it_does_not_need(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bounds, the lowest priority, no new privileges, no environment, and only its own files."""
    monkeypatch.setenv("CYPD_TEST_SECRET", "s3cret")
    await laboratory.scan(layer(python("x", "1")))  # an event loop's first child takes more
    before = set(os.listdir("/proc/self/fd"))
    task = await start(laboratory, memory=300 * MIB, cpu_seconds=77)
    pid = await child()
    bounds = {line[:25].strip(): line[25:].split()[:2] for line in limits_of(pid).splitlines()}
    status = Path(f"/proc/{pid}/status").read_text()
    files = [os.readlink(f"/proc/{pid}/fd/{it}") for it in os.listdir(f"/proc/{pid}/fd")]
    written = [it for it in files if not it.startswith(("pipe:", "socket:", "/dev/null"))]

    assert bounds["Max address space"] == [str(300 * MIB)] * 2
    assert bounds["Max cpu time"] == ["77", "78"]
    assert bounds["Max file size"] == bounds["Max processes"] == ["0", "0"]
    assert "NoNewPrivs:\t1" in status
    assert os.sched_getscheduler(pid) == os.SCHED_IDLE
    assert os.getpriority(os.PRIO_PROCESS, pid) == 19
    assert all(
        str(laboratory.folder) in it and ("/blobs/" in it or "/vulndb/" in it) for it in written
    ), files
    try:
        assert b"s3cret" not in Path(f"/proc/{pid}/environ").read_bytes()
    except PermissionError:
        assert os.getuid() != 0  # then only root may look, which is as good
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)  # the pipes are closed at the loop's next turn
    assert before == set(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("call", ["nice", "sched_setscheduler"])
async def test_a_priority_may_be_refused(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Where a container or a unit forbids to lower it, images are scanned all the same."""
    program = (
        "import os, runpy\n"
        "def no(*_): raise PermissionError(1, 'not permitted')\n"
        f"os.{call} = no\n"
        "runpy.run_module('cypd.scanning.child', run_name='__main__')"
    )
    monkeypatch.setattr(embedded, "_COMMAND", ("-I", "-c", program))
    assert (await laboratory.scan(layer(python("x", "1")))).report.packages == 1


async def test_bounds_may_not_be_refused(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without them nothing is read: the scan fails."""
    program = (
        "import resource, runpy\n"
        "def no(*_): raise PermissionError(1, 'not permitted')\n"
        "resource.setrlimit = no\n"
        "runpy.run_module('cypd.scanning.child', run_name='__main__')"
    )
    monkeypatch.setattr(embedded, "_COMMAND", ("-I", "-c", program))
    with pytest.raises(ScanFailed, match="the scanner failed"):
        await laboratory.scan(layer(python("x", "1")))


HOSTILE = """
import os, pathlib, runpy, socket, signal
from cypd.scanning import inventory

def attack(self, layers):
    def allowed(what, *arguments):
        try:
            what(*arguments)
        except OSError:
            return False
        return True

    here = pathlib.Path({folder!r})
    listener = ("127.0.0.1", {port})
    self._say("allowed: " + " ".join(name for name, is_allowed in {{
        "read": allowed((here / "secret").read_text),
        "list": allowed(os.listdir, here),
        "write": allowed((here / "written").write_text, "x"),
        "empty": allowed((here / "empty").touch),
        "remove": allowed((here / "secret").unlink),
        "execute": allowed(os.execv, "/bin/true", ["true"]),
        "connect": allowed(socket.create_connection, listener),
        "signal": allowed(os.kill, os.getppid(), 0),
        "modules": allowed(__import__, "wave"),
    }}.items() if is_allowed))

inventory.Inventory.add = attack
runpy.run_module("cypd.scanning.child", run_name="__main__")
"""


@pytest.mark.skipif(not has_landlock(), reason="needs a kernel with Landlock (5.13)")
async def test_code_of_an_image_could_do_nothing(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were it to take the process over: no file but those that are open, no address, no process."""
    (laboratory.folder / "secret").write_text("s3cret")
    with socket.create_server(("127.0.0.1", 0)) as server:
        program = HOSTILE.format(folder=str(laboratory.folder), port=server.getsockname()[1])
        monkeypatch.setattr(embedded, "_COMMAND", ("-I", "-c", program))
        scan = await laboratory.scan(layer(python("x", "1")))
    [told] = [line for line in scan.log if line.startswith("allowed:")]
    # Addresses and signals are newer: Linux 6.7 and 6.12.
    assert set(told.split()[1:]) - {"connect", "signal"} == {"modules"}
    if tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 12):
        assert told == "allowed: modules"


def test_the_daemon_loads_nothing_that_only_a_scan_needs() -> None:
    """Neither its libraries nor what they weigh."""
    program = "import sys, cypd.scanning.embedded; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60
    )
    heavy = {
        "univers",
        "cyclonedx",
        "packageurl",
        "cvss",
        "elftools",
        "sqlite3",
        "tarfile",
        "zipfile",
    }
    assert heavy.isdisjoint(loaded.stdout.split())


async def test_cancelling_ends_it_at_once(laboratory: Laboratory) -> None:
    """The process is gone when the cancelled task is, with all files it had."""
    task = await start(laboratory)
    pid = await child()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert is_gone(pid)
    assert list(children(os.getpid())) == []


async def test_it_has_only_so_much_time(laboratory: Laboratory) -> None:
    """Then it is killed, and the reason says which bound that was."""
    task = await start(laboratory, timeout=3)
    with pytest.raises(ScanFailed, match=r"took longer than 3 seconds \(scanning.timeout\)"):
        await task
    assert list(children(os.getpid())) == []


async def test_it_has_only_so_much_of_a_processor(laboratory: Laboratory) -> None:
    """Whoever shares the machine with it."""
    task = await start(laboratory, cpu_seconds=1)
    with pytest.raises(ScanFailed, match="more than 1 seconds of a processor"):
        await task


@pytest.mark.parametrize(
    ("number", "reason"),
    [(signal.SIGSEGV, "crashed (SIGSEGV)"), (signal.SIGKILL, "crashed (SIGKILL)")],
)
async def test_a_crash_is_a_scan_that_failed(
    laboratory: Laboratory, number: signal.Signals, reason: str
) -> None:
    """With a reason; whoever started it goes on, and the next scan is like any other."""
    task = await start(laboratory)
    os.kill(await child(), number)
    with pytest.raises(ScanFailed) as raised:
        await task

    assert reason in str(raised.value)
    assert (await laboratory.scan(layer(python("x", "1")))).ids == {"CVE-1"}


async def test_it_does_not_outlive_the_daemon(laboratory: Laboratory) -> None:
    """However the daemon ends."""
    laboratory.know(record("CVE-1", "PyPI", "x"))
    content = endless()
    digest = await laboratory.push(content)
    bounds = msgspec.json.encode(msgspec.structs.replace(LIMITS, **SLOW)).decode()
    parent = subprocess.Popen(
        [sys.executable, "-m", "tests.scanning.parent", str(laboratory.folder), bounds,
         f"{digest}:{len(content)}"],
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    try:
        pid = await child(parent.pid)
        while b"blobs" not in b"".join(_links(pid)):  # the first scan is of an image of nothing
            await asyncio.sleep(0.1)
            pid = await child(parent.pid)
    finally:
        parent.kill()
        parent.wait(30)
    end = time.monotonic() + 60
    while not is_gone(pid):
        assert time.monotonic() < end
        await asyncio.sleep(0.1)


def _links(pid: int) -> Iterator[bytes]:
    try:
        for number in os.listdir(f"/proc/{pid}/fd"):
            yield os.readlink(f"/proc/{pid}/fd/{number}").encode()
    except OSError:
        return


SAID = json.dumps({"type": "said", "line": "x" * 200})


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (f"while True: print('{SAID}')", "says more than it should"),
        ("while True: print('x' * 1000000, end='')", "says more than it should"),
        ("print('x')", "says what is not understood"),
        ("print('{\"type\": \"found\", \"finding\": {\"id\": 1}}')", "is not understood"),
        ("print('{\"type\": \"done\", \"packages\": 1, \"scanner\": \"x\", "
         "\"database_updated_at\": null, \"sbom\": 99999999999}')", "says more than it should"),
        ("print('{\"type\": \"done\", \"packages\": 1, \"scanner\": \"x\", "
         "\"database_updated_at\": null, \"sbom\": 10}', flush=True)", "ended within its report"),
        ("import sys; sys.exit(3)", "ended early, with status 3"),
    ],
)  # fmt: skip
async def test_the_process_is_not_trusted(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch, program: str, reason: str
) -> None:
    """An image may have taken it over: more than it may say, or anything else, fails the scan."""
    monkeypatch.setattr(embedded, "_COMMAND", ("-c", program))
    laboratory.know(record("CVE-1", "PyPI", "x"))
    image = await laboratory.image(layer(python("x", "1")))
    with pytest.raises(ScanFailed, match=reason):
        await laboratory.engine().scan(image, say=laboratory.log.append)
    assert len(laboratory.log) <= 2001


async def test_without_data_it_says_what_to_do(laboratory: Laboratory) -> None:
    """Before anything is started."""
    engine = laboratory.engine()
    image = await laboratory.image(layer(python("x", "1")))

    assert engine.generation() == ""
    with pytest.raises(NotReady, match=r"cypd vulndb update PyPI .* `cypd vulndb import FILE`"):
        engine.require_ready()
    with pytest.raises(NotReady):
        await engine.scan(image, say=laboratory.log.append)
    (laboratory.data).mkdir()
    (laboratory.data / "osv.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(NotReady, match=r"can't be read .* anew"):
        await engine.scan(image, say=laboratory.log.append)


async def test_each_import_is_a_new_generation(laboratory: Laboratory) -> None:
    """By which images that were scanned before are told to be scanned again."""
    engine = laboratory.engine()
    seen = {engine.generation()}
    for number in range(3):
        laboratory.know(record(f"CVE-{number}", "PyPI", "x"))
        assert engine.generation() == engine.generation()
        seen.add(engine.generation())
        scan = await laboratory.scan(layer(python("x", "1")))
        assert len(scan.ids) == number + 1
        assert scan.report.database_updated_at == pytest.approx(time.time(), abs=60)
    assert len(seen) == 4


async def test_too_many_layers(laboratory: Laboratory) -> None:
    """Each takes an open file, of which a daemon has so many."""
    laboratory.know(record("CVE-1", "PyPI", "x"))
    image: Image = await laboratory.image(layer(python("x", "1")))
    with pytest.raises(ScanFailed, match="has 257 layers, more than 256"):
        await laboratory.engine().scan(image._replace(layers=image.layers * 257), say=print)
    whole = await laboratory.engine().scan(image._replace(layers=image.layers * 256), say=print)
    assert whole.packages == 1


async def test_the_same_image_has_the_same_list_of_packages(laboratory: Laboratory) -> None:
    """To the byte: no document gathers for an image that is scanned again and again."""
    first = await laboratory.scan(layer(python("x", "1"), python("y", "2")))
    again = await laboratory.scan(layer(python("x", "1"), python("y", "2")))
    other = await laboratory.scan(layer(python("x", "1"), python("y", "3")))
    document = json.loads(first.report.sbom)

    assert first.report.sbom == again.report.sbom
    assert document["serialNumber"] != json.loads(other.report.sbom)["serialNumber"]
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    assert document["metadata"]["component"]["name"] == "library/app"


async def test_the_list_of_packages_is_valid(laboratory: Laboratory) -> None:
    """By CycloneDX's own schema of 1.6, which allows nothing that it does not name, and to the
    library that reads CycloneDX.
    """
    status = dpkg(("libc6", "2.36-9+deb12u4"), ("openssl", "3.0.11-1"))
    system = Entry("etc/os-release", DEBIAN)
    modules = Entry(
        "app/package-lock.json", b'{"packages": {"node_modules/@a/b": {"version": "1"}}}'
    )
    scan = await laboratory.scan(layer(python("x", "1"), status, system, modules))
    document = json.loads(scan.report.sbom)
    bom = Bom.from_json(document)  # type: ignore[attr-defined]

    _validator().validate(document)
    assert ["@a/b", "libc6", "openssl", "x"] == sorted(
        f"{it.group}/{it.name}" if it.group else it.name
        for it in bom.components
        if it.purl is not None
    )
    with pytest.raises(jsonschema_rs.ValidationError):
        _validator().validate(document | {"packages": 4})


def _validator() -> Any:
    """Return CycloneDX's schema, with those that it refers to, as the library ships them."""
    schema, *others = (
        json.loads(Path(it).read_text())
        for it in (_res.BOM_JSON_STRICT[SchemaVersion.V1_6], _res.SPDX_JSON, _res.JSF)
        if it
    )
    base = schema["$id"].rpartition("/")[0]
    names = (Path(_res.SPDX_JSON).name, Path(_res.JSF).name)
    known = [(f"{base}/{name}", other) for name, other in zip(names, others, strict=True)]
    return jsonschema_rs.Draft7Validator(
        schema, registry=jsonschema_rs.Registry(known), validate_formats=True
    )
