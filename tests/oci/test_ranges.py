"""Ranges against a slow reference, and the forms that are ignored or refused."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cypd.oci.errors import OCIError
from cypd.oci.ranges import MAX_RANGES, ByteRange, parse_content_range, parse_range

numbers = st.integers(0, 40) | st.sampled_from([2**63, 2**64, 10**30])
specs = st.one_of(
    st.builds("{}-{}".format, numbers, numbers),
    st.builds("{}-".format, numbers),
    st.builds("-{}".format, numbers),
)


def _reference(specs: list[str], size: int) -> set[int]:
    """The bytes a list of ranges asks for, one at a time; none if one runs backwards."""
    wanted: set[int] = set()
    for spec in specs:
        first, last = spec.split("-")
        if first and last and int(last) < int(first):
            return set()
        if first:
            wanted |= {i for i in range(size) if int(first) <= i <= int(last or size)}
        else:
            wanted |= {i for i in range(size) if i >= size - int(last)}
    return wanted


@given(st.lists(specs, min_size=1, max_size=6), st.integers(0, 30))
def test_ranges_are_the_bytes_that_were_asked_for(specs: list[str], size: int) -> None:
    """Every asked byte once, ascending, no other byte; 416 if there is none."""
    expected = _reference(specs, size)
    try:
        found = parse_range("bytes=" + ", ".join(specs), size)
    except OCIError as refusal:
        assert expected == set()
        assert refusal.status == 416
        assert refusal.headers == {b"content-range": b"bytes */%d" % size}
        return

    assert found is not None
    assert sorted(expected) == [i for start, stop in found for i in range(start, stop)]
    assert all(before.stop < after.start for before, after in pairwise(found))


@given(st.text(max_size=20) | st.text("bytes=0123456789-, ", max_size=20).map("bytes=".__add__))
def test_any_header_is_ranges_or_none_or_416(header: str) -> None:
    """No header raises anything but a 416."""
    try:
        found = parse_range(header, 100)
    except OCIError as refusal:
        assert refusal.status == 416
    else:
        assert found is None or all(0 <= start < stop <= 100 for start, stop in found)


@pytest.mark.parametrize(
    "header", ["", "bytes", "bytes=a-b", "items=0-1", "bytes=-", "bytes=0-1;2-3"]
)
def test_what_is_no_range_is_ignored(header: str) -> None:
    """RFC 9110 14.2: another unit or a malformed range gets the whole content."""
    assert parse_range(header, 10) is None


def test_a_thousand_pieces_are_served_and_more_are_refused() -> None:
    """zstd:chunked clients ask for up to 1,024 ranges; a longer list is 416."""
    header = "bytes=" + ",".join(f"{i * 2}-{i * 2}" for i in range(MAX_RANGES))
    found = parse_range(header, 4096)

    assert found is not None
    assert len(found) == MAX_RANGES
    with pytest.raises(OCIError):
        parse_range(header + ",4000-4001", 4096)


def test_overlapping_ranges_never_add_up_to_more_than_there_is() -> None:
    """RFC 9110 17.15: a thousand times the whole content is sent once."""
    assert parse_range("bytes=" + ",".join(["0-"] * 1000), 100) == [ByteRange(0, 100)]


@given(st.integers(0, 2**62), st.integers(0, 2**62))
def test_a_chunks_window_is_what_its_header_says(first: int, last: int) -> None:
    """Both ends are inclusive, and in order."""
    if first <= last:
        assert parse_content_range(f"{first}-{last}") == ByteRange(first, last + 1)
    else:
        with pytest.raises(OCIError):
            parse_content_range(f"{first}-{last}")


@pytest.mark.parametrize(
    "header", ["", "bytes=0-1", "bytes 0-1/2", "-1", "1-", "0x0-1", "-5-10", "0-" + "9" * 20, "٣-٤"]
)
def test_other_content_ranges_are_416(header: str) -> None:
    """The spec has one form only."""
    assert not re.fullmatch(r"[0-9]{1,19}-[0-9]{1,19}", header, re.ASCII)
    with pytest.raises(OCIError) as refusal:
        parse_content_range(header)

    assert refusal.value.status == 416
