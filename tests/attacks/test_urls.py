"""Addresses in manifests lead outside: they are refused, whatever they look like, and not asked."""

import json
import socket

import pytest

from cypd.oci.media_types import OCI_INDEX
from tests.attacks.content import new_repository, push_blob
from tests.attacks.wire import ask
from tests.daemon import Daemon
from tests.samples import EMPTY, descriptor, image

_HOSTILE = [
    "http://169.254.169.254/latest/meta-data/",
    "http://[fd00:ec2::254]/",
    "http://[::ffff:169.254.169.254]/",
    "http://2852039166/",
    "http://0xa9fea9fe/",
    "http://127.1/",
    "http://localhost:22/",
    "https://user:password@registry/",
    "//169.254.169.254/",
    "http:169.254.169.254",
    "http://[::1",
    "http://]/",
    "http://\u2100/",
    "http://a\u2048b/",
    "http://[v1.x]/",
    "http://a:99999999/",
    "http://a:x/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:11211/_stats",
    "data:,x",
    "\r\nHost: x",
    "\0",
    "",
    " ",
    "x" * 100_000,
]


@pytest.mark.parametrize("url", _HOSTILE, ids=lambda url: repr(url[:40]))
def test_an_address_outside_is_refused(daemon: Daemon, url: str) -> None:
    """With no host allowed, a layer or a child that names any address is a 400."""
    repository = new_repository()
    push_blob(daemon, repository, EMPTY)
    layered = json.loads(image(EMPTY))
    layered["layers"][0]["urls"] = [url]
    child = descriptor(EMPTY) | {"urls": [url]}
    listing = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child]}
    for document in (layered, listing):
        target = f"/v2/{repository}/manifests/x"
        answer = ask(daemon.port, "PUT", target, json.dumps(document).encode())

        assert answer.status == 400, answer


def test_no_address_is_ever_fetched(daemon: Daemon) -> None:
    """A listener that a manifest points at hears nothing."""
    repository = new_repository()
    push_blob(daemon, repository, EMPTY)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.3)
        document = json.loads(image(EMPTY))
        document["layers"][0]["urls"] = [f"http://127.0.0.1:{server.getsockname()[1]}/layer"]
        ask(daemon.port, "PUT", f"/v2/{repository}/manifests/x", json.dumps(document).encode())

        with pytest.raises(TimeoutError):
            server.accept()
