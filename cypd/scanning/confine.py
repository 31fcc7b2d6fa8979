"""What a process gives up before it reads the first byte of an image."""

import ctypes
import os
import resource
import signal
import struct
import sys
from contextlib import suppress

from cypd.scanning.limits import Limits

# prctl(2); there is no binding of it in the standard library.
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
# ioprio_set(2): who = this process, class idle. The same number on every 64-bit ABI but x86-64.
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}
_IOPRIO_WHO_PROCESS = 1
_IOPRIO_IDLE = 3 << 13
_OPEN_FILES = 512
# The same numbers on every architecture.
_LANDLOCK_CREATE = 444
_LANDLOCK_ADD = 445
_LANDLOCK_RESTRICT = 446
_LANDLOCK_VERSION = 1
_LANDLOCK_BENEATH = 1
_LANDLOCK_READ = 0b1100  # files, and lists of them


def confine(limits: Limits) -> None:
    """Bound this process, put it behind all others, and end it with the one that started it.

    Limits are set by the process itself and not between fork and exec: a daemon with threads may
    run next to nothing there, and no byte of the image has been read yet.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    # Containers and units may forbid these two: then it is an ordinary process, within its bounds.
    with suppress(PermissionError):
        os.nice(19)
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    if number := _IOPRIO_SET.get(os.uname().machine):
        libc.syscall(number, _IOPRIO_WHO_PROCESS, 0, _IOPRIO_IDLE)
    _limit(resource.RLIMIT_AS, limits.memory)
    _limit(resource.RLIMIT_CPU, limits.cpu_seconds)
    _limit(resource.RLIMIT_FSIZE, 0)  # nothing unpacked ever reaches a disk
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
    _limit(resource.RLIMIT_NPROC, 0)
    _limit(resource.RLIMIT_CORE, 0)


def close_off() -> None:
    """Let this process open nothing any more, connect to nobody, signal nobody (landlock(7)).

    What is open stays so, and Python finds its modules. Kernels before 5.13 can do nothing of it,
    and newer ones the more the newer.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_LANDLOCK_CREATE, None, 0, _LANDLOCK_VERSION)
    if version < 1:
        return
    # All there is to forbid, as far as this kernel knows it.
    files = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1
    handled = [files, *([0b11] if version >= 4 else []), *([0b11] if version >= 6 else [])]
    attributes = (ctypes.c_uint64 * len(handled))(*handled)
    ruleset = libc.syscall(_LANDLOCK_CREATE, attributes, ctypes.sizeof(attributes), 0)
    if ruleset < 0:
        return
    for folder in filter(os.path.isdir, sys.path):
        descriptor = os.open(folder, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", _LANDLOCK_READ, descriptor)
        libc.syscall(_LANDLOCK_ADD, ruleset, _LANDLOCK_BENEATH, rule, 0)
        os.close(descriptor)
    libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0)
    os.close(ruleset)


def _limit(what: int, value: int) -> None:
    hard = resource.getrlimit(what)[1]
    bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
    # RLIMIT_CPU: SIGXCPU at the soft limit ends the process and says why, SIGKILL does not.
    grace = 1 if what == resource.RLIMIT_CPU and bound == value != hard else 0
    resource.setrlimit(what, (bound, bound + grace))
