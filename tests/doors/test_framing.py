"""What the door refuses on the wire, and what it lets in: RFC 9112, byte by byte."""

import re

import pytest

from tests.doors.apps import Recorder
from tests.doors.conftest import OpenDoor

HOST = b"Host: a\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"


def head(*fields: bytes, line: bytes = b"POST / HTTP/1.1") -> bytes:
    return b"\r\n".join((line, b"Host: a", *fields, b"", b""))


def chunked(body: bytes) -> bytes:
    return head(b"Transfer-Encoding: chunked") + body


REFUSED: dict[str, tuple[int, bytes]] = {
    # Request line (RFC 9112 section 3)
    "two spaces after the method": (400, b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n"),
    "two spaces before the version": (400, b"GET /  HTTP/1.1\r\n" + HOST + b"\r\n"),
    "tab as separator": (400, b"GET\t/ HTTP/1.1\r\n" + HOST + b"\r\n"),
    "tab before the version": (400, b"GET /\tHTTP/1.1\r\n" + HOST + b"\r\n"),
    "space after the version": (400, b"GET / HTTP/1.1 \r\n" + HOST + b"\r\n"),
    "space before the method": (400, b" GET / HTTP/1.1\r\n" + HOST + b"\r\n"),
    "two blank lines first": (400, b"\r\n\r\nGET / HTTP/1.1\r\n" + HOST + b"\r\n"),
    "no version": (400, b"GET /\r\n" + HOST + b"\r\n"),
    "no target": (400, b"GET HTTP/1.1\r\n" + HOST + b"\r\n"),
    "empty target": (400, b"GET  HTTP/1.1\r\n" + HOST + b"\r\n"),
    "version in lower case": (400, b"GET / http/1.1\r\n" + HOST + b"\r\n"),
    "version with two digits": (400, b"GET / HTTP/11.1\r\n" + HOST + b"\r\n"),
    "version without a dot": (400, b"GET / HTTP/11\r\n" + HOST + b"\r\n"),
    "HTTP/0.9": (505, b"GET / HTTP/0.9\r\n" + HOST + b"\r\n"),
    "HTTP/1.2": (505, b"GET / HTTP/1.2\r\n" + HOST + b"\r\n"),
    "HTTP/2.0": (505, b"GET / HTTP/2.0\r\n" + HOST + b"\r\n"),
    "HTTP/3.0": (505, b"GET / HTTP/3.0\r\n" + HOST + b"\r\n"),
    "HTTP/2 preface": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "RTSP": (400, b"GET / RTSP/1.0\r\n" + HOST + b"\r\n"),
    "ICE": (400, b"SOURCE / ICE/1.0\r\n" + HOST + b"\r\n"),
    "TLS hello": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
    "method in lower case": (501, b"get / HTTP/1.1\r\n" + HOST + b"\r\n"),
    "method of nobody": (501, b"FROBNICATE / HTTP/1.1\r\n" + HOST + b"\r\n"),
    "method with a bad character": (400, b"G(T / HTTP/1.1\r\n" + HOST + b"\r\n"),
    "CONNECT": (501, b"CONNECT a:80 HTTP/1.1\r\n" + HOST + b"\r\n"),
    "CONNECT to a path": (501, b"CONNECT / HTTP/1.1\r\n" + HOST + b"\r\n"),
    # Target
    "relative target": (400, b"GET a HTTP/1.1\r\n" + HOST + b"\r\n"),
    "star for GET": (400, b"GET * HTTP/1.1\r\n" + HOST + b"\r\n"),
    "fragment": (400, b"GET /a#b HTTP/1.1\r\n" + HOST + b"\r\n"),
    "high byte in the target": (400, b"GET /\xff HTTP/1.1\r\n" + HOST + b"\r\n"),
    "NUL in the target": (400, b"GET /\x00 HTTP/1.1\r\n" + HOST + b"\r\n"),
    "DEL in the target": (400, b"GET /\x7f HTTP/1.1\r\n" + HOST + b"\r\n"),
    "control in the target": (400, b"GET /\x01 HTTP/1.1\r\n" + HOST + b"\r\n"),
    "malformed escape": (400, b"GET /%zz HTTP/1.1\r\n" + HOST + b"\r\n"),
    "cut escape": (400, b"GET /%2 HTTP/1.1\r\n" + HOST + b"\r\n"),
    "path not UTF-8": (400, b"GET /%ff HTTP/1.1\r\n" + HOST + b"\r\n"),
    "overlong UTF-8": (400, b"GET /%c0%af HTTP/1.1\r\n" + HOST + b"\r\n"),
    "surrogate in UTF-8": (400, b"GET /%ed%a0%80 HTTP/1.1\r\n" + HOST + b"\r\n"),
    "ftp target": (400, b"GET ftp://a/ HTTP/1.1\r\n" + HOST + b"\r\n"),
    "absolute target with user": (400, b"GET http://u@a/ HTTP/1.1\r\n" + HOST + b"\r\n"),
    "absolute target without host": (400, b"GET http:///a HTTP/1.1\r\n" + HOST + b"\r\n"),
    "target too long": (414, b"GET /" + b"a" * 8192 + b" HTTP/1.1\r\n" + HOST + b"\r\n"),
    "request line without end": (414, b"GET /" + b"a" * 33_000),
    # Host (section 3.2)
    "no Host": (400, b"GET / HTTP/1.1\r\n\r\n"),
    "no Host but other fields": (400, b"GET / HTTP/1.1\r\nAccept: x\r\n\r\n"),
    "two Hosts": (400, head(b"Host: b")),
    "two equal Hosts": (400, head(b"Host: a")),
    "two Hosts in HTTP/1.0": (400, head(b"Host: b", line=b"GET / HTTP/1.0")),
    "empty Host": (400, b"GET / HTTP/1.1\r\nHost:\r\n\r\n"),
    "blank Host": (400, b"GET / HTTP/1.1\r\nHost:   \r\n\r\n"),
    "Host with a path": (400, b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    "Host with a user": (400, b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"),
    "Host with a comma list": (400, b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"),
    "Host with a bad port": (400, b"GET / HTTP/1.1\r\nHost: a:x\r\n\r\n"),
    "Host with a space": (400, b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
    "Host with a high byte": (400, b"GET / HTTP/1.1\r\nHost: \xe4\r\n\r\n"),
    "Host of an open bracket": (400, b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n"),
    # Field lines (section 5)
    "space before the colon": (400, head(b"A : b")),
    "tab before the colon": (400, head(b"A\t: b")),
    "space in a name": (400, head(b"A B: c")),
    "no name": (400, head(b": b")),
    "no colon": (400, head(b"Ab")),
    "control in a name": (400, head(b"A\x01: b")),
    "NUL in a name": (400, head(b"A\x00: b")),
    "high byte in a name": (400, head(b"A\xe4: b")),
    "parenthesis in a name": (400, head(b"A(b): c")),
    "NUL in a value": (400, head(b"A: \x00")),
    "control in a value": (400, head(b"A: \x01")),
    "vertical tab in a value": (400, head(b"A: \x0b")),
    "DEL in a value": (400, head(b"A: \x7f")),
    "obs-fold with a space": (400, head(b"A: b\r\n c")),
    "obs-fold with a tab": (400, head(b"A: b\r\n\tc")),
    "folded first field": (400, b"GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    "bare CR in a value": (400, head(b"A: b\rc")),
    "bare CR at the end of a value": (400, head(b"A: b\r")),
    "bare LF after a field": (400, b"GET / HTTP/1.1\r\nHost: a\nA: b\r\n\r\n"),
    "bare LF after the request line": (400, b"GET / HTTP/1.1\nHost: a\r\n\r\n"),
    "bare LF only": (400, b"GET / HTTP/1.1\nHost: a\n\n"),
    "bare LF as the blank line": (400, b"GET / HTTP/1.1\r\nHost: a\r\n\n"),
    "too many fields": (431, head(*(b"A%d: b" % number for number in range(100)))),
    "a thousand fields": (431, head(*(b"A%d: b" % number for number in range(1000)))),
    "head too large": (431, head(b"A: " + b"b" * 33_000)),
    "head of 64 KiB": (431, head(b"A: " + b"b" * 65_536)),
    "head without end": (431, b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 6000),
    # Content-Length (section 6.2)
    "length with a plus": (400, head(b"Content-Length: +5") + b"12345"),
    "length with a minus": (400, head(b"Content-Length: -5") + b"12345"),
    "length in hex": (400, head(b"Content-Length: 0x10") + b"12345"),
    "length with a fraction": (400, head(b"Content-Length: 5.0") + b"12345"),
    "length with an exponent": (400, head(b"Content-Length: 1e2") + b"12345"),
    "length with an underscore": (400, head(b"Content-Length: 1_0") + b"12345"),
    "length of a foreign digit": (400, head("Content-Length: ٥".encode()) + b"12345"),
    "length in quotes": (400, head(b'Content-Length: "5"') + b"12345"),
    "length with a space inside": (400, head(b"Content-Length: 1 0") + b"12345"),
    "empty length": (400, head(b"Content-Length:") + b"12345"),
    "length beyond 64 bits": (400, head(b"Content-Length: 18446744073709551617") + b"12345"),
    "length beyond 63 bits": (400, head(b"Content-Length: 9223372036854775808") + b"12345"),
    "two lengths": (400, head(b"Content-Length: 5", b"Content-Length: 6") + b"123456"),
    "two equal lengths": (400, head(b"Content-Length: 5", b"Content-Length: 5") + b"12345"),
    "list of lengths": (400, head(b"Content-Length: 5, 5") + b"12345"),
    "length ends in a comma": (400, head(b"Content-Length: 5,") + b"12345"),
    "space before the length's colon": (400, head(b"Content-Length : 5") + b"12345"),
    # Transfer-Encoding (section 6.1)
    "length and coding": (
        400,
        head(b"Content-Length: 5", b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
    ),
    "coding and length": (
        400,
        head(b"Transfer-Encoding: chunked", b"Content-Length: 5") + b"0\r\n\r\n",
    ),
    "length and identity": (400, head(b"Content-Length: 5", b"Transfer-Encoding: identity")),
    "space before the coding's colon": (400, head(b"Transfer-Encoding : chunked") + b"0\r\n\r\n"),
    "xchunked": (400, head(b"Transfer-Encoding: xchunked") + b"0\r\n\r\n"),
    "chunkedx": (400, head(b"Transfer-Encoding: chunkedx") + b"0\r\n\r\n"),
    "chunked in quotes": (400, head(b'Transfer-Encoding: "chunked"') + b"0\r\n\r\n"),
    "chunked with a parameter": (400, head(b"Transfer-Encoding: chunked;a=b") + b"0\r\n\r\n"),
    "vertical tab before chunked": (400, head(b"Transfer-Encoding: \x0bchunked") + b"0\r\n\r\n"),
    "identity": (400, head(b"Transfer-Encoding: identity")),
    "empty coding": (400, head(b"Transfer-Encoding:") + b"0\r\n\r\n"),
    "gzip": (400, head(b"Transfer-Encoding: gzip")),
    "chunked, gzip": (400, head(b"Transfer-Encoding: chunked, gzip")),
    "chunked, chunked": (400, head(b"Transfer-Encoding: chunked, chunked")),
    "chunked, identity": (400, head(b"Transfer-Encoding: chunked, identity")),
    "chunked twice": (400, head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked")),
    "chunked, then identity": (
        400,
        head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"),
    ),
    "gzip, chunked": (501, head(b"Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n"),
    "gzip, then chunked": (501, head(b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked")),
    "folded coding": (400, head(b"Transfer-Encoding:\r\n chunked") + b"0\r\n\r\n"),
    "chunked in HTTP/1.0": (
        400,
        head(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.0") + b"0\r\n\r\n",
    ),
    # Chunks (section 7.1)
    "empty chunk size": (400, chunked(b"\r\n0\r\n\r\n")),
    "chunk size in 0x": (400, chunked(b"0x5\r\n12345\r\n0\r\n\r\n")),
    "chunk size with a plus": (400, chunked(b"+5\r\n12345\r\n0\r\n\r\n")),
    "chunk size with a minus": (400, chunked(b"-5\r\n12345\r\n0\r\n\r\n")),
    "chunk size with an underscore": (400, chunked(b"0_5\r\n12345\r\n0\r\n\r\n")),
    "chunk size not hex": (400, chunked(b"g\r\n12345\r\n0\r\n\r\n")),
    "space before the chunk size": (400, chunked(b" 5\r\n12345\r\n0\r\n\r\n")),
    "space after the chunk size": (400, chunked(b"5 \r\n12345\r\n0\r\n\r\n")),
    "chunk size overflow": (400, chunked(b"ffffffffffffffff5\r\n12345\r\n0\r\n\r\n")),
    "chunk size of 64 bits": (400, chunked(b"8000000000000000\r\n12345\r\n0\r\n\r\n")),
    "bare LF after the chunk size": (400, chunked(b"5\n12345\r\n0\r\n\r\n")),
    "bare CR after the chunk size": (400, chunked(b"5\r12345\r\n0\r\n\r\n")),
    "bare LF after the chunk": (400, chunked(b"5\r\n12345\n0\r\n\r\n")),
    "nothing after the chunk": (400, chunked(b"5\r\n123450\r\n\r\n")),
    "chunk longer than its size": (400, chunked(b"5\r\n123456\r\n0\r\n\r\n")),
    "CR but no LF after the chunk": (400, chunked(b"5\r\n12345\rX0\r\n\r\n")),
    "LF in an extension": (400, chunked(b"5;a\nb\r\n12345\r\n0\r\n\r\n")),
    "CR in an extension": (400, chunked(b"5;a\rb\r\n12345\r\n0\r\n\r\n")),
    "NUL in an extension": (400, chunked(b"5;\x00\r\n12345\r\n0\r\n\r\n")),
    "extension without semicolon": (400, chunked(b"5 a=b\r\n12345\r\n0\r\n\r\n")),
    "extensions of 4 KiB": (400, chunked((b"1;" + b"a" * 4096 + b"\r\nx\r\n") * 4)),
    "extension without end": (400, chunked(b"5;" + b"a" * 5000)),
    "long extensions on small chunks": (400, chunked((b"1;" + b"a" * 60 + b"\r\nx\r\n") * 40)),
    "bare LF at the end": (400, chunked(b"0\r\n\n")),
    "last chunk runs into a request": (400, chunked(b"0\r\n")),
    "trailer without colon": (400, chunked(b"0\r\nab\r\n\r\n")),
    "trailer with a space in its name": (400, chunked(b"0\r\na b: c\r\n\r\n")),
    "trailer folded": (400, chunked(b"0\r\na: b\r\n c\r\n\r\n")),
    "trailer with NUL": (400, chunked(b"0\r\na: \x00\r\n\r\n")),
    "trailers too large": (400, chunked(b"0\r\n" + b"a: b\r\n" * 3000 + b"\r\n")),
    "trailer without end": (400, chunked(b"0\r\na: " + b"b" * 9000)),
    # Expect (RFC 9110 section 10.1.1)
    "unknown expectation": (417, head(b"Expect: 200-ok", b"Content-Length: 5") + b"12345"),
    "two expectations": (417, head(b"Expect: 100-continue", b"Expect: 100-continue")),
    "obfuscated expectation": (417, head(b"Expect: y 100-continue")),
}

TAKEN: dict[str, tuple[bytes, bytes]] = {
    "one blank line first": (b"\r\n" + head(line=b"GET / HTTP/1.1"), b""),
    "high byte in a value": (head(b"A: \xe4"), b""),
    "empty value": (head(b"A:"), b""),
    "white space around a value": (head(b"A: \t b \t "), b""),
    "length": (head(b"Content-Length: 5") + b"12345", b"12345"),
    "length with white space": (head(b"Content-Length: \t5 \t") + b"12345", b"12345"),
    "length with leading zeros": (head(b"Content-Length: 0005") + b"12345", b"12345"),
    "chunked": (chunked(b"5\r\n12345\r\n0\r\n\r\n"), b"12345"),
    "Chunked in capitals": (head(b"Transfer-Encoding: CHUNKED") + b"1\r\nx\r\n0\r\n\r\n", b"x"),
    "two chunks": (chunked(b"2\r\n12\r\n003\r\n345\r\n000\r\n\r\n"), b"12345"),
    "size in capitals": (chunked(b"A\r\n0123456789\r\n0\r\n\r\n"), b"0123456789"),
    "extension": (chunked(b'5;a="b c";d\r\n12345\r\n0;e\r\n\r\n'), b"12345"),
    "extension after white space": (chunked(b"5 ; a=b\r\n12345\r\n0\r\n\r\n"), b"12345"),
    "trailer": (chunked(b"5\r\n12345\r\n0\r\nA: b\r\nHost: c\r\n\r\n"), b"12345"),
    "small chunks": (chunked(b"1\r\nx\r\n" * 3000 + b"0\r\n\r\n"), b"x" * 3000),
    "upgrade to HTTP/2": (head(b"Connection: Upgrade", b"Upgrade: h2c"), b""),
    "expectation in capitals": (
        head(b"Expect: 100-Continue", b"Content-Length: 5") + b"12345",
        b"12345",
    ),
    "absolute target": (b"GET http://b:80/p HTTP/1.1\r\n" + HOST + b"\r\n", b""),
    "OPTIONS *": (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", b""),
    "body of a GET": (head(b"Content-Length: 2", line=b"GET / HTTP/1.1") + b"ab", b"ab"),
    "one hundred fields": (head(*(b"A%d: b" % number for number in range(99))), b""),
}


def statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1.1 (\d{3})", received)]


@pytest.mark.parametrize("name", REFUSED)
async def test_refused(open_door: OpenDoor, name: str) -> None:
    """What is not RFC 9112 gets its status once, and nothing after it counts as a request."""
    recorder = Recorder()
    opened = await open_door(recorder)
    status, data = REFUSED[name]

    received = await opened.ask(data + SMUGGLED)

    assert [status] == statuses(received)
    assert b"connection: close\r\n" in received
    assert all(scope["path"] != "/smuggled" for scope in recorder.scopes)
    assert all(not complete for _, complete in recorder.bodies)


@pytest.mark.parametrize("name", TAKEN)
async def test_taken(open_door: OpenDoor, name: str) -> None:
    """Unusual but valid requests are understood, and the next one is found behind them."""
    recorder = Recorder()
    opened = await open_door(recorder)
    data, body = TAKEN[name]
    client = await opened.client()

    await client.send(data + SMUGGLED)
    answers = [await client.answer(), await client.answer()]

    assert [200, 200] == [answer.status for answer in answers]
    assert [(body, True), (b"", True)] == recorder.bodies
    assert recorder.scopes[1]["path"] == "/smuggled"


def test_enough() -> None:
    """The table does not shrink unnoticed."""
    assert len(REFUSED) >= 100


async def test_missing_final_crlf(open_door: OpenDoor) -> None:
    """A chunked body that ends before its last CRLF is not taken for whole."""
    recorder = Recorder()
    opened = await open_door(recorder)
    client = await opened.client()

    await client.send(chunked(b"5\r\n12345\r\n0\r\n"))
    client.finish()
    await client.read_all()

    assert [(b"12345", False)] == recorder.bodies
