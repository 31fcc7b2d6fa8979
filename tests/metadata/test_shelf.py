"""Shelves against a sorted list: whatever goes in and out, positions are those of the list."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import hypothesis.strategies as st
import lmdb
import pytest
from hypothesis import example, given, settings

from cypd.metadata.lmdb.chunk import FULL, Wanted
from cypd.metadata.lmdb.shelf import Shelf

SET, BEFORE, AFTER = b"n1", b"m", b"o"
texts = st.text(alphabet="aAbB19.-_", min_size=1, max_size=4)
# Long enough for several chunks, in any order; the same names come again.
series = st.tuples(st.integers(0, 900), st.integers(1, 700), st.sampled_from([1, -1, 7, 389])).map(
    lambda it: [f"v{(it[0] + i * it[2]) % 1000}" for i in range(it[1])]
)
changes = st.lists(
    st.tuples(st.booleans(), st.one_of(series, st.lists(texts, max_size=9))), max_size=5
)
windows = st.tuples(st.integers(0, 1100), st.integers(0, 300), st.booleans())


@contextmanager
def shelves() -> Iterator[tuple[Shelf, lmdb.Transaction]]:
    """A database whose other sets hold a name each, in a write transaction."""
    with (
        tempfile.TemporaryDirectory() as folder,
        lmdb.open(folder, map_size=64 << 20, max_dbs=1, sync=False, lib_version=0) as environment,
    ):
        shelf = Shelf(environment.open_db(b"shelves"))
        with environment.begin(write=True) as txn:
            for other in (BEFORE, AFTER):
                shelf.add(txn, other, b"v5")
            yield shelf, txn


@settings(max_examples=60, deadline=None)
@given(
    changes,
    windows,
    st.one_of(texts, st.sampled_from(["v", "9", "99", "V1", "v12", "V12", "123", "0999", "x123"])),
)
@example([(True, [f"v{i:04}" for i in range(3 * FULL)])], (2 * FULL, 1, False), "0")
def test_a_shelf_is_a_sorted_set(
    steps: list[tuple[bool, list[str]]], window: tuple[int, int, bool], needle: str
) -> None:
    """Counts, pages from either end and searches are those of the sorted names."""
    offset, limit, reverse = window
    model: set[bytes] = set()
    with shelves() as (shelf, txn):
        for is_added, names in steps:
            for name in map(str.encode, names):
                change = shelf.add if is_added else shelf.remove
                assert change(txn, SET, name) is ((name in model) is not is_added)
                (model.add if is_added else model.discard)(name)
        expected = sorted(model, reverse=reverse)
        exact = [it for it in expected if needle.encode() in it]
        folded = [it for it in expected if needle.lower().encode() in it.lower()]

        assert len(expected) == shelf.count(txn, SET)
        page = shelf.page(txn, SET, offset, limit, reverse=reverse)
        assert expected[offset : offset + limit] == page
        wanted = Wanted(needle, ignore_case=False)
        found = shelf.search(txn, SET, wanted, offset, limit, reverse=reverse)
        assert (exact[offset : offset + limit], len(exact)) == found
        wanted = Wanted(needle.lower(), ignore_case=True)
        found = shelf.search(txn, SET, wanted, offset, limit, reverse=reverse)
        assert (folded[offset : offset + limit], len(folded)) == found
        assert [[b"v5"], [b"v5"]] == [shelf.page(txn, other, 0, 9) for other in (BEFORE, AFTER)]


@pytest.mark.parametrize("step", [1, -1, 389])
def test_names_fill_chunks(step: int) -> None:
    """In whatever order they come, there are few rows; what is taken out again leaves none."""
    names = [b"%04d" % (i * step % 1000) for i in range(1000)]
    with shelves() as (shelf, txn):
        rows = txn.stat(shelf.database)["entries"]
        for name in names:
            shelf.add(txn, SET, name)
        added = txn.stat(shelf.database)["entries"] - rows
        for name in names:
            shelf.remove(txn, SET, name)

        assert added <= 1 + 2 * 1000 // FULL + 1
        assert rows == txn.stat(shelf.database)["entries"]
