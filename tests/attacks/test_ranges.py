"""Ranges that ask for more than there is, and files that are less than they were."""

import os
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cypd.oci.digest import Digest
from tests.attacks.content import push_blob
from tests.attacks.watch import MIB, anonymous_memory, descriptors, eventually, kept
from tests.attacks.wire import Wire, ask, request
from tests.daemon import Daemon

_CONTENT = random.Random(55).randbytes(300_000)
_SMALL = b"a blob answered from memory"
_LARGE = random.Random(5).randbytes(12 << 20)
_PART = 200  # bytes that a boundary, a type and a range take, generously


@pytest.fixture(scope="module")
def blob(daemon: Daemon) -> str:
    """Return the path of a blob that is sent as a file."""
    return f"/v2/ranges/blobs/{push_blob(daemon, 'ranges', _CONTENT)}"


def _some(count: int, step: int, size: int) -> str:
    return "bytes=" + ",".join(f"{at * step}-{at * step + size - 1}" for at in range(count))


@pytest.mark.parametrize(
    "ranges",
    [
        "bytes=" + ",".join(["0-"] * 1000),
        "bytes=" + ",".join(["0-299999"] * 1000),
        "bytes=" + ",".join(["-300000"] * 1000),
        "bytes=" + ",".join(f"{start}-" for start in range(1000)),
        "bytes=" + ",".join(f"-{count}" for count in range(1, 1001)),
        "bytes=" + ",".join(f"{start}-{start + 1}" for start in range(1000)),
        _some(1000, 300, 1),
        _some(1000, 300, 300),
        _some(1024, 290, 289),
        "bytes=" + ",".join(reversed(_some(1000, 300, 2)[6:].split(","))),
        "bytes=0-0," + "," * 1000 + "-1",
    ],
    ids=lambda it: it[:24],
)
def test_many_ranges_never_multiply_the_bytes(daemon: Daemon, blob: str, ranges: str) -> None:
    """However they overlap, no byte of the blob is sent twice."""
    before = anonymous_memory(daemon)
    answer = ask(daemon.port, "GET", blob, fields=[("Range", ranges)])
    parts = max(1, answer.body.count(b"content-range: bytes "))

    assert answer.status in (200, 206)
    assert len(answer.body) <= len(_CONTENT) + parts * _PART
    assert anonymous_memory(daemon) - before <= 16 * MIB
    for first, last, data in _parts(answer.body):
        assert data == _CONTENT[first : last + 1]


def _parts(body: bytes) -> Iterator[tuple[int, int, bytes]]:
    head = re.compile(rb"content-range: bytes ([0-9]+)-([0-9]+)/300000\r\n\r\n")
    for match in head.finditer(body):
        first, last = int(match[1]), int(match[2])
        yield first, last, body[match.end() : match.end() + last - first + 1]


