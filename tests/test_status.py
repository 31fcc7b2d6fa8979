"""``cypd status``: what the daemon does, for people, for programs and on a terminal."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cypd.commands.figures import Sample, report
from cypd.oci.digest import Digest
from tests.crash.client import Client
from tests.daemon import CYPD, Daemon, free_port
from tests.test_cli import run

CONTENT = bytes(100_000)
PATH = f"/v2/library/app/blobs/{Digest.of(CONTENT)}"
TOKEN = "a-token-for-prometheus"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with a blob."""
    settings = {"CYPD_SERVER_METRICS_LISTEN": f"127.0.0.1:{free_port()}"}
    with Daemon(tmp_path_factory.mktemp("status"), settings) as daemon:
        with Client(daemon) as client:
            assert client.push("library/app", Digest.of(CONTENT), CONTENT) == 201
        yield daemon


@contextmanager
def traffic(daemon: Daemon) -> Iterator[None]:
    """Pull, and ask for what is not there, all the time."""
    stopping = threading.Event()

    def work() -> None:
        with Client(daemon) as client:
            while not stopping.wait(0.02):
                assert client.send("GET", PATH).status == 200
                assert client.send("GET", "/v2/library/app/manifests/none").status == 404

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def cypd_status(daemon: Daemon, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run ``cypd status`` beside a daemon."""
    environment = daemon.environment | more
    return run("status", *arguments, folder=daemon.state.parent, environment=environment)


def test_programs_get_figures(daemon: Daemon) -> None:
    """Rates of what happens, and how things are, in bytes and seconds."""
    with traffic(daemon):
        done = cypd_status(daemon, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)

    assert found["traffic"]["sent"] > len(CONTENT)
    assert found["pulls"]["bytes_per_second"] > len(CONTENT)
    assert found["requests"]["answered"] > found["requests"]["refused"] > 0
    assert found["requests"]["failed"] == 0
    assert found["process"]["workers"] == 1
    assert found["process"]["resident_bytes"] > 10 << 20
    assert found["storage"]["logical"] == found["storage"]["physical"] == len(CONTENT)
    assert found["storage"]["disk_size"] > found["storage"]["disk_free"] > 0
    assert found["projects"] == [
        {"name": "library", "used": len(CONTENT), "reserved": 0, "quota": 10 << 30, "percent": 0.0}
    ]


def test_people_get_a_page(daemon: Daemon) -> None:
    """Where no terminal is, once and without control characters."""
    with traffic(daemon):
        done = cypd_status(daemon)
    lines = done.stdout.splitlines()
    rows = {line[:13].strip(): line[13:].strip() for line in lines}

    assert (done.returncode, done.stderr) == (0, "")
    assert all(line.isprintable() for line in lines)
    assert re.fullmatch(r"1 worker\(s\), 0 restarts, up \d.*", rows["cypd 0.1.0"])
    assert re.fullmatch(r"[0-9.]+ [KM]iB/s", rows["out"])
    assert rows["storage"] == "97.7 KiB in projects, 97.7 KiB of content, 1.00 to 1"
    assert re.fullmatch(r"library +97.7 KiB +0 B +10.0 GiB +0.0%", lines[-1])


def test_a_token_is_shown(tmp_path: Path) -> None:
    """Metrics that want one get that of the configuration, or a credential; without either the
    answer says why not.
    """
    (tmp_path / "metrics-token").write_text(f"{TOKEN}\n")
    passed = {"CYPD_METRICS_TOKEN": "", "CREDENTIALS_DIRECTORY": str(tmp_path)}
    settings = {
        "CYPD_SERVER_METRICS_LISTEN": f"127.0.0.1:{free_port()}",
        "CYPD_METRICS_TOKEN": TOKEN,
    }
    with Daemon(tmp_path, settings) as daemon:
        shown = cypd_status(daemon, "--once")
        as_credential = cypd_status(daemon, "--once", **passed)
        hidden = cypd_status(daemon, "--once", CYPD_METRICS_TOKEN="")

    assert (shown.returncode, as_credential.returncode) == (0, 0)
    assert (hidden.returncode, hidden.stdout) == (1, "")
    assert "wants another metrics.token" in hidden.stderr


def test_nobody_to_ask_is_told(daemon: Daemon) -> None:
    """No daemon, something else, or no address: one line, or an object, says so."""
    nobody, other, nowhere = f"127.0.0.1:{free_port()}", daemon.host, ""
    for address, status, told in (
        (nobody, 1, f"nobody answers at {nobody}"),
        (other, 1, f"what answers at {other} is not cypd's metrics"),
        (nowhere, 78, "server.metrics_listen: it is empty"),
    ):
        plain = cypd_status(daemon, CYPD_SERVER_METRICS_LISTEN=address)
        raw = cypd_status(daemon, "--json", CYPD_SERVER_METRICS_LISTEN=address)
        assert (plain.returncode, raw.returncode, plain.stdout, raw.stdout) == (
            status,
            status,
            "",
            "",
        )
        assert plain.stderr.startswith(f"cypd: {told}")
        assert plain.stderr.count("\n") == 1
        assert json.loads(raw.stderr)["error"].startswith(told)


# --- the terminal -------------------------------------------------------------------------------


class Terminal:
    """``cypd status`` on a terminal of its own, and what it shows."""

    def __init__(self, daemon: Daemon, *, term: str = "xterm", columns: int = 80) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.settings = termios.tcgetattr(slave)
        self.shown = b""
        self.process = subprocess.Popen(
            ["setsid", "--ctty", CYPD, "status"],
            env={"PATH": "/usr/bin:/bin", "TERM": term, **daemon.environment},
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)

    def wait_for(self, text: bytes, deadline: float = 30) -> None:
        """Return when it has shown something since the last time."""
        end = time.monotonic() + deadline
        start = len(self.shown)
        while text not in self.shown[start:]:
            assert time.monotonic() < end, f"no {text!r} in {self.shown!r}"
            self._read()

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._master, keys)

    def end(self) -> int:
        """Wait until it has ended; return its exit status."""
        while self._read():
            pass
        self.left = termios.tcgetattr(self._master)
        os.close(self._master)
        return self.process.wait(30)

    def _read(self) -> bytes:
        try:
            piece = os.read(self._master, 65536)
        except OSError:  # EIO: nobody has the other end open any more
            piece = b""
        self.shown += piece
        return piece


ENTER, LEAVE = b"\x1b[?1049h\x1b[?25l", b"\x1b[?25h\x1b[?1049l"


@pytest.mark.parametrize(
    ("leave", "status"),
    [(b"q", 0), (b"xyz\x1aQ", 0), (b"\x03", 0), (b"\x04", 0), (signal.SIGTERM, 143)],
)
def test_a_terminal_is_left_as_it_was(daemon: Daemon, leave: bytes | int, status: int) -> None:
    """The page is anew each second; q, Ctrl-C, Ctrl-D and SIGTERM end it, and nothing remains."""
    terminal = Terminal(daemon)
    for _ in range(2):
        terminal.wait_for(b"q: leave")
    if isinstance(leave, bytes):
        terminal.type(leave)
    else:
        terminal.process.send_signal(leave)

    assert terminal.end() == status
    assert terminal.shown.startswith(ENTER)
    assert terminal.shown.endswith(LEAVE)
    assert terminal.left == terminal.settings
    assert b"Traceback" not in terminal.shown


def test_no_signal_is_lost() -> None:
    """A Ctrl-C that arrives where Python drops exceptions, in a finalizer, ends the page too."""
    code = """
import os, signal
from cypd.commands.screen import Screen

class Finalized:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)

