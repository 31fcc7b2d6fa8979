"""The pure core: heads and bodies, whole or in pieces."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cypd.doors.plain.h1 import (
    OVERHEAD_RATIO,
    OVERHEAD_SLACK,
    ChunkedDecoder,
    Decoder,
    Head,
    LengthDecoder,
    RequestError,
    _transfer_coding,
    find_head,
    parse_head,
)
from cypd.doors.plain.limits import Limits

LIMITS = Limits()

GET = b"GET /a%20b/%C3%A9?q=%20 HTTP/1.1\r\nHost: example.org:5000\r\nAccept: */*\r\n\r\n"
PUT = b"PUT /x HTTP/1.1\r\nHost: [::1]:5000\r\nContent-Length: 11\r\n\r\nhello world"
PATCH = (
    b"PATCH /y HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
    b"5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nTrailer: t\r\n\r\n"
)
OLD = b"HEAD / HTTP/1.0\r\n\r\n"
OLD_KEPT = b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"
LAST = b"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: x, close\r\n\r\n"


def summary(head: Head) -> tuple[object, ...]:
    return (
        *(head.method, head.target, head.path, head.raw_path, head.query, head.http_version),
        *(head.headers, head.length, head.chunked, head.keep_alive, head.expect_continue),
    )


def read(pieces: list[bytes]) -> list[tuple[object, bytes]]:
    """What a connection understands of a stream that arrives in ``pieces``."""
    found: list[tuple[object, bytes]] = []
    pending, payload = b"", b""
    head: Head | None = None
    decoder: Decoder = LengthDecoder(0)
    for piece in pieces:
        pending += piece
        while pending:
            if head is None:
                end = find_head(pending, LIMITS)
                if not end:
                    break
                head = parse_head(pending[:end], LIMITS)
                decoder = ChunkedDecoder() if head.chunked else LengthDecoder(head.length)
                pending, payload = pending[end:], b""
            buffer = bytearray(pending)
            stop, consumed = decoder.decode(buffer, 0, len(buffer))
            payload += buffer[:stop]
            pending = bytes(buffer[consumed:])
            if decoder.done or (head.length == 0 and not head.chunked):
                found.append((summary(head), payload))
                head = None
    return found


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def test_get() -> None:
    """A head comes apart as ASGI names its parts."""
    head = parse_head(GET, LIMITS)

    assert head.method == "GET"
    assert head.target == b"/a%20b/%C3%A9?q=%20"
    assert head.path == "/a b/é"
    assert head.raw_path == b"/a%20b/%C3%A9"
    assert head.query == b"q=%20"
    assert head.headers == [(b"host", b"example.org:5000"), (b"accept", b"*/*")]
    assert (head.length, head.chunked, head.keep_alive) == (0, False, True)
    assert repr(head) == "<Head GET b'/a%20b/%C3%A9?q=%20' HTTP/1.1>"


def test_old() -> None:
    """HTTP/1.0 needs no Host, and closes unless it is asked to stay."""
    assert parse_head(OLD, LIMITS).keep_alive is False
    assert parse_head(OLD_KEPT, LIMITS).keep_alive is True
    assert parse_head(OLD_KEPT, LIMITS).http_version == "1.0"


def test_old_ignores_expect() -> None:
    """RFC 9110 section 10.1.1: Expect means nothing in HTTP/1.0."""
    head = parse_head(b"GET / HTTP/1.0\r\nExpect: miracles\r\n\r\n", LIMITS)

    assert head.expect_continue is False


@pytest.mark.parametrize(
    ("target", "host", "path", "query"),
    [
        (b"http://b", b"b", "/", b""),
        (b"http://b?q", b"b", "/", b"q"),
        (b"HTTPS://b:80/p?q", b"b:80", "/p", b"q"),
        (b"http://[::1]:5000/%41", b"[::1]:5000", "/A", b""),
    ],
)
def test_absolute_form(target: bytes, host: bytes, path: str, query: bytes) -> None:
    """RFC 9112 section 3.2.2: the host of an absolute target replaces the Host field."""
    head = parse_head(b"GET " + target + b" HTTP/1.1\r\nHost: evil\r\n\r\n", LIMITS)

    assert (path, query) == (head.path, head.query)
    assert [(b"host", host)] == head.headers


@pytest.mark.parametrize(
    "host", [b"a", b"a:", b"a:1", b"[::1]", b"[::1]:1", b"a.b-c_d", b"127.0.0.1:5000"]
)
def test_hosts(host: bytes) -> None:
    """Every spelling of a host that RFC 3986 allows is let in."""
    assert parse_head(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n", LIMITS).path == "/"


def test_find_head_waits() -> None:
    """An unfinished head is neither found nor refused."""
    assert [find_head(GET[:size], LIMITS) for size in range(len(GET))] == [0] * len(GET)
    assert find_head(GET + b"next", LIMITS) == len(GET)


def test_unreadable_error_is_shown() -> None:
    """A refusal says what was wrong."""
    with pytest.raises(RequestError, match="exactly one Host"):
        parse_head(b"GET / HTTP/1.1\r\n\r\n", LIMITS)


@pytest.mark.parametrize("coding", [b"gzip", b"chunked, gzip", b"chunked, chunked", b""])
def test_last_coding_is_chunked(coding: bytes) -> None:
    """RFC 9112 section 6.3: 400 unless chunked comes last, even if llhttp should let it in."""
    with pytest.raises(RequestError, match="one chunked"):
        _transfer_coding(Head(), [coding], [])


def test_decoders_want_no_more_than_theirs() -> None:
    """A body of known length never reads into the next request; a chunked one has to."""
    assert LengthDecoder(5).wanted(100) == 5
    assert LengthDecoder(500).wanted(100) == 100
    assert ChunkedDecoder().wanted(100) == 100


STREAM = GET + PUT + PATCH + OLD + OLD_KEPT + LAST


def test_byte_by_byte() -> None:
    """Bytes that arrive one by one mean what they mean together."""
    assert read([bytes([byte]) for byte in STREAM]) == read([STREAM])
    assert len(read([STREAM])) == 6


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_cut_anywhere(places: list[int]) -> None:
    """Where the network cuts a stream makes no difference."""
    assert read(cut(STREAM, places)) == read([STREAM])


@pytest.mark.parametrize(
    "body",
    [b"5;" + b"a" * 5000, b"f" * 5000, b"1\r\nxyz", b"0\r\na: " + b"b" * 9000],
)
def test_endless_lines(body: bytes) -> None:
    """A line of a chunked body that does not end is refused while it comes."""
    with pytest.raises(RequestError, match="too long"):
        ChunkedDecoder().decode(bytearray(body), 0, len(body))


# A slow reference for chunked bodies: line by line, from the grammar of RFC 9112 section 7.1.

HEX = b"0123456789abcdefABCDEF"
TOKEN = b"!#$%&'*+-.^_`|~0123456789" + bytes(range(65, 91)) + bytes(range(97, 123))
VISIBLE = bytes({9, *range(32, 127), *range(128, 256)})


class Reference:
    """Reads a whole chunked body, slowly."""

    def __init__(self, data: bytes) -> None:
        self.rest = data
        self.payload = b""
        self.overhead = self.announced = self.trailers = 0
        self.result = self._read()

    def _line(self, longest: int) -> bytes | str:
        line, newline, rest = self.rest.partition(b"\n")
        if len(line) > longest:
            return "error"
        if not newline:
            return "incomplete"
        if line[-1:] != b"\r":
            return "error"
        self.rest = rest
        return line[:-1]

    def _size(self, line: bytes) -> int:
        digits = line[: len(line) - len(line.lstrip(HEX))]
        extension = line[len(digits) :]
        if not 1 <= len(digits) <= 15 or extension.strip(VISIBLE):
            raise ValueError(line)
        if extension and not extension.lstrip(b" \t").startswith(b";"):
            raise ValueError(line)
        return int(digits, 16)

    def _read(self) -> str:
        while True:
            line = self._line(4096)
            if isinstance(line, str):
                return line
            try:
                size = self._size(line)
            except ValueError:
                return "error"
            self.overhead += len(line) + 2
            self.announced += size
            if self.overhead > OVERHEAD_RATIO * self.announced + OVERHEAD_SLACK:
                return "error"
            if not size:
                return self._read_trailers()
            self.payload += self.rest[:size]
            if len(self.rest) < size:
                return "incomplete"
            self.rest = self.rest[size:]
            line = self._line(1)
            if isinstance(line, str):
                return line
            self.overhead += 2

    def _read_trailers(self) -> str:
        while True:
            line = self._line(8192)
            if isinstance(line, str):
                return line
            if not line:
                return "done"
            self.trailers += len(line)
            name, colon, value = line.partition(b":")
            if not name or not colon or name.strip(TOKEN) or value.strip(VISIBLE):
                return "error"
            if self.trailers > 8192:
                return "error"


def decode(pieces: list[bytes]) -> tuple[str, bytes, bytes]:
    decoder, payload, rest = ChunkedDecoder(), b"", b""
    for piece in pieces:
        if decoder.done:
            rest += piece
            continue
        buffer = bytearray(b"##" + piece)  # a decoder has to leave what is before its place
        try:
            end, consumed = decoder.decode(buffer, 2, len(buffer))
        except RequestError:
            return ("error", b"", b"")
        assert buffer.startswith(b"##")
        payload += buffer[2:end]
        rest += buffer[consumed:]
    return ("done" if decoder.done else "incomplete", payload, rest)


extensions = st.sampled_from([b"", b"", b"", b";a", b' ; a="b;c"', b";" + b"x" * 300])
chunks = st.builds(
    lambda data, extension: b"%x%b\r\n%b\r\n" % (len(data), extension, data),
    st.binary(min_size=1, max_size=40),
    extensions,
)
ends = st.sampled_from([b"0\r\n\r\n", b"000;x\r\n\r\n", b"0\r\nA: b\r\nC:\r\n\r\n", b"0\r\n", b""])
bodies = st.builds(lambda parts, end: b"".join(parts) + end, st.lists(chunks, max_size=6), ends)


@given(bodies, st.binary(max_size=5), st.lists(st.integers(0, 400), max_size=8))
def test_chunked_against_reference(body: bytes, after: bytes, places: list[int]) -> None:
    """Valid bodies, cut anywhere, decode to what the grammar says, and not a byte further."""
    data = body + after
    expected = Reference(data)

    found = decode(cut(data, [min(place, len(data)) for place in places]))

    if expected.result == "error":
        assert found[0] == "error"
    elif expected.result == "done":
        assert ("done", expected.payload, expected.rest) == found
    else:
        assert ("incomplete", expected.payload) == found[:2]


@given(
    bodies,
    st.integers(0, 200),
    st.sampled_from([b"", b"\r", b"\n", b"\0", b";", b"5", b"x", b" ", b"\r\n"]),
    st.lists(st.integers(0, 400), max_size=8),
)
def test_damaged_chunked_against_reference(
    body: bytes, place: int, damage: bytes, places: list[int]
) -> None:
    """Damaged bodies are refused exactly where the grammar refuses them."""
    place = min(place, len(body))
    data = body[:place] + damage + body[place + 1 :]
    expected = Reference(data)

    found = decode(cut(data, [min(each, len(data)) for each in places]))

    assert found[0] == expected.result
