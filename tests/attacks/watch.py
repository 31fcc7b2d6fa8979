"""What the kernel and the log say about a running daemon."""

import os
import re
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.daemon import Daemon

MIB = 1 << 20


def anonymous_memory(daemon: Daemon) -> int:
    """Return RssAnon in bytes: what the process itself has taken, mapped files left out."""
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    match = re.search(r"^RssAnon:\s+([0-9]+) kB$", status, re.MULTILINE)
    assert match, status
    return int(match[1]) << 10


def processor_seconds(daemon: Daemon) -> float:
    """Return the processor time that the daemon has used; a busy machine does not change it."""
    fields = Path(f"/proc/{daemon.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime, stime


def descriptors(daemon: Daemon) -> list[str]:
    """Return what the daemon's open descriptors point at, without the sockets' numbers."""
    found = []
    folder = f"/proc/{daemon.pid}/fd"
    for name in os.listdir(folder):
        with suppress(FileNotFoundError):
            found.append(re.sub(r"\d+", "", os.readlink(f"{folder}/{name}")))
    return sorted(found)


def kept(daemon: Daemon, before: list[str]) -> list[str]:
    """Return the open descriptors that were not there before."""
    return sorted((Counter(descriptors(daemon)) - Counter(before)).elements())


def connections(daemon: Daemon) -> int:
    """Return how many connections the daemon has accepted and not closed (proc_net_tcp(5)).

    One that waits to be accepted has no inode yet, and a closed one has none any more.
    """
    entries = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    local, listens = f"0100007F:{daemon.port:04X}", "0A"
    return sum(it[1] == local and it[3] != listens and it[9] != "0" for it in entries)


def complaints(daemon: Daemon) -> list[str]:
    """Return the lines of the log that tell of a fault."""
    lines = daemon.log.read_text(errors="replace").splitlines()
    return [it for it in lines if re.search(r" (ERROR|CRITICAL) |Traceback|Exception", it)]


def eventually(condition: Callable[[], bool], deadline: float = 10.0) -> bool:
    """Return whether the condition comes true in time."""
    end = time.monotonic() + deadline
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
