"""Granian's scope, checked and put into the words of the plaintext door. Pure."""

from http import HTTPStatus

from cypd.doors.asgi import REQUEST_SLABS, ZEROCOPY_SEND, Receive, Scope
from cypd.doors.plain.h1 import HOST, RequestError, decode_path
from cypd.doors.plain.limits import Limits

_ASGI = {"version": "3.0", "spec_version": "2.4"}


def read_scope(given: Scope, limits: Limits, receive_slab: Receive) -> Scope:
    """Return the scope for the application.

    Raises RequestError for what hyper lets pass and the plaintext door does not.
    """
    headers: list[tuple[bytes, bytes]] = given["headers"]
    _require_bounded(headers, limits)
    version = "1.0" if given["http_version"] == "1" else given["http_version"]
    raw_path: bytes = given["raw_path"]
    if given["method"] == "CONNECT":
        raise RequestError(HTTPStatus.NOT_IMPLEMENTED, "this is not a proxy")
    if not raw_path.isascii() or not (raw_path.startswith(b"/") or raw_path == b"*"):
        raise RequestError(HTTPStatus.BAD_REQUEST, "malformed request target")
    return {
        "type": "http",
        "asgi": _ASGI,
        "http_version": version,
        "method": given["method"],
        "scheme": given["scheme"],
        "path": decode_path(raw_path),
        "raw_path": raw_path,
        "query_string": given["query_string"],
        "root_path": "",
        "headers": _checked(headers, version),
        "client": address_of(given["client"]),
        "server": address_of(given["server"]),
        "extensions": {ZEROCOPY_SEND: {}, REQUEST_SLABS: {"receive": receive_slab}},
    }


def _require_bounded(headers: list[tuple[bytes, bytes]], limits: Limits) -> None:
    # hyper bounds the number in HTTP/1.1 alone, and the size by what it also reads bodies into.
    size = sum(len(name) + len(value) for name, value in headers)
    if len(headers) > limits.head_fields or size > limits.head_bytes:
        raise RequestError(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the request's header is too large"
        )


def _checked(headers: list[tuple[bytes, bytes]], version: str) -> list[tuple[bytes, bytes]]:
    """RFC 9112 section 3.2: 400 for a missing, repeated or invalid Host; 6.3: one length."""
    hosts = [value for name, value in headers if name == b"host"]
    if hosts == [b""] and version == "1.0":  # there was none: Granian puts an empty one in front
        headers, hosts = headers[1:], []
    elif len(hosts) != 1 or not HOST.fullmatch(hosts[0]):
        raise RequestError(HTTPStatus.BAD_REQUEST, "exactly one valid Host field is required")
    lengths = [value for name, value in headers if name == b"content-length"]
    if len(lengths) > 1 or not all(value.isdigit() for value in lengths):
        raise RequestError(HTTPStatus.BAD_REQUEST, "malformed or repeated Content-Length")
    return headers


def address_of(given: tuple[str, str]) -> tuple[str, int]:
    """Return an address of Granian's in ASGI's form: its port is a number."""
    return given[0], int(given[1])
