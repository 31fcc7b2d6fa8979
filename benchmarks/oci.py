"""The pushes of the OCI distribution spec, as clients speak them."""

import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from benchmarks.http import Answer, Body, Connection, in_chunks

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"

EMPTY = "Content-Length: 0\r\n"
OCTETS = "Content-Type: application/octet-stream\r\n"


class Blob(NamedTuple):
    """Bytes and their digest."""

    digest: str
    content: memoryview

    @classmethod
    def of(cls, content: bytes | bytearray) -> "Blob":
        """Compute the digest of some content."""
        return cls("sha256:" + hashlib.sha256(content).hexdigest(), memoryview(content))


def manifest(config: Blob, layers: Sequence[Blob]) -> bytes:
    """Return an image manifest."""

    def descriptor(media_type: str, blob: Blob) -> dict[str, str | int]:
        return {"mediaType": media_type, "digest": blob.digest, "size": len(blob.content)}

    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, config),
            "layers": [descriptor(LAYER, layer) for layer in layers],
        }
    ).encode()


def push_blob(connection: Connection, repository: str, blob: Blob) -> None:
    """Push a blob in two requests: POST, then PUT with the content (end-4a, end-6)."""
    session = _start(connection, repository)
    _finish(connection, session, blob.digest, [blob.content])


def push_layer(connection: Connection, repository: str, blob: Blob, *, chunked: bool) -> None:
    """Push a blob as docker does: POST, PATCH with the content, PUT (end-4a, end-5, end-6).

    Docker sends the content in chunked transfer coding, others tell its length.
    """
    if chunked:
        framing, body = "Transfer-Encoding: chunked\r\n", list(in_chunks(blob.content))
        _push(connection, repository, blob.digest, framing, body)
    else:
        push_pieces(connection, repository, blob.digest, [blob.content])


def push_pieces(connection: Connection, repository: str, digest: str, pieces: Body) -> None:
    """Push a blob that lies in pieces, as ``push_layer`` does, with its length."""
    framing = f"Content-Length: {sum(map(len, pieces))}\r\n"
    _push(connection, repository, digest, framing, pieces)


def push_manifest(connection: Connection, repository: str, tag: str, content: bytes) -> None:
    """Push a manifest under a tag (end-7)."""
    fields = f"Content-Type: {MANIFEST}\r\nContent-Length: {len(content)}\r\n"
    path = f"/v2/{repository}/manifests/{tag}"
    _expect(201, connection.request("PUT", path, fields, [content]))


def _push(connection: Connection, repository: str, digest: str, framing: str, body: Body) -> None:
    session = _start(connection, repository)
    answer = _expect(202, connection.request("PATCH", session, OCTETS + framing, body))
    _finish(connection, _location(answer), digest, [])


def _start(connection: Connection, repository: str) -> str:
    answer = connection.request("POST", f"/v2/{repository}/blobs/uploads/", EMPTY)
    return _location(_expect(202, answer))


def _finish(connection: Connection, session: str, digest: str, body: Body) -> None:
    path = f"{session}{'&' if '?' in session else '?'}digest={digest}"
    fields = f"{OCTETS}Content-Length: {sum(map(len, body))}\r\n"
    _expect(201, connection.request("PUT", path, fields, body))


def _location(answer: Answer) -> str:
    """Return the path of a Location, which may be absolute."""
    _, _, path, query, _ = urlsplit(answer.fields["location"])
    return f"{path}?{query}" if query else path


def _expect(status: int, answer: Answer) -> Answer:
    if answer.status != status:
        raise ConnectionError(f"{answer.status} instead of {status}: {answer.body[:500]!r}")
    return answer
