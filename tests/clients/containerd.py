"""containerd and its command line ``ctr``."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Self

from tests.clients.client import Client, Environment, Pulled, service
from tests.clients.images import TAG, Layout
from tests.daemon import PASSWORD, USER

# Nothing that runs containers, needs a file system of its own, or makes a folder elsewhere.
_CONFIG = """\
version = 2
root = "{directory}/root"
state = "{directory}/state"
disabled_plugins = [
    "io.containerd.grpc.v1.cri",
    "io.containerd.internal.v1.opt",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.overlayfs",
]
[grpc]
address = "{socket}"
"""


@contextmanager
def containerd(directory: Path, environment: Environment) -> Iterator[str]:
    """Run containerd under ``directory``; yield the path of its socket."""
    config, socket = directory / "containerd.toml", str(directory / "containerd.sock")
    config.write_text(_CONFIG.format(directory=directory / "containerd", socket=socket))
    command = ["containerd", "--config", str(config)]
    probe = ["ctr", "--address", socket, "version"]
    with service(command, environment, directory / "containerd.log", probe):
        yield socket


class Containerd(Client):
    """``ctr`` pushes and pulls manifests byte for byte; it keeps no credentials."""

    packages: ClassVar = {"containerd": "containerd", "ctr": "containerd"}

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._ctr: tuple[str, ...] = ()
        self._transport: tuple[str, ...] = ("--plain-http",)
        self._user: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        socket = self.stack.enter_context(containerd(self.directory, self.environment))
        self._ctr = ("ctr", "--address", socket, "--namespace", "tests")
        return self

    def trust(self, host: str, authority: Path) -> None:
        # With --tlscacert alone it takes the loopback for plain HTTP.
        hosts = self.directory / "hosts"
        settings = hosts / host / "hosts.toml"
        settings.parent.mkdir(parents=True)
        settings.write_text(
            f'server = "https://{host}"\n[host."https://{host}"]\nca = "{authority}"'
        )
        self._transport = ("--hosts-dir", str(hosts))

    def login(self, host: str, password: str = PASSWORD, user: str = USER) -> None:
        self._user = ("--user", f"{user}:{password}")

    def load(self, layout: Layout, name: str) -> None:
        archive = layout.archive(self.directory / "image.tar", name)
        base = name.removesuffix(f":{TAG}")
        options = ("--no-unpack", "--all-platforms", "--base-name", base)
        self.run(*self._ctr, "images", "import", *options, str(archive))
        archive.unlink()

    def push_command(self, name: str) -> tuple[str, ...]:
        return (*self._ctr, "images", "push", *self._transport, *self._user, name)

    def push(self, name: str) -> str:
        self.run(*self.push_command(name))
        return self._digest(name)

    def pull(self, name: str) -> Pulled:
        access = (*self._transport, *self._user)
        self.run(*self._ctr, "images", "pull", "--snapshotter", "native", *access, name)
        digest = self._digest(name)
        content = json.loads(self.run(*self._ctr, "content", "get", digest))
        return Pulled(digest, content.get("config", {}).get("digest", ""))

    def _digest(self, name: str) -> str:
        _, line = self.run(*self._ctr, "images", "ls", f"name=={name}").splitlines()
        return line.split()[2]
