"""Response heads, pure: what an application says in ASGI becomes bytes that frame its body."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto
from http import HTTPStatus
from time import gmtime, strftime
from typing import Final

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = (
    *("Jan", "Feb", "Mar", "Apr", "May", "Jun"),
    *("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
)
# RFC 9112 section 4: the space before an empty reason-phrase stays.
_STATUS_LINES: Final = {
    **{code: b"HTTP/1.1 %d \r\n" % code for code in range(200, 600)},
    **{
        status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode())
        for status in HTTPStatus
        if status >= 200
    },
}
# Framing and the connection are the door's own; an application's word on them is read, not sent.
_HOP_BY_HOP: Final = frozenset((b"connection", b"transfer-encoding", b"keep-alive"))
_READ: Final = _HOP_BY_HOP | {b"content-length", b"date"}
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"


class Framing(Enum):
    """How the end of a response body is marked (RFC 9112 section 6.3)."""

    NONE = auto()  # no body at all
    LENGTH = auto()
    CHUNKED = auto()
    CLOSE = auto()  # for HTTP/1.0 without a length


@dataclass(slots=True)
class ResponseHead:
    """The start of a response, checked; its framing is settled with the first piece of body."""

    status: int
    lines: bytes = b""  # status line and field lines, each with its CRLF
    length: int | None = None  # declared by the application
    close: bool = False  # asked for by the application
    dated: bool = False  # the application gave a Date of its own

    def may_have_body(self) -> bool:
        """RFC 9110 section 6.4.1."""
        return self.status not in {204, 304}


def date_line(now: float) -> bytes:
    """The Date field of RFC 9110 section 6.6.1, whatever the locale; ``now`` in Unix seconds."""
    time = gmtime(now)
    day, month = _DAYS[time.tm_wday], _MONTHS[time.tm_mon - 1]
    return strftime(f"date: {day}, %d {month} %Y %H:%M:%S GMT\r\n", time).encode()


def read_head(status: int, headers: Iterable[tuple[bytes, bytes]]) -> ResponseHead:
    """Check what an application gives with ``http.response.start``.

    Raises ValueError for what would frame the response wrongly or add a field that the
    application did not mean (CR, LF or NUL in a name or value).
    """
    if status not in _STATUS_LINES:
        raise ValueError(f"{status!r} is not the status of a final response")
    head = ResponseHead(status)
    lines = [_STATUS_LINES[status]]
    for name, value in headers:
        key = name.lower()
        if key not in _READ or _is_sent(head, key, value):
            lines.append(name + b": " + value + b"\r\n")
    head.lines = joined = b"".join(lines)
    # Every CR and LF must be one of ours; counting is faster than looking into each value.
    count = len(lines)
    if joined.count(b"\n") != count or joined.count(b"\r") != count or b"\0" in joined:
        raise ValueError("CR, LF or NUL in a response header")
    return head


def _is_sent(head: ResponseHead, name: bytes, value: bytes) -> bool:
    """Note what a field means to the door; False if the client does not get it."""
    if name in _HOP_BY_HOP:
        head.close = head.close or (name == b"connection" and value.lower() == b"close")
        return False
    if name == b"date":
        head.dated = True
        return True
    if not value.isdigit() or head.length is not None:
        raise ValueError("malformed or repeated content-length in a response")
    head.length = int(value)
    return head.status != 204  # RFC 9110 section 8.6: no Content-Length with 204


def frame(head: ResponseHead, *, method: str, http_version: str, body: int | None) -> Framing:
    """Choose the framing; ``body`` is the length of the whole body if it is known already.

    Sets ``head.length`` where it follows from ``body``.
    """
    if not head.may_have_body():
        return Framing.NONE
    if head.length is None and body is not None and (body or method != "HEAD"):
        head.length = body
        head.lines += b"content-length: %d\r\n" % body
    if method == "HEAD":
        return Framing.NONE
    if head.length is not None:
        return Framing.LENGTH
    return Framing.CHUNKED if http_version == "1.1" else Framing.CLOSE


def serialise(
    head: ResponseHead, framing: Framing, *, date: bytes, http_version: str, keep_alive: bool
) -> bytes:
    """The whole head, blank line included."""
    parts = [head.lines]
    if not head.dated:
        parts.append(date)
    if framing is Framing.CHUNKED:
        parts.append(b"transfer-encoding: chunked\r\n")
    if not keep_alive:
        parts.append(b"connection: close\r\n")
    elif http_version == "1.0":
        parts.append(b"connection: keep-alive\r\n")
    parts.append(b"\r\n")
    return b"".join(parts)


def plain_text(status: HTTPStatus, reason: str, *, date: bytes, head_only: bool = False) -> bytes:
    """A whole response in the door's own name, after which the connection closes."""
    text = f"{status.value} {status.phrase}: {reason}\n".encode("ascii", "replace")
    fields = (
        (b"content-type", b"text/plain; charset=us-ascii"),
        (b"content-length", b"%d" % len(text)),
    )
    head = read_head(status, fields)
    raw = serialise(head, Framing.LENGTH, date=date, http_version="1.1", keep_alive=False)
    return raw if head_only else raw + text
