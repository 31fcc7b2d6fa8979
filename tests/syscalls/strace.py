"""strace(1) on a running daemon: what it asks the kernel for, and faults in the answers."""

import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import pytest

_LINE = re.compile(r"(\d+) +(?:<\.\.\. )?(\w+)(?:\(| resumed>)(.*)", re.ASCII)
_UNFINISHED = " <unfinished ...>"
_RESULT = re.compile(r"(.*)\) += (-?\d+|\?)(?:<[^>]*>)?(?: ([A-Z0-9]+))?.*", re.ASCII)


class Call(NamedTuple):
    """A system call that returned."""

    name: str
    arguments: str
    """As strace prints them: with ``-y`` a descriptor stands with its path behind it."""
    result: int
    error: str
    """The errno's name, or nothing."""


class Strace:
    """strace on all threads of a process, attached as long as the context is open.

    Skips the test where there is no strace or where it may not attach.
    """

    def __init__(self, pid: int, log: Path, *options: str) -> None:
        self._pid = pid
        self._log = log
        self._command = [require_strace(), "-f", "-o", str(log), *options, "-p", str(pid)]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        said = self._process.stderr.readline()
        if " attached" not in said:
            self._end()
            if "not permitted" in said:
                pytest.skip(f"strace may not attach: {said.strip()}")
            raise AssertionError(said)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def _end(self) -> None:
        # A client may have its answer before strace has seen the write return.
        deadline = time.monotonic() + 1
        while _state(self._pid) in {"R", "t"} and time.monotonic() < deadline:
            time.sleep(0.001)
        if _state(self._pid) not in {"Z", "X"}:
            self._process.send_signal(signal.SIGINT)  # it detaches, and lets the process go on
        try:
            self._process.communicate(timeout=5)
        except subprocess.TimeoutExpired:  # it waits for a thread that is dead already
            self._process.kill()
            self._process.communicate()

    def calls(self) -> list[Call]:
        """Return what returned while strace was attached; ask after the context."""
        return parse(self._log.read_text(errors="replace"))

    def counts(self) -> Counter[str]:
        """Return how often each system call returned."""
        return Counter(call.name for call in self.calls())


def parse(log: str) -> list[Call]:
    """Return the calls of a log of ``strace -f -o``, those of one thread in their order."""
    begun: dict[str, str] = {}
    calls = []
    for line in log.splitlines():
        match = _LINE.match(line)
        if match is None:  # a signal, an exit
            continue
        thread, name, rest = match.groups()
        if rest.endswith(_UNFINISHED):
            begun[thread] = rest.removesuffix(_UNFINISHED)
            continue
        if (result := _RESULT.match(begun.pop(thread, "") + rest)) is None:
            continue
        arguments, value, error = result.groups()
        calls.append(Call(name, arguments, -1 if value == "?" else int(value), error or ""))
    return calls


def _state(pid: int) -> str:
    """Return a process's state as proc(5) names it: X if it is gone."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return "X"
    return status.rpartition(")")[2].split()[0]


def require_strace() -> str:
    """Return where strace is; skip the test if it is nowhere."""
    program = shutil.which("strace")
    if program is None:
        pytest.skip("strace is not installed")
    return program