with Screen() as screen:
    finalized = Finalized()
    del finalized
    try:
        screen.is_left(60)
    except KeyboardInterrupt:
        raise SystemExit(7)
"""
    master, slave = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        stdin=slave,
        stdout=slave,
        stderr=subprocess.PIPE,
        timeout=30,
    )
    os.close(master)
    os.close(slave)

    assert b"Exception ignored in" in done.stderr
    assert done.returncode == 7


def test_a_small_terminal_gets_what_fits(daemon: Daemon) -> None:
    """No line is longer than the terminal is wide, so none breaks."""
    terminal = Terminal(daemon, columns=30)
    terminal.wait_for(b"q: leave")
    terminal.type(b"q")
    terminal.end()
    page = terminal.shown.removeprefix(ENTER).removesuffix(LEAVE)
    lines = re.sub(rb"\x1b\[[?0-9]*[A-Za-z]", b"", page).split(b"\r\n")

    assert max(map(len, lines)) == 30
    assert len(lines) <= 24


def test_a_dumb_terminal_gets_it_once(daemon: Daemon) -> None:
    """No control sequence is sent to what does not know any."""
    terminal = Terminal(daemon, term="dumb")

    assert terminal.end() == 0
    assert b"\x1b" not in terminal.shown
    assert b"writer" in terminal.shown


def test_a_daemon_may_come_back(tmp_path: Path) -> None:
    """The last page stays, below a line that says that nobody answers, until somebody does."""
    settings = {"CYPD_SERVER_METRICS_LISTEN": f"127.0.0.1:{free_port()}"}
    with Daemon(tmp_path, settings) as daemon:
        terminal = Terminal(daemon)
        terminal.wait_for(b"q: leave")
        daemon.stop()
        terminal.wait_for(b"\x1b[Hnobody answers at 127.0.0.1")
        terminal.wait_for(b"q: leave")
        daemon.start()
        terminal.wait_for(b"\x1b[Hcypd ")
    terminal.type(b"q")
    assert terminal.end() == 0


# --- figures ------------------------------------------------------------------------------------


def sample(at: float, **values: float) -> Sample:
    """Return a scrape of some metrics."""
    return Sample("".join(f"{name} {value}\n" for name, value in values.items()), at)


@given(st.integers(0, 1 << 50), st.integers(0, 1 << 50), st.floats(0.1, 100))
def test_a_rate_is_never_negative(then: int, here: int, seconds: float) -> None:
    """A counter that shrinks began anew."""
    found = report(
        sample(5, cypd_sent_bytes_total=then), sample(5 + seconds, cypd_sent_bytes_total=here)
    )
    grown = here - then if here >= then else here

    assert found.traffic.sent == pytest.approx(grown / seconds)


def test_the_fullest_projects_are_told() -> None:
    """First those that fill most of their quota, reserved room included; ten at most.

    What is left of all others together is none.
    """
    rows = [f'cypd_project_used_bytes{{project="p{i}"}} {i}' for i in range(20)]
    rows += [f'cypd_project_quota_bytes{{project="p{i}"}} 100' for i in range(19)]
    rows += ['cypd_project_used_bytes{project="other"} 1e9']
    rows += ['cypd_project_reserved_bytes{project="p3"} 90']
    found: list[Any] = report(sample(0), Sample("\n".join(rows) + "\n", 1)).projects

    assert [it.name for it in found[:3]] == ["p3", "p18", "p17"]
    assert (found[0].percent, found[0].reserved, len(found)) == (93.0, 90, 10)


def test_what_is_not_told_is_nothing() -> None:
    """A daemon without some metric is no error: an older or a newer one."""
    found = report(sample(0), sample(1))

    assert (found.version, found.process.workers, found.projects) == ("", 0, [])
