"""HTTP/1.1 requests, pure: bytes in, values out. No I/O, no ``await``, no clock.

llhttp (through httptools) reads the head. It is fed whole heads only, so a parser lives as long
as one call, and body bytes never pass through a callback. What llhttp lets pass and RFC 9112
does not, found by asking it, is refused here:

- more than one space in the request line, blank lines before it, ``RTSP/`` and ``ICE/``
- HTTP/0.9 and HTTP/2.0 as versions, ``#fragment`` and ``*`` as a target of any method
- a missing, repeated or malformed ``Host``
- any transfer coding beside ``chunked``, and ``chunked`` in HTTP/1.0
- white space at the end of a field value (stripped, RFC 9112 section 5.1)

Framing errors always close the connection: after one, nobody knows where the next request starts.
"""

import re
from dataclasses import dataclass
from http import HTTPStatus
from mmap import mmap
from typing import Final, Protocol
from urllib.parse import unquote_to_bytes

from httptools import (
    HttpParserError,
    HttpParserInvalidMethodError,
    HttpParserUpgrade,
    HttpRequestParser,
)

from cypd.doors.plain.limits import Limits

# Chunk framing may cost this many times the payload (Go's CVE-2023-39326), plus one honest line.
OVERHEAD_RATIO: Final = 16
OVERHEAD_SLACK: Final = 1024
TRAILER_BYTES: Final = 8 * 1024
CHUNK_LINE_BYTES: Final = 4 * 1024

# RFC 9112 section 3: request-line = method SP request-target SP HTTP-version, method = token
_REQUEST_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ [!-~]+ HTTP/(\d)\.(\d)\r\n")
# RFC 9112 section 7.1.1: chunk = chunk-size [ chunk-ext ] CRLF; chunk-size = 1*HEXDIG
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t -~\x80-\xff]*)?")
# The end of a chunk and the size of the next, as nearly every client sends them.
_NEXT_CHUNK = re.compile(rb"\r\n([0-9A-Fa-f]{1,15})\r\n")
# RFC 9112 section 5: field-line = field-name ":" OWS field-value OWS
_FIELD_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*")
# RFC 9110 section 4.2.1: an http URI has a non-empty host. RFC 3986 section 3.2.2 spells it.
HOST = re.compile(rb"(?:[0-9A-Za-z._~!$&'()*+,;=%-]+|\[[0-9A-Fa-fvV:.]+\])(?::[0-9]*)?")
# RFC 9112 section 3.2.2: absolute-form = absolute-URI
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?]*)(.*)", re.DOTALL)
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_BARE_LF = re.compile(rb"(?<!\r)\n")

# The fields that decide about framing, routing or the connection.
_OURS: Final = frozenset(
    (b"host", b"content-length", b"transfer-encoding", b"connection", b"expect")
)
_METHODS: Final = {name.encode(): name for name in ("GET", "HEAD", "PUT", "POST", "PATCH")}


@dataclass(frozen=True, slots=True)
class RequestError(Exception):
    """The request is not answered by the application; the connection closes after ``status``."""

    status: HTTPStatus
    reason: str


def _bad(reason: str) -> RequestError:
    return RequestError(HTTPStatus.BAD_REQUEST, reason)


