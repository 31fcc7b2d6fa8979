"""What a worker is told at its start by the supervisor."""

from collections.abc import Mapping

import msgspec

from cypd.config import Config


class Orders(msgspec.Struct, frozen=True):
    """The whole of it, as JSON on the worker's standard input. Descriptors are those it inherits.

    The configuration comes from here, not from its file: a worker that is started later than the
    others of its crew runs with the same one.
    """

    config: Config
    sockets: Mapping[str, tuple[int, ...]]
    """What it listens on: descriptors by role, see ``cypd.sockets``."""
    notify: int
    """Where it says how it is, by the protocol of sd_notify(3)."""
    watchdog: float
    """Seconds within which it says so."""
    supervisor: int
    """The supervisor's process id."""


def encoded(orders: Orders) -> bytes:
    """Return what ``decoded`` takes."""
    return msgspec.json.encode(orders)


def decoded(document: bytes) -> Orders:
    """Return the orders; raise ``msgspec.MsgspecError`` for what are none."""
    return msgspec.json.decode(document, type=Orders)
