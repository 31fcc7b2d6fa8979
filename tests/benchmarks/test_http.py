"""What the measuring client puts on the wire."""

from benchmarks.http import CHUNK, in_chunks


def test_a_body_in_chunks_can_be_put_together_again() -> None:
    """Sizes in hexadecimal, a last chunk of zero (RFC 9112, section 7.1)."""
    content = bytes(range(256)) * (CHUNK // 256) + b"rest"

    assert b"".join(in_chunks(memoryview(content))) == (
        b"8000\r\n" + content[:CHUNK] + b"\r\n4\r\nrest\r\n0\r\n\r\n"
    )
