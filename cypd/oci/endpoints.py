"""The specification's endpoints: parsing a request's path, and the inverse.

Names may hold any word that also stands in a path (``a/blobs/uploads`` is a repository), so a path
is read from its end: the last two segments say what it is, all before them is the name.
"""

from enum import Enum
from typing import NamedTuple

from cypd.oci.digest import Digest
from cypd.oci.errors import Code, OCIError
from cypd.oci.names import RepositoryName, Tag

Reference = Tag | Digest


TOKEN_PATH = "/v2/auth"  # noqa: S105


class Endpoint(Enum):
    """The spec's table of endpoints (section Endpoints), with its numbers."""

    PING = "end-1"
    BLOB_GET = "end-2"
    MANIFEST_GET = "end-3"
    UPLOAD_START = "end-4"  # end-4a, end-4b with ?digest=, end-11 with ?mount=
    UPLOAD_CHUNK = "end-5"
    UPLOAD_COMMIT = "end-6"
    MANIFEST_PUT = "end-7"
    TAG_LIST = "end-8"
    MANIFEST_DELETE = "end-9"
    BLOB_DELETE = "end-10"
    REFERRERS = "end-12"
    UPLOAD_STATUS = "end-13"
    UPLOAD_CANCEL = "end-14"  # DELETE of an upload, in the spec since 1.2-dev
    TOKEN = "token"  # noqa: S105 (Docker Registry v2 authentication, section Token endpoint)
    TOKEN_EXCHANGE = "token-oauth"  # noqa: S105 (the same, section OAuth2 Token Authentication)
    CATALOG = "catalog"  # Docker Registry HTTP API V2, section Listing Repositories


class Target(NamedTuple):
    """What a request is about. Fields that the endpoint does not have are ``None``."""

    endpoint: Endpoint
    repository: RepositoryName | None = None
    reference: Reference | None = None
    upload: str | None = None


_METHODS: dict[str, dict[str, Endpoint]] = {
    "ping": {"GET": Endpoint.PING, "HEAD": Endpoint.PING},
    "token": {
        "GET": Endpoint.TOKEN,
        "HEAD": Endpoint.TOKEN,
        "POST": Endpoint.TOKEN_EXCHANGE,
    },
    "catalog": {"GET": Endpoint.CATALOG, "HEAD": Endpoint.CATALOG},
    "tags": {"GET": Endpoint.TAG_LIST, "HEAD": Endpoint.TAG_LIST},
    "referrers": {"GET": Endpoint.REFERRERS, "HEAD": Endpoint.REFERRERS},
    "blobs": {
        "GET": Endpoint.BLOB_GET,
        "HEAD": Endpoint.BLOB_GET,
        "DELETE": Endpoint.BLOB_DELETE,
    },
    "manifests": {
        "GET": Endpoint.MANIFEST_GET,
        "HEAD": Endpoint.MANIFEST_GET,
        "PUT": Endpoint.MANIFEST_PUT,
        "DELETE": Endpoint.MANIFEST_DELETE,
    },
    "uploads": {"POST": Endpoint.UPLOAD_START},
    "upload": {
        "GET": Endpoint.UPLOAD_STATUS,
        "HEAD": Endpoint.UPLOAD_STATUS,
        "PATCH": Endpoint.UPLOAD_CHUNK,
        "PUT": Endpoint.UPLOAD_COMMIT,
        "DELETE": Endpoint.UPLOAD_CANCEL,
    },
}


_FIXED = {"/v2/": "ping", "/v2": "ping", TOKEN_PATH: "token", "/v2/_catalog": "catalog"}


def parse(method: str, path: str) -> Target:
    """Return what ``method`` on the percent-decoded ``path`` asks for.

    Raises NAME_INVALID, DIGEST_INVALID or TAG_INVALID for a part that is not well formed,
    NAME_UNKNOWN (404) for a path that is none of the spec's, UNSUPPORTED (405) with ``Allow`` for
    a method that the path does not have.
    """
    kind, name, last = _locate(path)
    endpoint = _endpoint(kind, method)
    if kind in ("ping", "token", "catalog"):
        return Target(endpoint)
    repository = RepositoryName.parse(name)
    if kind == "manifests":
        return Target(endpoint, repository, parse_reference(last))
    if kind in ("blobs", "referrers"):
        return Target(endpoint, repository, Digest.parse(last))
    return Target(endpoint, repository, upload=last or None)


def _locate(path: str) -> tuple[str, str, str]:
    """Return (a key of ``_METHODS``, the repository's name, the last segment)."""
    if path in _FIXED:
        return _FIXED[path], "", ""
    head, kind, last = path.rsplit("/", 2) if path.count("/") > 3 else ("", "", "")
    name = head.removeprefix("/v2/")
    if name == head:
        raise _no_such_path()
    if kind in ("manifests", "referrers") or (kind == "blobs" and last != "uploads"):
        return kind, name, last
    if kind == "tags" and last == "list":
        return "tags", name, ""
    if kind == "blobs":  # ".../blobs/uploads": some clients leave the trailing slash away
        return "uploads", name, ""
    if kind == "uploads" and name.endswith("/blobs"):
        return "upload" if last else "uploads", name.removesuffix("/blobs"), last
    raise _no_such_path()


def _no_such_path() -> OCIError:
    return OCIError(Code.NAME_UNKNOWN, "no such path; the OCI distribution API is below /v2/")


def _endpoint(kind: str, method: str) -> Endpoint:
    endpoint = _METHODS[kind].get(method)
    if endpoint is None:
        allow = ", ".join(_METHODS[kind])
        raise OCIError(
            Code.UNSUPPORTED, f"methods here: {allow}", headers={b"allow": allow.encode()}
        )
    return endpoint


def parse_reference(text: str) -> Reference:
    """Return ``text`` as a digest if it has a colon, which no tag has, else as a tag."""
    return Digest.parse(text) if ":" in text else Tag.parse(text)


def manifest_path(repository: RepositoryName, reference: Reference) -> str:
    """Return the path of a manifest."""
    return f"/v2/{repository}/manifests/{reference}"


def blob_path(repository: RepositoryName, digest: Digest) -> str:
    """Return the path of a blob."""
    return f"/v2/{repository}/blobs/{digest}"


def upload_path(repository: RepositoryName, upload: str = "") -> str:
    """Return the path of an upload session, or without ``upload`` of where sessions start."""
    return f"/v2/{repository}/blobs/uploads/{upload}"


def referrers_path(repository: RepositoryName, digest: Digest) -> str:
    """Return the path of a manifest's referrers."""
    return f"/v2/{repository}/referrers/{digest}"


def tags_path(repository: RepositoryName) -> str:
    """Return the path of a repository's tags."""
    return f"/v2/{repository}/tags/list"
