"""Where the figures come from: without it they say nothing."""

import os
import platform
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from shutil import which

from benchmarks.figures import SUBJECT

# What a run needs, and the Debian package it is in.
PACKAGES = {
    "nginx": "nginx",
    "docker-registry": "docker-registry",
    "wrk": "wrk",
    "setpriv": "util-linux",
    "taskset": "util-linux",
    "chrt": "util-linux",
}


def missing_packages() -> list[str]:
    """Return the Debian packages still to be installed."""
    return sorted({package for tool, package in PACKAGES.items() if which(tool) is None})


def describe() -> Mapping[str, str]:
    """Return the machine, the software and the hour."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "CPU": f"{_cpu_model()}, {os.cpu_count()} cores",
        "kernel": f"{platform.system()} {platform.release()}",
        "storage": _filesystem(tempfile.gettempdir()),
        SUBJECT: f"{version(SUBJECT)}, commit {_commit()}",
        "Python": platform.python_version(),
        "nginx": _version(["nginx", "-v"]),
        "docker-registry": _version(["docker-registry", "--version"]),
        "wrk": _version(["wrk", "-v"]),
        "load before": " ".join(Path("/proc/loadavg").read_text().split()[:3]),
    }


def _cpu_model() -> str:
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return model[1] if model else platform.machine()


def _filesystem(directory: str) -> str:
    return _first_line(["stat", "--file-system", "--format", "%T", directory])


def _commit() -> str:
    return _first_line(["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"])


def _version(command: Sequence[str]) -> str:
    number = re.search(r"\d+(\.\d+)+\S*", _first_line(command))
    return number[0] if number else "unknown"


def _first_line(command: Sequence[str]) -> str:
    """Return the first line of what a command says, be it as its result or as a complaint."""
    done = subprocess.run(
        command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.stdout.partition("\n")[0]
