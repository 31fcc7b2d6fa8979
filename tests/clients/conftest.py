"""Real clients, a real daemon, and a place for both that is gone afterwards."""

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.clients.client import Client
from tests.clients.containerd import Containerd
from tests.clients.docker import Docker
from tests.clients.podman import Podman
from tests.clients.skopeo import Skopeo
from tests.daemon import Daemon

CLIENTS: dict[str, type[Client]] = {
    "docker": Docker,
    "podman": Podman,
    "skopeo": Skopeo,
    "ctr": Containerd,
}


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A directory for gigabytes, removed at once.

    Its path is short enough for sockets, and podman can make an image's name of it.
    """
    directory = Path(tempfile.gettempdir(), f"cypd-{secrets.token_hex(4)}")
    directory.mkdir(mode=0o700)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


@pytest.fixture
def registry(scratch: Path) -> Iterator[Daemon]:
    """The daemon as it comes: only who logs in may do anything."""
    (scratch / "registry").mkdir()
    with Daemon(scratch / "registry") as daemon:
        yield daemon


@pytest.fixture
def new_client(scratch: Path) -> Iterator[Callable[[str], Client]]:
    """Return a function that starts a client with an empty store and no credentials."""
    with ExitStack() as stack:
        started = 0

        def start(name: str) -> Client:
            nonlocal started
            started += 1
            _require(CLIENTS[name])
            directory = scratch / f"{name}{started}"
            directory.mkdir()
            return stack.enter_context(CLIENTS[name](directory))

        yield start


def _require(client: type[Client]) -> None:
    for command, package in client.packages.items():
        if shutil.which(command) is None:
            pytest.skip(f"{command} is not installed (Debian package {package})")
    if client.needs_root and os.geteuid() != 0:
        pytest.skip(f"{client.__name__} needs root")
