"""Listening sockets, by their role: the service manager's, or our own."""

import contextlib
import logging
from collections.abc import Callable, Mapping, MutableMapping
from socket import socket
from typing import NamedTuple

from cypd import systemd
from cypd.config import Config, ConfigError, Server
from cypd.doors.plain import bind

log = logging.getLogger(__name__)

Address = tuple[str, int]
Sockets = Mapping[str, list[socket]]
"""By role; each role is there, perhaps with none."""


class _Role(NamedTuple):
    key: str
    """Of the configuration."""
    scheme: str
    path: str
    addresses: Callable[[Server], list[Address]]


ROLES = {
    "http": _Role("server.listen", "http", "", Server.addresses),
    "https": _Role("server.tls_listen", "https", "", Server.tls_addresses),
    "metrics": _Role("server.metrics_listen", "http", "/metrics", Server.metrics_addresses),
}


class Listeners:
    """The sockets of a process that may get new configurations while it runs.

    Those of the service manager take the place of all that a configuration names.
    """

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        """Take what the service manager passes; raise ConfigError for what has no role."""
        inherited = systemd.listening_sockets(environment)
        unknown = [name for name in inherited if name not in ROLES]
        if unknown:
            raise ConfigError(f"LISTEN_FDNAMES: nothing is served at {', '.join(unknown)}")
        if inherited:
            log.info("the service manager's sockets take the place of server.listen and the like")
        self._inherited = {role: inherited.get(role, []) for role in ROLES} if inherited else None
        self._bound: dict[tuple[str, Address], socket] = {}

    def at(self, config: Config) -> Sockets:
        """Return the sockets for a configuration: those that are open, and else newly bound ones.

        Raises ConfigError for an address that can't be bound; then nothing has changed.
        """
        if self._inherited:
            return self._inherited
        wanted = [
            (role, address) for role, it in ROLES.items() for address in it.addresses(config.server)
        ]
        with contextlib.ExitStack() as new:
            for place in wanted:
                if place not in self._bound:
                    self._bound[place] = new.enter_context(_bound(*place))
                    new.callback(self._bound.pop, place)
            new.pop_all()
        return {
            role: [self._bound[it] for it in dict.fromkeys(wanted) if it[0] == role]
            for role in ROLES
        }

    def close_all_but(self, sockets: Sockets) -> None:
        """Close what no configuration that is in use names any more."""
        kept = {id(it) for some in sockets.values() for it in some}
        for place, it in tuple(self._bound.items()):
            if id(it) not in kept:
                self._bound.pop(place).close()


def _bound(role: str, address: Address) -> socket:
    host, port = address
    try:
        return bind(host, port)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(f"{ROLES[role].key}: {host}:{port}: {reason}") from None


def addresses(sockets: Sockets) -> str:
    """Return where one can connect to, as URLs."""
    return ", ".join(
        f"{ROLES[role].scheme}://{_address(it)}{ROLES[role].path}"
        for role, some in sockets.items()
        for it in some
    )


def _address(listening: socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
