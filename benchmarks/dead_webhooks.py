"""Claim: a push is no slower for all the webhooks that are told of it and do not answer."""

import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import oci
from benchmarks.credentials import ask, sign_in
from benchmarks.figures import SUBJECT, Figure, Result, Target
from benchmarks.kernel import Window
from benchmarks.lab import Lab, Sample
from benchmarks.oci import Blob
from benchmarks.servers import REPOSITORY, Cypd, Server

QUIET = "cypd, no webhooks"
_WEBHOOKS = 10
_CONNECTIONS = 16
_LEAST = 0.9  # of what is pushed with none


class _Telling(Cypd):
    """One that may send to this machine, where nobody takes it."""

    def environment(self) -> Mapping[str, str]:
        """Return what a server's environment adds."""
        return {**super().environment(), "CYPD_WEBHOOKS_ALLOW_NETWORKS": "127.0.0.0/8"}


def run(lab: Lab) -> Iterator[Result]:
    """PUT manifests under tags of their own, beside ten webhooks whose target is dead."""
    if SUBJECT not in lab.servers:
        return
    count = lab.scale.small_pushes
    figure = Figure(
        f"push {count:,} tags, {_WEBHOOKS} dead webhooks, {_CONNECTIONS} connections",
        "tags/s",
        "higher",
        [Target(_LEAST, QUIET)],
    )
    with (
        TemporaryDirectory(prefix="benchmarks-") as directory,
        _Telling(Path(directory) / "telling", lab.server_cpu) as telling,
        Cypd(Path(directory) / "quiet", lab.server_cpu) as quiet,
        ThreadPoolExecutor(_CONNECTIONS) as pool,
    ):
        servers: Mapping[str, Server] = {SUBJECT: telling, QUIET: quiet}
        config = Blob.of(b"{}")
        for server in servers.values():
            server.put_blob(config)
        _hook(telling)
        image = oci.manifest(config, [])

        def take(name: str) -> Sample:
            server = servers[name]
            tags = [os.urandom(8).hex() for _ in range(count)]
            shares = [tags[start::_CONNECTIONS] for start in range(_CONNECTIONS)]
            server.warm_up()
            with Window(server.pid) as window:
                list(pool.map(_push, [server] * _CONNECTIONS, [image] * _CONNECTIONS, shares))
            return Sample.per_second(count, window)

        yield lab.alternate(figure, list(servers), take)


def _hook(server: Cypd) -> None:
    access = sign_in(server)
    name = REPOSITORY.partition("/")[0]
    (project,) = ask(server, "GET", f"/api/v1/projects?keyword={name}", None, access)["projects"]
    for number in range(_WEBHOOKS):
        webhook = {
            "project_id": project["id"],
            "name": f"dead {number}",
            "url": "http://127.0.0.1:9/",
            "secret": "s",
            "events": ["push"],
        }
        ask(server, "POST", "/api/v1/webhooks", webhook, access)


def _push(server: Server, image: bytes, tags: Iterable[str]) -> None:
    with server.connect() as connection:
        for tag in tags:
            oci.push_manifest(connection, REPOSITORY, tag, image)
