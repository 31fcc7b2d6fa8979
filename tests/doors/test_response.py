"""Response heads, pure."""

import pytest

from cypd.doors.plain.response import Framing, date_line, frame, read_head, serialise


def test_date() -> None:
    """The Date field has the form of RFC 9110 section 5.6.7."""
    assert date_line(784111777) == b"date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"a", b"b\r\nc: d"),
        (b"a", b"b\nc: d"),
        (b"a", b"b\rc"),
        (b"a", b"\r"),
        (b"a", b"b\0"),
        (b"a\r\nb", b"c"),
        (b"a\0", b"c"),
        (b"a", b"x\r\n\r\n<html>"),
    ],
)
def test_no_injection(name: bytes, value: bytes) -> None:
    """CR, LF and NUL never leave in a header."""
    with pytest.raises(ValueError, match="CR, LF or NUL"):
        read_head(200, [(name, value)])


@pytest.mark.parametrize("value", [b"", b"-1", b"+1", b"1.0", b"x"])
def test_bad_length(value: bytes) -> None:
    """A length that is no number is refused."""
    with pytest.raises(ValueError, match="content-length"):
        read_head(200, [(b"content-length", value)])


def test_two_lengths() -> None:
    """Two lengths are refused even if they are equal, whatever their case."""
    with pytest.raises(ValueError, match="content-length"):
        read_head(200, [(b"content-length", b"1"), (b"Content-Length", b"1")])


@pytest.mark.parametrize("status", [100, 101, 199, 600, 0, -1])
def test_bad_status(status: int) -> None:
    """Only final statuses can be sent."""
    with pytest.raises(ValueError, match="status"):
        read_head(status, [])


def test_framing_is_the_doors() -> None:
    """Hop-by-hop fields of the application are read and not sent."""
    head = read_head(200, [(b"Transfer-Encoding", b"chunked"), (b"connection", b"close")])

    assert head.close is True
    assert head.lines == b"HTTP/1.1 200 OK\r\n"


def test_unknown_status_has_an_empty_reason() -> None:
    """RFC 9112 section 4: the space stays when there is no reason phrase."""
    assert read_head(299, []).lines == b"HTTP/1.1 299 \r\n"


@pytest.mark.parametrize(
    ("status", "fields", "method", "version", "body", "framing", "length"),
    [
        (200, [], "GET", "1.1", 3, Framing.LENGTH, 3),
        (200, [], "GET", "1.1", 0, Framing.LENGTH, 0),
        (200, [], "GET", "1.1", None, Framing.CHUNKED, None),
        (200, [], "GET", "1.0", None, Framing.CLOSE, None),
        (200, [(b"content-length", b"7")], "GET", "1.1", None, Framing.LENGTH, 7),
        (200, [(b"content-length", b"7")], "HEAD", "1.1", 0, Framing.NONE, 7),
        (200, [], "HEAD", "1.1", 0, Framing.NONE, None),
        (200, [], "HEAD", "1.1", 5, Framing.NONE, 5),
        (204, [(b"content-length", b"0")], "GET", "1.1", 0, Framing.NONE, 0),
        (304, [(b"content-length", b"7")], "GET", "1.1", 0, Framing.NONE, 7),
        (304, [], "GET", "1.1", 0, Framing.NONE, None),
    ],
)
def test_frame(
    status: int,
    fields: list[tuple[bytes, bytes]],
    method: str,
    version: str,
    body: int | None,
    framing: Framing,
    length: int | None,
) -> None:
    """RFC 9112 section 6.3: each response has exactly one framing."""
    head = read_head(status, fields)

    assert frame(head, method=method, http_version=version, body=body) is framing
    assert head.length == length


def test_serialise() -> None:
    """A Date of the application stays the only one; the connection's fate is said."""
    head = read_head(200, [(b"Date", b"x")])
    raw = serialise(
        head, Framing.CHUNKED, date=b"date: y\r\n", http_version="1.1", keep_alive=False
    )

    assert raw == (
        b"HTTP/1.1 200 OK\r\nDate: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    )


def test_serialise_for_http_1_0() -> None:
    """An HTTP/1.0 client is told that the connection stays open."""
    raw = serialise(read_head(204, []), Framing.NONE, date=b"", http_version="1.0", keep_alive=True)

    assert raw == b"HTTP/1.1 204 No Content\r\nconnection: keep-alive\r\n\r\n"
