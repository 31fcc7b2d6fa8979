"""What a service manager hands over, good and bad; and signs of life that are not given."""

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cypd.config import ConfigError
from cypd.systemd import Notifier, credential, listening_sockets
from tests.test_cli import run


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """Where a service manager hears what is said."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        yield manager


def environment(manager: socket.socket, **variables: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": manager.getsockname(), **variables}


def said(manager: socket.socket) -> list[str]:
    """Return the messages that came until now."""
    messages = []
    while True:
        try:
            messages.append(manager.recv(4096).decode())
        except BlockingIOError:
            return messages


async def well() -> bool:
    return True


async def hangs() -> bool:
    await asyncio.get_running_loop().create_future()
    return True


def test_the_variables_are_taken_out_of_the_environment(manager: socket.socket) -> None:
    """A child of the daemon can't speak in its name, nor take its sockets."""
    variables = environment(manager, WATCHDOG_USEC="2000000", WATCHDOG_PID=str(os.getpid()))
    variables |= {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "http"}
    notifier = Notifier(variables)

    assert listening_sockets(variables) == {}  # they are process 1's
    assert notifier.watchdog == 2.0
    assert variables == {}


def test_a_reload_has_a_begin_and_an_end(manager: socket.socket) -> None:
    """RELOADING comes with the time that systemd 253 asks for, READY ends it."""
    notifier = Notifier(environment(manager))
    notifier.reloading()
    notifier.ready("serves")
    begin, end = said(manager)

    state, clock = begin.split("\n")
    assert state == "RELOADING=1"
    assert abs(int(clock.removeprefix("MONOTONIC_USEC=")) / 1e6 - time.monotonic()) < 60
    assert end == "READY=1\nSTATUS=serves"


async def test_signs_of_life_end_with_what_hangs(manager: socket.socket) -> None:
    """A question to the store that is never answered is no sign of life, nor is any after it."""
    notifier = Notifier(environment(manager, WATCHDOG_USEC="20000"))
    for is_well, alive in ((well, True), (hangs, False)):
        watch = asyncio.ensure_future(notifier.watch(is_well, lambda: "fine"))
        await asyncio.sleep(0.1)
        watch.cancel()
        assert ("WATCHDOG=1\nSTATUS=fine" in said(manager)) is alive


async def test_a_loop_that_lags_gives_no_sign_of_life(manager: socket.socket) -> None:
    """After a second in which the loop did not turn, the status comes without a sign of life."""
    notifier = Notifier(environment(manager, WATCHDOG_USEC="200000"))
    watch = asyncio.ensure_future(notifier.watch(well, lambda: "fine"))
    await asyncio.sleep(0.05)
    assert said(manager) == ["WATCHDOG=1\nSTATUS=fine"]
    time.sleep(1.1)
    await asyncio.sleep(0.01)
    assert said(manager) == ["STATUS=fine"]
    await asyncio.sleep(0.1)
    assert "WATCHDOG=1\nSTATUS=fine" in said(manager)  # it is back in time

    watch.cancel()


async def test_nobody_there(tmp_path: Path, manager: socket.socket) -> None:
    """Without a service manager nothing is said; one that has gone does no harm."""
    silent = Notifier({"WATCHDOG_USEC": "20000"})
    await silent.watch(well, lambda: "fine")  # returns
    silent.ready("serves")
    variables = environment(manager)
    (tmp_path / "notify").unlink()
    Notifier(variables).ready("serves")

    assert said(manager) == []


def test_a_notify_address_of_another_kind_is_refused() -> None:
    """An address that can't be understood is a mistake somebody wants to know of."""
    with pytest.raises(ConfigError, match="NOTIFY_SOCKET"):
        Notifier({"NOTIFY_SOCKET": "vsock:2:1234"})


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_only_listening_tcp_sockets_are_taken(
    kind: socket.SocketKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket that can't be accepted from is refused by its number."""
    with socket.socket(socket.AF_INET, kind) as passed:
        monkeypatch.setattr("cypd.systemd._FIRST_DESCRIPTOR", passed.fileno())
        with pytest.raises(ConfigError, match=f"descriptor {passed.fileno()} does not listen"):
            listening_sockets({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"})


def test_a_credential_is_a_file_of_its_name(tmp_path: Path) -> None:
    """None is passed, none of that name, a good one, an empty one."""
    variables = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    (tmp_path / "good").write_text("secret\n")
    (tmp_path / "empty").write_text("\n")

    assert credential({}, "good") == ""
    assert credential(variables, "other") == ""
    assert credential(variables, "good") == "secret"
    with pytest.raises(ConfigError, match="credential empty"):
        credential(variables, "empty")


def test_a_short_token_key_is_refused(tmp_path: Path) -> None:
    """A key that could be guessed ends the start, and is not shown."""
    (tmp_path / "token-key").write_text("hunter2")
    done = run("serve", folder=tmp_path, environment={"CREDENTIALS_DIRECTORY": str(tmp_path)})

    assert done.returncode == 78
    assert "credential token-key" in done.stderr
    assert "hunter2" not in done.stderr
