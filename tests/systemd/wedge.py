"""A writer thread that hangs, for real."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.daemon import Daemon

# Begins a write transaction, says so, and keeps it until its input ends.
_HOLD = """
import lmdb, sys
with lmdb.open(sys.argv[1], lib_version=0, max_dbs=64).begin(write=True):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def wedged(daemon: Daemon) -> Iterator[None]:
    """Hold LMDB's write lock in another process: the daemon's writer waits for it for ever."""
    command = (sys.executable, "-c", _HOLD, str(daemon.state / "metadata"))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        yield
        holder.stdin.close()