class Head:
    """A request head that passed every check. llhttp calls its two ``on_`` methods."""

    __slots__ = (
        "_ours",
        "chunked",
        "expect_continue",
        "headers",
        "http_version",
        "keep_alive",
        "length",
        "method",
        "path",
        "query",
        "raw_path",
        "target",
    )

    def __init__(self) -> None:
        self.method = ""
        self.target = b""  # as received
        self.path = ""  # percent-decoded
        self.raw_path = b""
        self.query = b""
        self.http_version = "1.1"
        self.headers: list[tuple[bytes, bytes]] = []  # names in lower case
        self.length = 0  # of the body; 0 if ``chunked``
        self.chunked = False
        self.keep_alive = True
        self.expect_continue = False
        self._ours: dict[bytes, list[bytes]] = {}  # values of the fields in _OURS

    def __repr__(self) -> str:
        return f"<Head {self.method} {self.target!r} HTTP/{self.http_version}>"

    def on_url(self, target: bytes) -> None:
        """Take the request target."""
        self.target = target

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one field."""
        name = name.lower()
        value = value.rstrip(b" \t")
        self.headers.append((name, value))
        if name in _OURS:
            self._ours.setdefault(name, []).append(value)

    def ours(self, name: bytes) -> list[bytes]:
        """All values of one of the fields that the door itself reads."""
        return self._ours.get(name, [])

    def is_plain(self) -> bool:
        """True if Host is the only field that the door reads: no body, nothing to negotiate."""
        return len(self._ours) == 1


def find_head(buffer: bytes, limits: Limits) -> int:
    """Where the head at the start of ``buffer`` ends; 0 if it goes on.

    Raises RequestError for what can be refused before the end is seen.
    """
    end = buffer.find(b"\r\n\r\n", 0, limits.head_bytes)
    if end >= 0:
        return end + 4
    if _BARE_LF.search(buffer, 0, limits.head_bytes):
        raise _bad("bare LF in the request head")
    if len(buffer) > limits.target_bytes and buffer.find(b"\r\n", 0, limits.head_bytes) < 0:
        raise RequestError(HTTPStatus.REQUEST_URI_TOO_LONG, "request line too long")
    if len(buffer) >= limits.head_bytes:
        raise RequestError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "request head too large")
    return 0


def parse_head(data: bytes, limits: Limits) -> Head:
    """Parse a whole head, blank line included. Raises RequestError."""
    head = Head()
    parser = HttpRequestParser(head)
    try:
        parser.feed_data(data)
    except HttpParserUpgrade:
        pass  # RFC 9110 section 7.8: a server may ignore Upgrade
    except HttpParserError as error:
        raise _refusal(data, error) from None
    _request_line(head, parser.get_method(), data)
    if len(head.target) > limits.target_bytes:
        raise RequestError(HTTPStatus.REQUEST_URI_TOO_LONG, "request target too long")
    if len(head.headers) > limits.head_fields:
        raise RequestError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "too many header fields")
    _host(head)
    _target(head)
    if not head.is_plain() or head.http_version == "1.0":
        _framing(head)
    return head


def _refusal(data: bytes, error: HttpParserError) -> RequestError:
    """The status for what llhttp refused."""
    line = _REQUEST_LINE.match(data)
    if line and line.groups() not in {(b"1", b"0"), (b"1", b"1")}:
        return RequestError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "HTTP/1.1 is spoken here")
    if line and isinstance(error, HttpParserInvalidMethodError):
        return RequestError(HTTPStatus.NOT_IMPLEMENTED, "unknown method")
    return _bad(str(error))


def _request_line(head: Head, method: bytes, data: bytes) -> None:
    line = method + b" " + head.target
    if not data.startswith(line):
        raise _bad("malformed request line")
    if data.startswith(b" HTTP/1.0\r\n", len(line)):
        head.http_version = "1.0"
        head.keep_alive = False
    elif not data.startswith(b" HTTP/1.1\r\n", len(line)):
        version = _REQUEST_LINE.match(data)
        if version is None:
            raise _bad("malformed request line")
        raise RequestError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "HTTP/1.1 is spoken here")
    if method == b"CONNECT":
        raise RequestError(HTTPStatus.NOT_IMPLEMENTED, "this is not a proxy")
    head.method = _METHODS.get(method) or method.decode("ascii")


def _host(head: Head) -> None:
    """RFC 9112 section 3.2: 400 for a missing, repeated or invalid Host."""
    hosts = head.ours(b"host")
    if len(hosts) > 1 or (not hosts and head.http_version == "1.1"):
        raise _bad("exactly one Host field is required")
    if hosts and not HOST.fullmatch(hosts[0]):
        raise _bad("invalid Host field")


def _target(head: Head) -> None:
    """RFC 9112 section 3.2.1 to 3.2.4: the four forms of a request target."""
    target = head.target
    if not target.startswith(b"/"):
        target = _absolute_target(head)
    if b"#" in target:
        raise _bad("fragment in the request target")
    head.raw_path, _, head.query = target.partition(b"?")
    head.path = decode_path(head.raw_path)


def decode_path(raw_path: bytes) -> str:
    """Undo the percent-encoding of a path. Raises RequestError."""
    if b"%" not in raw_path:
        return raw_path.decode("ascii")
    if _BAD_ESCAPE.search(raw_path):
        raise _bad("malformed percent-encoding in the path")
    try:
        return unquote_to_bytes(raw_path).decode("utf-8")
    except UnicodeDecodeError:
        raise _bad("the path is not UTF-8") from None


def _absolute_target(head: Head) -> bytes:
    """The origin-form of an absolute-form target, or ``*``."""
    if head.target == b"*" and head.method == "OPTIONS":
        return head.target
    absolute = _ABSOLUTE.fullmatch(head.target)
    if absolute is None or not HOST.fullmatch(absolute[1]):
        raise _bad("malformed request target")
    # RFC 9112 section 3.2.2: the received Host is replaced by the host of the target.
    head.headers = [field for field in head.headers if field[0] != b"host"]
    head.headers.append((b"host", absolute[1]))
    path = absolute[2]
    return path if path.startswith(b"/") else b"/" + path


def _framing(head: Head) -> None:
    """RFC 9112 section 6.3, stricter: what two readers could read differently is refused."""
    codings = head.ours(b"transfer-encoding")
    lengths = head.ours(b"content-length")
    if codings:
        _transfer_coding(head, codings, lengths)
    elif lengths:
        if len(lengths) > 1 or not lengths[0].isdigit() or len(lengths[0]) > 18:
            raise _bad("malformed Content-Length")
        head.length = int(lengths[0])
    options = b",".join(head.ours(b"connection")).lower()
    if options:
        _connection(head, [option.strip() for option in options.split(b",")])
    _expect(head)


def _transfer_coding(head: Head, codings: list[bytes], lengths: list[bytes]) -> None:
    if lengths or head.http_version == "1.0":
        raise _bad("Transfer-Encoding with Content-Length or in HTTP/1.0")
    names = [name.strip() for name in b",".join(codings).lower().split(b",")]
    if names.count(b"chunked") != 1 or names[-1] != b"chunked":
        raise _bad("Transfer-Encoding must end in one chunked")
    if len(names) > 1:
        raise RequestError(HTTPStatus.NOT_IMPLEMENTED, "unknown transfer coding")
    head.chunked = True


def _connection(head: Head, options: list[bytes]) -> None:
    """RFC 9112 section 9.3."""
    if b"close" in options:
        head.keep_alive = False
    elif b"keep-alive" in options:
        head.keep_alive = True


def _expect(head: Head) -> None:
    """RFC 9110 section 10.1.1; a server must ignore the field in HTTP/1.0."""
    expectations = head.ours(b"expect")
    if not expectations or head.http_version == "1.0":
        return
    if [value.lower() for value in expectations] != [b"100-continue"]:
        raise RequestError(HTTPStatus.EXPECTATION_FAILED, "unknown expectation")
    head.expect_continue = True


Buffer = bytearray | mmap  # what is early, or a slab


class Decoder(Protocol):
    """Takes the framing off a body, in place."""

    done: bool

    def wanted(self, free: int) -> int:
        """How many of ``free`` bytes may be read without reading into the next request."""

    def decode(self, buffer: Buffer, start: int, stop: int) -> tuple[int, int]:
        """Decode ``buffer[start:stop]``: the payload is moved together, to ``start``.

        Returns where the payload ends and where the first byte lies that was not consumed; there
        is none unless the body is ``done``. Raises RequestError.
        """


class LengthDecoder:
    """RFC 9112 section 6.2: a body of Content-Length bytes. Nothing moves."""

    __slots__ = ("_left", "done")

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = length == 0

    def wanted(self, free: int) -> int:
        return min(self._left, free)

    def decode(self, _buffer: Buffer, start: int, stop: int) -> tuple[int, int]:
        taken = min(self._left, stop - start)
        self._left -= taken
        self.done = self._left == 0
        return start + taken, start + taken


class ChunkedDecoder:
    """RFC 9112 section 7.1: chunked-body = *chunk last-chunk trailer-section CRLF.

    Beside the data of chunks there are only lines: ``_expect`` says which may come next. Trailer
    fields are checked and dropped (section 7.1.2 allows it).
    """

    __slots__ = ("_expect", "_left", "_line", "_overhead", "_payload", "_trailers", "done")

    def __init__(self) -> None:
        self.done = False
        self._expect = self._SIZE
        self._left = 0  # of the present chunk's data
        self._line = b""  # of which the end has not come yet
        self._payload = 0
        self._overhead = 0
        self._trailers = 0

    _SIZE, _BLANK, _TRAILER = range(3)
    _LONGEST = (CHUNK_LINE_BYTES, 1, TRAILER_BYTES)  # without the LF

    def wanted(self, free: int) -> int:
        return free

    def decode(self, buffer: Buffer, start: int, stop: int) -> tuple[int, int]:
        end = at = start
        with memoryview(buffer) as view:
            while at < stop and not self.done:
                if not self._left:
                    at = self._read_line(buffer, at, stop)
                    continue
                size = min(self._left, stop - at)
                if end != at:
                    view[end : end + size] = view[at : at + size]
                end += size
                at += size
                self._left -= size
        return end, at

    def _read_line(self, buffer: Buffer, at: int, stop: int) -> int:
        """Consume one line or a part of one; returns where it ends."""
        if self._expect == self._BLANK and not self._line:
            ordinary = _NEXT_CHUNK.match(buffer, at, stop)
            if ordinary:
                self._begin_chunk(int(ordinary[1], 16), ordinary.end() - at)
                return ordinary.end()
        newline = buffer.find(b"\n", at, stop)
        if newline < 0:
            self._line += buffer[at:stop]
            if len(self._line) > self._LONGEST[self._expect]:
                raise _bad("line too long in a chunked body")
            return stop
        line = self._line + buffer[at:newline]
        self._line = b""
        if not line.endswith(b"\r") or len(line) > self._LONGEST[self._expect]:
            raise _bad("malformed line in a chunked body")
        self._take_line(line[:-1])
        return newline + 1

    def _take_line(self, line: bytes) -> None:
        if self._expect == self._SIZE:
            size = _CHUNK_SIZE.fullmatch(line)
            if size is None:
                raise _bad("malformed chunk size")
            self._begin_chunk(int(size[1], 16), len(line) + 2)
        elif self._expect == self._BLANK:
            self._expect = self._SIZE
            self._overhead += 2
        elif line:
            self._trailers += len(line)
            if self._trailers > TRAILER_BYTES or not _FIELD_LINE.fullmatch(line):
                raise _bad("malformed or too many trailer fields")
        else:
            self.done = True

    def _begin_chunk(self, size: int, overhead: int) -> None:
        self._left = size
        self._payload += size
        self._overhead += overhead
        self._expect = self._BLANK if size else self._TRAILER
        if self._overhead > OVERHEAD_RATIO * self._payload + OVERHEAD_SLACK:
            raise _bad("chunks too small for their framing")