@pytest.mark.parametrize(
    ("ranges", "status"),
    [
        ("bytes=-0", 416),
        ("bytes=-0,-0", 416),
        ("bytes=300000-", 416),
        ("bytes=300000-300001,400000-", 416),
        ("bytes=9223372036854775807-", 416),
        ("bytes=9223372036854775808-9223372036854775809", 416),
        ("bytes=18446744073709551616-", 416),
        (f"bytes={'9' * 20_000}-", 416),
        ("bytes=5-4", 416),
        ("bytes=", 416),
        ("bytes=,,,", 416),
        (_some(1025, 200, 1), 416),
        ("bytes=0-18446744073709551616", 206),
        ("bytes=-18446744073709551616", 206),
        (f"bytes=299999-{'9' * 20_000}", 206),
        (f"bytes={'0' * 900}5-", 206),
        ("bytes=-", 200),
        ("bytes=--1", 200),
        ("bytes=+1-2", 200),
        ("bytes=0x0-0x1", 200),
        ("bytes=1.5-2", 200),
        ("bytes=\xb2-\xb3", 200),
        ("bytes", 200),
        ("lines=0-1", 200),
        ("bytes=0-1;2-3", 200),
        ("bytes=0-1, bytes=2-3", 200),
        ("", 200),
    ],
    ids=lambda it: repr(it)[:30],
)
def test_odd_ranges_are_refused_or_ignored(
    daemon: Daemon, blob: str, ranges: str, status: int
) -> None:
    """Not satisfiable is 416, not well formed is the whole blob; numbers have no largest one."""
    answer = ask(daemon.port, "GET", blob, fields=[("Range", ranges)])

    assert answer.status == status
    if status == 416:
        assert answer.headers["content-range"] == "bytes */300000"
    elif status == 200:
        assert answer.body == _CONTENT
    else:
        start = int(answer.headers["content-range"].split(" ")[1].split("-")[0])
        assert answer.body == _CONTENT[start:]


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon whose files the tests damage; it may well complain."""
    with Daemon(tmp_path_factory.mktemp("damaged")) as daemon:
        yield daemon


@pytest.fixture
def damaged(patient: Daemon) -> Daemon:
    """The daemon with a small and a large blob, whole until the test damages them."""
    push_blob(patient, "damaged", _SMALL)
    push_blob(patient, "damaged", _LARGE)
    return patient


def _file(daemon: Daemon, content: bytes) -> Path:
    digest = Digest.of(content)
    return daemon.state / "blobs" / "sha256" / digest.hex[:2] / digest.hex


@pytest.mark.parametrize("content", [_SMALL, _LARGE], ids=["small", "large"])
@pytest.mark.parametrize("change", ["shortened", "emptied", "lengthened", "gone"])
def test_a_damaged_blob_is_no_blob(damaged: Daemon, content: bytes, change: str) -> None:
    """GET says that it is our fault, HEAD that it has to be pushed again; that heals it."""
    content += change.encode()  # a blob that no test has pulled: small ones stay in memory
    push_blob(damaged, "damaged", content)
    file = _file(damaged, content)
    if change == "gone":
        file.unlink()
    else:
        size = {"shortened": len(content) - 1, "emptied": 0, "lengthened": len(content) + 1}
        os.truncate(file, size[change])
    target = f"/v2/damaged/blobs/{Digest.of(content)}"

    assert ask(damaged.port, "GET", target).status == 500
    assert ask(damaged.port, "GET", target, fields=[("Range", "bytes=0-0")]).status == 500
    assert ask(damaged.port, "HEAD", target).status == 404
    push_blob(damaged, "damaged", content)
    assert ask(damaged.port, "GET", target).body == content


@pytest.mark.parametrize("left", [0, 1, len(_LARGE) // 2, len(_LARGE) - 1])
def test_a_blob_shortened_while_it_is_sent_is_cut_off(damaged: Daemon, left: int) -> None:
    """What came until then is right, what is missing is missing: no padding, no next answer."""
    before = descriptors(damaged)
    target = f"/v2/damaged/blobs/{Digest.of(_LARGE)}"
    with Wire(damaged.port, receive_buffer=4096) as wire:
        wire.send(request("GET", target) + request("GET", "/v2/"))
        head = wire.head()
        start = wire.take(100)
        assert f"content-length: {len(_LARGE)}".encode() in head
        os.truncate(_file(damaged, _LARGE), left)
        received = start + wire.rest()

    assert len(received) < len(_LARGE)
    # What is in the socket shares its pages with the file: sendfile(2) promises no copy.
    assert received[:left] == _LARGE[: min(left, len(received))]
    assert b"HTTP/1.1" not in received[-200:]
    assert eventually(lambda: not kept(damaged, before))
    assert damaged.request("GET", "/v2/").status == 200


def test_a_part_shortened_while_it_is_sent_is_cut_off(damaged: Daemon) -> None:
    """Neither does a multipart answer go on behind a part that is not whole."""
    half = len(_LARGE) // 2
    ranges = [("Range", f"bytes=0-{half - 1},{half + 1}-")]
    with Wire(damaged.port, receive_buffer=4096) as wire:
        wire.send(request("GET", f"/v2/damaged/blobs/{Digest.of(_LARGE)}", None, ranges))
        wire.head()
        os.truncate(_file(damaged, _LARGE), half // 2)
        received = wire.rest()

    assert len(received) < half
    assert not re.search(rb"--[0-9a-f]{32}--\r\n$", received)
