"""Skopeo."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import ClassVar

from tests.clients.client import Client, Pulled
from tests.clients.images import TAG, Layout
from tests.daemon import PASSWORD, USER


class Skopeo(Client):
    """``skopeo`` copies between a registry and a directory, byte for byte and all platforms."""

    packages: ClassVar = {"skopeo": "skopeo"}
    needs_root = False

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.environment["REGISTRY_AUTH_FILE"] = str(directory / "auth.json")
        self.pulled = directory / "pulled"
        self._transport = "tls-verify=false"
        self._loaded: dict[str, Path] = {}

    def trust(self, host: str, authority: Path) -> None:
        certificates = self.directory / "certificates"
        certificates.mkdir()
        shutil.copy(authority, certificates / "ca.crt")
        self._transport = f"cert-dir={certificates}"

    def login(self, host: str, password: str = PASSWORD, user: str = USER) -> None:
        credentials = ("--username", user, "--password-stdin")
        self.run("skopeo", "login", f"--{self._transport}", *credentials, host, stdin=password)

    def load(self, layout: Layout, name: str) -> None:
        self._loaded[name] = layout.path

    def push_command(self, name: str) -> tuple[str, ...]:
        return (
            *("skopeo", "copy", "--all", "--preserve-digests", f"--dest-{self._transport}"),
            *("--digestfile", str(self.directory / "digest")),
            *(f"oci:{self._loaded[name]}:{TAG}", f"docker://{name}"),
        )

    def push(self, name: str) -> str:
        self.run(*self.push_command(name))
        return (self.directory / "digest").read_text()

    def pull(self, name: str) -> Pulled:
        options = ("--all", "--preserve-digests", f"--src-{self._transport}")
        self.run("skopeo", "copy", *options, f"docker://{name}", f"dir:{self.pulled}")
        content = (self.pulled / "manifest.json").read_bytes()
        config = json.loads(content).get("config", {}).get("digest", "")
        return Pulled(f"sha256:{hashlib.sha256(content).hexdigest()}", config)
