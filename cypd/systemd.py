"""What a service manager and a service say to each other: readiness, life signs, sockets, secrets.

The protocols of sd_notify(3), sd_listen_fds(3) and systemd.exec(5), "Credentials". Where nobody
supervises the process, none of the variables is set and all of this does nothing.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from pathlib import Path
from typing import Self

from cypd.config import ConfigError

log = logging.getLogger(__name__)

Environment = MutableMapping[str, str]

_FIRST_DESCRIPTOR = 3  # SD_LISTEN_FDS_START
_UNWATCHED_SECONDS = 10.0  # between two lines of status where nobody asks for signs of life
_LAG_SECONDS = 1.0


class Notifier:
    """Tells the service manager how the daemon is; tells nobody where there is none.

    Takes its variables out of the environment, so that no child speaks in the daemon's name.
    """

    def __init__(self, environment: Environment) -> None:
        address = _notify_address(environment.pop("NOTIFY_SOCKET", ""))
        self._say: Callable[[bytes], object] | None = None
        if address:
            self._say = partial(_send_to, address)
        microseconds = environment.pop("WATCHDOG_USEC", "")
        for_us = environment.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog = int(microseconds) / 1e6 if microseconds.isdecimal() and for_us else 0.0
        """Seconds within which a sign of life is expected; 0: none is."""

    @classmethod
    def over(cls, channel: socket.socket, watchdog: float) -> Self:
        """Return one that speaks over a connected socket."""
        notifier = cls({})
        notifier._say = channel.send
        notifier.watchdog = watchdog
        return notifier

    def ready(self, status: str) -> None:
        """Start-up, or a reload, is over."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """The configuration is read again; ``ready`` ends that."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str, within: float) -> None:
        """The daemon ends, and asks for ``within`` seconds to do so."""
        self._send("STOPPING=1", f"STATUS={status}", f"EXTEND_TIMEOUT_USEC={int(within * 1e6)}")

    def status(self, status: str, *, alive: bool) -> None:
        """Show a line to who asks, and with ``alive`` keep the watchdog quiet."""
        self._send(*(["WATCHDOG=1"] if alive else []), f"STATUS={status}")

    async def watch(
        self, is_well: Callable[[], Awaitable[bool]], status: Callable[[], str]
    ) -> None:
        """Give signs of life until cancelled: only while the loop turns and ``is_well`` says so.

        An answer that never comes is no sign either, so that whatever hangs gets the process
        restarted.
        """
        if self._say is None:
            return
        interval = self.watchdog / 2 or _UNWATCHED_SECONDS
        loop = asyncio.get_running_loop()
        delay = 0.0
        while True:
            due = loop.time() + delay
            await asyncio.sleep(delay)
            lag = loop.time() - due
            if lag >= _LAG_SECONDS:
                log.warning("the event loop is %.1f seconds late", lag)
            alive = lag < _LAG_SECONDS and await is_well()
            self.status(status(), alive=alive)
            # One bad moment shall not cost the process its life: look again before time is up.
            delay = interval if alive else interval / 5

    def _send(self, *lines: str) -> None:
        if self._say is None:
            return
        try:
            self._say("\n".join(lines).encode())
        except OSError as error:
            log.warning("the service manager can't be told %s: %s", lines[0], error)


def _send_to(address: str, message: bytes) -> None:
    # A socket each time: who listens may have come back with another one.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.setblocking(False)
        sender.sendto(message, address)


def _notify_address(text: str) -> str:
    if not text or text[0] == "/":
        return text
    if text[0] == "@":  # an abstract address, unix(7)
        return "\0" + text[1:]
    raise ConfigError(f"NOTIFY_SOCKET: {text!r} is neither a path nor an abstract address")


def listening_sockets(environment: Environment) -> dict[str, list[socket.socket]]:
    """Return the sockets that were handed over, by name; one without a name is ``http``.

    Takes the variables out of the environment. Raises ConfigError for what does not listen to TCP.
    """
    pid = environment.pop("LISTEN_PID", "")
    count = environment.pop("LISTEN_FDS", "")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdecimal():
        return {}
    found: dict[str, list[socket.socket]] = {}
    for index in range(int(count)):
        name = names[index] if index < len(names) else ""
        found.setdefault(_role(name), []).append(_listening(_FIRST_DESCRIPTOR + index))
    return found


def _role(name: str) -> str:
    # Without FileDescriptorName= systemd names a socket after its unit.
    return "http" if name in ("", "unknown") or name.endswith(".socket") else name


def _listening(descriptor: int) -> socket.socket:
    try:
        os.set_inheritable(descriptor, False)
        found = socket.socket(fileno=descriptor)
        listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ConfigError(f"LISTEN_FDS: descriptor {descriptor}: {error.strerror}") from None
    is_tcp = found.family in (socket.AF_INET, socket.AF_INET6) and found.type == socket.SOCK_STREAM
    if not is_tcp or not listens:
        found.detach()
        raise ConfigError(f"LISTEN_FDS: descriptor {descriptor} does not listen to TCP")
    found.setblocking(False)
    return found


def credential(environment: Environment, name: str) -> str:
    """Return a secret that the service manager passes, or ``""``; raise ConfigError for a bad one.

    LoadCredential= puts it into memory that only the service sees, and keeps it off its disk.
    """
    folder = environment.get("CREDENTIALS_DIRECTORY")
    if not folder:
        return ""
    try:
        secret = (Path(folder) / name).read_text().strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"credential {name}: {error}") from None
    if not secret:
        raise ConfigError(f"credential {name}: it is empty")
    return secret
