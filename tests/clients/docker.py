"""The Docker engine and its command line."""

import shutil
from pathlib import Path
from typing import ClassVar, Self

from tests.clients.client import Client, Pulled, service
from tests.clients.containerd import containerd
from tests.clients.images import Layout
from tests.daemon import PASSWORD, USER


class Docker(Client):
    """``docker`` gzips layers anew and writes manifests of its own, in Docker's media types."""

    packages: ClassVar = {"docker": "docker.io", "dockerd": "docker.io", "containerd": "containerd"}

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._settings = directory / "etc"
        self._settings.mkdir()
        socket = f"unix://{directory}/docker.sock"
        self.environment |= {"DOCKER_HOST": socket, "DOCKER_CONFIG": str(directory / "config")}

    def __enter__(self) -> Self:
        config = self.directory / "daemon.json"
        config.write_text("{}")
        backend = self.stack.enter_context(containerd(self.directory, self.environment))
        command = (
            # It mounts its data on itself; that shall go with it. And it looks for the certificates
            # of authorities below /etc/docker, nowhere else.
            *("unshare", "--mount", "sh", "-c"),
            'mkdir -p /etc/docker && mount --bind "$0" /etc/docker && exec "$@"',
            str(self._settings),
            "dockerd",
            f"--config-file={config}",
            f"--host={self.environment['DOCKER_HOST']}",
            f"--containerd={backend}",
            f"--data-root={self.directory}/data",
            f"--exec-root={self.directory}/exec",
            f"--pidfile={self.directory}/docker.pid",
            "--storage-driver=vfs",
            "--iptables=false",
            "--bridge=none",
        )
        log, probe = self.directory / "docker.log", ("docker", "version")
        self.stack.enter_context(service(command, self.environment, log, probe))
        return self

    def trust(self, host: str, authority: Path) -> None:
        certificates = self._settings / "certs.d" / host
        certificates.mkdir(parents=True)
        shutil.copy(authority, certificates / "ca.crt")

    def login(self, host: str, password: str = PASSWORD, user: str = USER) -> None:
        self.run("docker", "login", "--username", user, "--password-stdin", host, stdin=password)

    def load(self, layout: Layout, name: str) -> None:
        archive = layout.archive(self.directory / "image.tar", name)
        self.run("docker", "load", "--quiet", "--input", str(archive))
        archive.unlink()

    def push_command(self, name: str) -> tuple[str, ...]:
        return ("docker", "push", "--quiet", name)

    def push(self, name: str) -> str:
        self.run(*self.push_command(name))
        return self._inspect(name).digest

    def pull(self, name: str) -> Pulled:
        self.run("docker", "pull", "--quiet", name)
        return self._inspect(name)

    def _inspect(self, name: str) -> Pulled:
        form = "{{index .RepoDigests 0}} {{.Id}}"
        digest, config = self.run("docker", "image", "inspect", "--format", form, name).split()
        return Pulled(digest.partition("@")[2], config)
