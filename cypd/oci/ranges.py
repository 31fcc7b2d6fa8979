"""Byte ranges of RFC 9110, section 14, and the ``Content-Range`` of chunked uploads."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from cypd.oci.errors import Code, OCIError

# RFC 9110 14.1.1: ranges-specifier = range-unit "=" range-set; each is int-range or suffix-range.
_RANGES = re.compile(r"bytes[ \t]*=[ \t]*(.*)", re.IGNORECASE | re.DOTALL)
_RANGE = re.compile(r"([0-9]*)-([0-9]*)", re.ASCII)
# zstd:chunked clients (containers/image) ask for up to 1,024 pieces at once.
MAX_RANGES = 1024
# Spec, section Pushing a blob in chunks: <range> must match ^[0-9]+-[0-9]+$. Nineteen digits are
# enough for 2^63, the largest offset a file has.
_CHUNK = re.compile(r"([0-9]{1,19})-([0-9]{1,19})", re.ASCII)


class ByteRange(NamedTuple):
    """The bytes from ``start`` up to, not including, ``stop``."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """How many bytes the range holds."""
        return self.stop - self.start


def parse_range(header: str, size: int) -> Sequence[ByteRange] | None:
    """Return the ranges that ``header`` asks of content of ``size`` bytes, ascending and disjoint.

    ``None``: there is no range to honour (another unit, or not well formed), so the whole content
    is the answer. Raises RANGE_INVALID (416) where no range is satisfiable, one ends before it
    starts, or more are asked than ``MAX_RANGES``. RFC 9110 14.2 lets a server ignore or reject an
    invalid range; the spec's conformance suite wants one that runs backwards rejected.
    """
    match = _RANGES.fullmatch(header)
    if not match:
        return None
    specs = [spec.strip(" \t") for spec in match[1].split(",")]
    if len(specs) > MAX_RANGES:
        raise unsatisfiable(size, f"at most {MAX_RANGES} ranges a request")
    ranges = []
    for spec in filter(None, specs):  # RFC 9110 5.6.1.2: empty list elements don't count
        parts = _RANGE.fullmatch(spec)
        if not parts or spec == "-":
            return None
        first, last = parts[1], parts[2]
        if first and last and _int(last) < _int(first):
            raise unsatisfiable(size, "a range ends before it starts")
        found = _resolve(first, last, size)
        if found:
            ranges.append(found)
    if not ranges:
        raise unsatisfiable(size)
    return _coalesced(ranges)


def _resolve(first: str, last: str, size: int) -> ByteRange | None:
    if not first:
        suffix = min(_int(last), size)
        return ByteRange(size - suffix, size) if suffix else None
    start = _int(first)
    stop = min(_int(last) + 1, size) if last else size
    return ByteRange(start, stop) if start < size else None


def _int(digits: str) -> int:
    # int() takes 4,300 digits at most; a number of a thousand is beyond every end already.
    return int(digits[:1000])


def _coalesced(ranges: list[ByteRange]) -> list[ByteRange]:
    # RFC 9110 14.2 and 17.15: overlapping ranges may be joined, so that no request can ask for
    # more bytes than the content has.
    ranges.sort()
    joined = [ranges[0]]
    for start, stop in ranges[1:]:
        if start <= joined[-1].stop:
            joined[-1] = ByteRange(joined[-1].start, max(joined[-1].stop, stop))
        else:
            joined.append(ByteRange(start, stop))
    return joined


def unsatisfiable(size: int, message: str | None = None) -> OCIError:
    """Return the 416 for content of ``size`` bytes (RFC 9110 15.5.17)."""
    return OCIError(Code.RANGE_INVALID, message, headers={b"content-range": b"bytes */%d" % size})


def parse_content_range(header: str) -> ByteRange:
    """Return the window of an upload's chunk; raise BLOB_UPLOAD_INVALID (416) for other forms."""
    match = _CHUNK.fullmatch(header)
    if not match or int(match[2]) < int(match[1]):
        raise OCIError(
            Code.BLOB_UPLOAD_INVALID, "Content-Range is <first>-<last>, both inclusive", status=416
        )
    return ByteRange(int(match[1]), int(match[2]) + 1)
