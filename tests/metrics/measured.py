"""A daemon whose metrics are read."""

from collections.abc import Mapping
from http.client import HTTPConnection
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from cypd.oci.digest import Digest
from cypd.oci.media_types import OCI_MANIFEST
from tests.daemon import Daemon, Response, free_port
from tests.samples import EMPTY, image

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def series(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    """Return the key of a sample."""
    return name, frozenset(labels.items())


def samples(text: str) -> Samples:
    """Return what an exposition says; a series that stands there twice is a failure."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = series(sample.name, **sample.labels)
            assert key not in found, key
            found[key] = sample.value
    return found


class Measured(Daemon):
    """The daemon with a listener for metrics on a free port."""

    def __init__(self, directory: Path, environment: Mapping[str, str] | None = None) -> None:
        self.metrics_port = free_port()
        listen = {"CYPD_SERVER_METRICS_LISTEN": f"127.0.0.1:{self.metrics_port}"}
        super().__init__(directory, {**listen, **(environment or {})})

    def ask_metrics(self, path: str = "/metrics", method: str = "GET", token: str = "") -> Response:
        """Send a request to the listener for metrics."""
        connection = HTTPConnection("127.0.0.1", self.metrics_port, timeout=30)
        try:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            return Response(response.status, response.headers, response.read())
        finally:
            connection.close()

    def scrape(self) -> Samples:
        """Return all samples."""
        response = self.ask_metrics()
        assert response.status == 200, response
        return samples(response.body.decode())

    def push_blob(self, repository: str, content: bytes) -> None:
        """Push a blob in one request."""
        path = f"/v2/{repository}/blobs/uploads/?digest={Digest.of(content)}"
        assert self.request("POST", path, body=content).status == 201

    def push_image(self, repository: str, *layers: bytes, tag: str = "latest") -> bytes:
        """Push an image and return its manifest."""
        for blob in (*layers, EMPTY):
            self.push_blob(repository, blob)
        manifest = image(*layers)
        headers = {"Content-Type": OCI_MANIFEST}
        path = f"/v2/{repository}/manifests/{tag}"
        assert self.request("PUT", path, body=manifest, headers=headers).status == 201
        return manifest
