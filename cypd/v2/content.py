"""Sending content: whole, in ranges, from memory or straight from a file."""

import secrets
from collections.abc import Sequence
from contextlib import aclosing

from cypd.doors.asgi import ZEROCOPY_SEND
from cypd.oci.digest import Digest
from cypd.oci.ranges import ByteRange, parse_range
from cypd.registry.ports import Content, Inline, LocalFile, Remote
from cypd.v2.call import Call, Headers

# What has a digest never changes; a year is the longest RFC 9111's predecessors meant.
IMMUTABLE = (b"cache-control", b"max-age=31536000, immutable")


def identity(digest: Digest) -> Headers:
    """Return the headers that name content: its digest, for OCI and for HTTP caches."""
    raw = digest.encode()
    return [(b"docker-content-digest", raw), (b"etag", b'"%s"' % raw)]


def is_known(call: Call, digest: Digest) -> bool:
    """Tell whether the client says that it has this content (RFC 9110 13.1.2: 304 then)."""
    condition = call.header(b"if-none-match")
    if condition is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in condition.split(",")]
    return f'"{digest}"' in tags or tags == ["*"]


def requested_ranges(call: Call, digest: Digest, size: int) -> Sequence[ByteRange] | None:
    """Return the ranges to send; ``None`` for the whole (RFC 9110 14.2, 13.1.5)."""
    header = call.header(b"range")
    if header is None or call.is_head:
        return None
    if call.header(b"if-range") not in (None, f'"{digest}"'):
        return None
    return parse_range(header, size)


async def send_content(
    call: Call, content: Content, headers: Headers, ranges: Sequence[ByteRange] | None
) -> None:
    """Answer with the content, or with the ranges of it."""
    if ranges is None:
        await call.start(200, [*headers, (b"content-length", b"%d" % content.size)])
        await _send_piece(call, content, ByteRange(0, content.size), more=False)
    elif len(ranges) == 1:
        found = ranges[0]
        span = _content_range(found, content.size)
        length = (b"content-length", b"%d" % found.size)
        await call.start(206, [*headers, (b"content-range", span), length])
        await _send_piece(call, content, found, more=False)
    else:
        await _send_multipart(call, content, headers, ranges)


def _content_range(found: ByteRange, size: int) -> bytes:
    return b"bytes %d-%d/%d" % (found.start, found.stop - 1, size)


async def _send_multipart(
    call: Call, content: Content, headers: Headers, ranges: Sequence[ByteRange]
) -> None:
    # RFC 9110 14.6: each part has its own Content-Type and Content-Range. The boundary is random,
    # so that nobody can push content that holds it.
    boundary = secrets.token_hex(16).encode()
    media_type = dict(headers)[b"content-type"]
    heads = [
        b"\r\n--%s\r\ncontent-type: %s\r\ncontent-range: %s\r\n\r\n"
        % (boundary, media_type, _content_range(found, content.size))
        for found in ranges
    ]
    end = b"\r\n--%s--\r\n" % boundary
    length = sum(map(len, heads)) + sum(found.size for found in ranges) + len(end)
    kept = [header for header in headers if header[0] != b"content-type"]
    multipart = (b"content-type", b"multipart/byteranges; boundary=" + boundary)
    await call.start(206, [*kept, multipart, (b"content-length", b"%d" % length)])
    for head, found in zip(heads, ranges, strict=True):
        await call.send({"type": "http.response.body", "body": head, "more_body": True})
        await _send_piece(call, content, found, more=True)
    await call.send({"type": "http.response.body", "body": end})


async def _send_piece(call: Call, content: Content, piece: ByteRange, *, more: bool) -> None:
    if isinstance(content, Inline):
        body = content.data[piece.start : piece.stop]
        await call.send({"type": "http.response.body", "body": body, "more_body": more})
    elif isinstance(content, Remote):
        await _send_remote(call, content, piece, more=more)
    else:
        await _send_file(call, content, piece, more=more)


async def _send_remote(call: Call, content: Remote, piece: ByteRange, *, more: bool) -> None:
    left = piece.size
    async with aclosing(content.read(piece.start, piece.size)) as bodies:
        async for body in bodies:
            left -= len(body)
            is_last = left == 0 and not more
            await call.send({"type": "http.response.body", "body": body, "more_body": not is_last})


async def _send_file(call: Call, content: LocalFile, piece: ByteRange, *, more: bool) -> None:
    await call.send(
        {
            "type": ZEROCOPY_SEND,
            "file": content.fileno(),
            "offset": piece.start,
            "count": piece.size,
            "more_body": more,
        }
    )
