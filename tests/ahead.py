"""What mostly waits runs beside everything else: load with ``pytest -p tests.ahead``.

A test marked ``waits`` is begun when the others are, in a process of its own, and has its turn when
it is over: then it passes or fails as it did there.
"""

import os
import subprocess
import sys
import tempfile
from typing import IO

import pytest

_running: dict[str, tuple[subprocess.Popen[bytes], IO[bytes]]] = {}


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin what waits."""
    if session.config.option.collectonly:
        return
    environment = {k: v for k, v in os.environ.items() if k != "PYTEST_ADDOPTS"}
    for item in session.items:
        if item.get_closest_marker("waits"):
            said = tempfile.TemporaryFile()  # noqa: SIM115 (open for as long as the process runs)
            command = [sys.executable, "-m", "pytest", "-q", item.nodeid]
            process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said
            )
            _running[item.nodeid] = process, said


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Wait for what was begun, in place of doing it again."""
    if pyfuncitem.nodeid not in _running:
        return None
    process, said = _running.pop(pyfuncitem.nodeid)
    with said:
        status = process.wait()
        said.seek(0)
        assert status == 0, said.read().decode(errors="replace")
    return True


def pytest_unconfigure() -> None:
    """End what nobody waited for."""
    for process, said in _running.values():
        process.terminate()
        process.wait()
        said.close()
