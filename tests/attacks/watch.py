"""What the kernel and the log say about a running daemon."""

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tests.daemon import Daemon

MIB = 1 << 20


def anonymous_memory(daemon: Daemon) -> int:
    """Return RssAnon in bytes: what the process itself has taken, mapped files left out."""
    return _memory(daemon, "RssAnon")


def most_memory(daemon: Daemon) -> int:
    """Return VmHWM in bytes: the most that the process had at a time, mapped files included."""
    return _memory(daemon, "VmHWM")


def _memory(daemon: Daemon, name: str) -> int:
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    match = re.search(rf"^{name}:\s+([0-9]+) kB$", status, re.MULTILINE)
    assert match, status
    return int(match[1]) << 10


def processor_seconds(daemon: Daemon) -> float:
    """Return the processor time that the daemon has used; a busy machine does not change it."""
    fields = Path(f"/proc/{daemon.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime, stime


def open_files(pid: int) -> Iterator[str]:
    """Yield what the open descriptors of a process point at."""
    folder = f"/proc/{pid}/fd"
    for name in os.listdir(folder):
        with suppress(FileNotFoundError):  # it was closed since
            yield os.readlink(f"{folder}/{name}")


def descriptors(daemon: Daemon) -> list[str]:
    """Return what the daemon's open descriptors point at, without the sockets' numbers."""
    return sorted(re.sub(r"\d+", "", it) for it in open_files(daemon.pid))


def kept(daemon: Daemon, before: list[str]) -> list[str]:
    """Return the open descriptors that were not there before."""
    return sorted((Counter(descriptors(daemon)) - Counter(before)).elements())


def connections(daemon: Daemon) -> int:
    """Return how many connections the daemon has accepted and not closed (proc_net_tcp(5)).

    One that waits to be accepted has no inode yet, and a closed one has none any more.
    """
    own = [it for it in tcp_sockets() if (it.address, it.port) == ("0100007F", daemon.port)]
    return sum(not it.listens and it.inode != "0" for it in own)


class TcpSocket(NamedTuple):
    """A line of proc_net_tcp(5): an IPv4 socket in the tests' network namespace."""

    address: str
    port: int
    peer: int
    """The port at the other end."""
    listens: bool
    queued: int
    """Bytes that the other end has not taken."""
    inode: str
    """In the names of its descriptors: ``socket:[inode]``."""


def tcp_sockets() -> Iterator[TcpSocket]:
    """Yield all that there are at this moment."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, queues, _, _, _, _, inode, *_ = line.split()
        address, port = local.split(":")
        peer, queued = remote.split(":")[1], queues.split(":")[0]
        yield TcpSocket(
            address, int(port, 16), int(peer, 16), state == "0A", int(queued, 16), inode
        )


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
