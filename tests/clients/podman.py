"""Podman."""

import shutil
from pathlib import Path
from typing import ClassVar

from tests.clients.client import Client, Pulled
from tests.clients.images import TAG, Layout
from tests.daemon import PASSWORD, USER

_CONTAINERS = """\
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
tmp_dir = "{directory}/tmp"
"""

_STORAGE = """\
[storage]
driver = "vfs"
graphroot = "{directory}/graph"
runroot = "{directory}/run"
"""


class Podman(Client):
    """``podman`` gzips what it pushes and writes OCI manifests."""

    packages: ClassVar = {"podman": "podman"}

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._transport = "--tls-verify=false"
        auth = directory / "auth.json"
        auth.write_text("{}")  # podman wants it to exist
        containers, storage = directory / "containers.conf", directory / "storage.conf"
        containers.write_text(_CONTAINERS.format(directory=directory))
        storage.write_text(_STORAGE.format(directory=directory))
        self.environment |= {
            "CONTAINERS_CONF": str(containers),
            "CONTAINERS_STORAGE_CONF": str(storage),
            "REGISTRY_AUTH_FILE": str(auth),
        }

    def trust(self, host: str, authority: Path) -> None:
        certificates = self.directory / "certificates"
        certificates.mkdir()
        shutil.copy(authority, certificates / "ca.crt")
        self._transport = f"--cert-dir={certificates}"

    def login(self, host: str, password: str = PASSWORD, user: str = USER) -> None:
        credentials = ("--username", user, "--password-stdin")
        self.run("podman", "login", self._transport, *credentials, host, stdin=password)

    def load(self, layout: Layout, name: str) -> None:
        image = self.run("podman", "pull", "--quiet", f"oci:{layout.path}:{TAG}").strip()
        self.run("podman", "tag", image, name)

    def push_command(self, name: str) -> tuple[str, ...]:
        digest = f"--digestfile={self.directory}/digest"
        return ("podman", "push", "--quiet", self._transport, digest, name)

    def push(self, name: str) -> str:
        self.run(*self.push_command(name))
        return (self.directory / "digest").read_text()

    def pull(self, name: str) -> Pulled:
        self.run("podman", "pull", "--quiet", self._transport, name)
        form = "{{.Digest}} {{.Id}}"
        digest, config = self.run("podman", "image", "inspect", "--format", form, name).split()
        return Pulled(digest, f"sha256:{config}")
