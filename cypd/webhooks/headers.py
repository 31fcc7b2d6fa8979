"""Header fields that a user may add to deliveries."""

import re
from collections.abc import Mapping

MAX_HEADERS, MAX_HEADER = 20, 4096

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)  # RFC 9110 5.6.2
_VALUE = re.compile(r"[ -~]*", re.ASCII)
# What frames the message or belongs to a connection (RFC 9110 7.6.1), and what is ours to say.
_OURS = re.compile(
    r"host|content-length|transfer-encoding|connection|upgrade|trailer|keep-alive|expect"
    r"|te|(?:proxy|x-webhook)-.*",  # codespell:ignore te
    re.IGNORECASE,
)


def check_headers(headers: Mapping[str, str]) -> None:
    """Raise ValueError, naming the header, for one that a user may not add to a delivery."""
    if len(headers) > MAX_HEADERS:
        raise ValueError(f"there are more than {MAX_HEADERS} headers")
    seen: set[str] = set()
    for name, value in headers.items():
        problem = _problem(name, value)
        if name.lower() in seen:
            problem = "is there twice"
        if problem:
            raise ValueError(f"header {name[:64]!r} {problem}")
        seen.add(name.lower())


def _problem(name: str, value: str) -> str:
    if not _TOKEN.fullmatch(name):
        return "has a name that HTTP does not allow"
    if _OURS.fullmatch(name):
        return "is set by the registry itself"
    if not _VALUE.fullmatch(value):
        return "has a value that is not printable ASCII"
    if len(name) + len(value) > MAX_HEADER:
        return f"is longer than {MAX_HEADER} bytes"
    return ""
