"""Hashes whose state travels."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cypd.oci.digest import Algorithm
from cypd.storage.s3 import running
from cypd.storage.s3.running import is_resumable, running_hash, state_of

ALGORITHMS = st.sampled_from(["sha256", "sha512"])


@given(ALGORITHMS, st.lists(st.binary(max_size=300), max_size=6))
def test_a_state_is_gone_on_with(algorithm: Algorithm, pieces: list[bytes]) -> None:
    """Wherever a hash is put down and taken up again, it ends as hashlib's does."""
    current = running_hash(algorithm)
    for number, piece in enumerate(pieces):
        current.update(piece if number % 2 else memoryview(bytearray(piece)))
        state = state_of(current)
        assert state is not None
        assert is_resumable(algorithm, state)
        current = running_hash(algorithm, state)

    assert current.hexdigest() == hashlib.new(algorithm, b"".join(pieces)).hexdigest()
    assert current.hexdigest() == current.copy().hexdigest()


def test_a_copy_goes_its_own_way() -> None:
    """What one of two sees is nothing to the other; a read-only view is as good as bytes."""
    one = running_hash("sha256")
    one.update(b"content")
    two = one.copy()
    two.update(memoryview(b" and more"))

    assert one.hexdigest() == hashlib.sha256(b"content").hexdigest()
    assert two.hexdigest() == hashlib.sha256(b"content and more").hexdigest()


def test_without_the_library_there_is_no_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """hashlib does the work then, and what was written down is of no use."""
    state = state_of(running_hash("sha256"))
    assert state is not None
    monkeypatch.setattr(running, "_FUNCTIONS", {})
    current = running_hash("sha256")
    current.update(b"content")

    assert current.hexdigest() == hashlib.sha256(b"content").hexdigest()
    assert state_of(current) is None
    assert not is_resumable("sha256", state)


def test_a_library_that_hashes_otherwise_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its results are looked at before it is trusted."""
    functions = running._load()["sha256"]
    monkeypatch.setattr(functions, "update", lambda *_: 0)

    assert not running._is_right("sha256", functions)
