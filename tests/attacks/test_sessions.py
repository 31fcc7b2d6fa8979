"""Upload sessions that never were, are over, are fought for, or are left open by the thousand."""

import hashlib
import random
import re
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cypd.oci.digest import Digest
from tests.attacks.content import new_repository, open_session
from tests.attacks.watch import complaints, eventually
from tests.attacks.wire import Answer, Wire, ask, request
from tests.daemon import Daemon

_METHODS = ["GET", "HEAD", "PATCH", "PUT", "DELETE"]
_CAP = 100
_TTL = 2.0


def _touch(daemon: Daemon, method: str, session: str) -> int:
    """Use a session as each method does; return the status."""
    query = f"?digest={Digest.of(b'x')}" if method == "PUT" else ""
    body = b"x" if method in ("PUT", "PATCH") else None
    return ask(daemon.port, method, session + query, body).status


@pytest.mark.parametrize("method", _METHODS)
@pytest.mark.parametrize(
    "upload", [str(uuid.UUID(int=0)), "x", "-", ".", "0" * 64, "0" * 65, "%00", "\\", "%e2%82%ac"]
)
def test_a_session_never_issued_is_404(daemon: Daemon, method: str, upload: str) -> None:
    """An invented id is nobody's session, whether or not it looks like one."""
    assert _touch(daemon, method, f"/v2/never/blobs/uploads/{upload}") == 404


@pytest.mark.parametrize("method", _METHODS)
def test_a_session_that_is_over_is_404(daemon: Daemon, method: str) -> None:
    """Finished and cancelled sessions are as if they had never been."""
    repository = new_repository()
    finished, cancelled = (open_session(daemon, repository) for _ in range(2))
    digest = Digest.of(b"done")
    assert ask(daemon.port, "PUT", f"{finished}?digest={digest}", b"done").status == 201
    assert ask(daemon.port, "DELETE", cancelled).status == 204

    assert _touch(daemon, method, finished) == 404
    assert _touch(daemon, method, cancelled) == 404


@pytest.mark.parametrize("attempt", range(8))
def test_of_two_writers_one_wins(daemon: Daemon, attempt: int) -> None:
    """Two PATCHes at once: the first goes on, the other is 416, and the digest is the first's."""
    session = open_session(daemon, new_repository())
    first, second = random.Random(attempt).randbytes(300_000), b"intruder" * 1000
    with Wire(daemon.port) as slow, Wire(daemon.port) as quick:
        slow.send(request("PATCH", session, first)[:-1])  # its last byte is still to come
        assert eventually(lambda: _size(daemon, session) > 1)
        quick.send(request("PATCH", session, second))
        refused = quick.answer()
        slow.send(first[-1:])
        taken = slow.answer()

    assert (taken.status, refused.status) == (202, 416)
    assert taken.headers["range"] == f"0-{len(first) - 1}"
    target = f"{session}?digest={Digest.of(first)}"
    assert ask(daemon.port, "PUT", target, b"").status == 201


def test_many_writers_leave_a_whole_number_of_chunks(daemon: Daemon) -> None:
    """However many race, each is 202 or 416, and what is there is what the 202s sent."""
    session = open_session(daemon, new_repository())
    ready = threading.Barrier(16)

    def write(number: int) -> tuple[int, int]:
        body = bytes([number]) * 50_000
        ready.wait()
        return number, ask(daemon.port, "PATCH", session, body).status

    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(write, range(16)))
    winners = [number for number, status in outcomes if status == 202]

    assert {status for _, status in outcomes} <= {202, 416}
    assert winners
    assert _size(daemon, session) == 50_000 * len(winners)


def _size(daemon: Daemon, session: str) -> int:
    return _end(ask(daemon.port, "GET", session)) + 1


def _end(answer: Answer) -> int:
    match = re.fullmatch(r"0-([0-9]+)", answer.headers["range"])
    assert match
    return int(match[1])


@pytest.mark.parametrize(
    ("window", "statuses"),
    [
        ("", {416}),
        ("bytes=", {416}),
        ("bytes=4-7", {416}),
        ("bytes 4-7/8", {416}),
        ("4-", {416}),
        ("-4", {416}),
        ("-4-7", {416}),
        ("4--7", {416}),
        ("7-4", {416}),
        ("4 - 7", {416}),
        ("4-7, 8-11", {416}),
        ("0x4-0x7", {416}),
        ("+4-7", {416}),
        ("\xb2-\xb3", {416}),
        ("4-9223372036854775807", {400}),
        ("4-9223372036854775808", {400}),
        ("4-9999999999999999999", {400}),
        ("9223372036854775808-9223372036854775811", {416}),
        (f"{'0' * 30}4-7", {416}),
        (f"4-{'9' * 10_000}", {416}),
        ("0-3", {416}),  # an overlap
        ("3-6", {416}),
        ("5-8", {416}),  # a gap
        ("4-6", {400}),  # shorter than the body
        ("4-8", {400}),
    ],
    ids=lambda it: repr(it)[:30],
)
def test_nonsense_windows_change_nothing(daemon: Daemon, window: str, statuses: set[int]) -> None:
    """A Content-Range that is none, or does not fit, is refused; the session goes on."""
    session = open_session(daemon, new_repository())
    assert ask(daemon.port, "PATCH", session, b"0123", [("Content-Range", "0-3")]).status == 202
    target = f"{session}?digest={Digest.of(b'01234567')}"
    for method, path in (("PATCH", session), ("PUT", target)):
        answer = ask(daemon.port, method, path, b"4567", [("Content-Range", window)])

        assert answer.status in statuses, answer
    assert _size(daemon, session) == 4
    assert ask(daemon.port, "PUT", target, b"4567", [("Content-Range", "4-7")]).status == 201


def test_cut_anywhere_nothing_shows_and_all_goes_on(daemon: Daemon) -> None:
    """A body cut at each 1/64 shows under no digest, and the next request resumes behind it."""
    repository = new_repository()
    content = random.Random(64).randbytes(64 * 8192)
    digest = Digest.of(content)
    session = open_session(daemon, repository)
    sent = 0
    for part in range(1, 65):
        stop = part * len(content) // 64
        with Wire(daemon.port) as wire:  # the length promises all that is left
            head = request("PATCH", session, b"", [("Content-Length", str(len(content) - sent))])
            wire.send(head + content[sent:stop])
            if part == 64:
                assert wire.answer().status == 202
        assert eventually(lambda stop=stop: _size(daemon, session) == stop)  # type: ignore[misc]
        cut = Digest("sha256:" + hashlib.sha256(content[:stop]).hexdigest())
        assert ask(daemon.port, "HEAD", f"/v2/{repository}/blobs/{cut}").status == 404
        sent = stop

    assert ask(daemon.port, "PUT", f"{session}?digest={digest}", b"").status == 201
    assert ask(daemon.port, "GET", f"/v2/{repository}/blobs/{digest}").body == content


@pytest.mark.parametrize("share", range(0, 64, 7))
def test_a_cut_push_in_one_request_leaves_nothing(daemon: Daemon, share: int) -> None:
    """POST and closing PUT that break off make no blob and leave no file behind."""
    repository = new_repository()
    content = random.Random(share).randbytes(200_000)
    digest = Digest.of(content)
    part = content[: len(content) * share // 64]
    length = [("Content-Length", str(len(content)))]
    staged = daemon.state / "uploads"
    before = set(staged.iterdir())
    with Wire(daemon.port) as wire:
        target = f"/v2/{repository}/blobs/uploads/?digest={digest}"
        wire.send(request("POST", target, b"", length) + part)
        wire.finish()
        assert wire.answer().status == 400  # it can still read, and learns why

    assert ask(daemon.port, "HEAD", f"/v2/{repository}/blobs/{digest}").status == 404
    assert eventually(lambda: set(staged.iterdir()) <= before)


@pytest.fixture
def tight(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon where a user has few sessions, and idle ones go within seconds."""
    settings = {
        "CYPD_UPLOADS_MAX_SESSIONS_PER_USER": str(_CAP),
        "CYPD_UPLOADS_SESSION_TTL": str(_TTL),
        "CYPD_GC_INTERVAL": "0.5",
    }
    with Daemon(tmp_path, settings) as daemon:
        yield daemon
        assert complaints(daemon) == []


def test_sessions_without_end_are_429_until_the_sweep(tight: Daemon) -> None:
    """Of 10,000 attempts those past the cap are 429; what is idle is swept, and there is room.

    A session lives for two seconds at least, so the time that passed bounds how often the cap was
    filled.
    """
    opened_at = "/v2/many/blobs/uploads/"
    opened: list[str] = []
    statuses: list[int] = []
    began = time.monotonic()
    with Wire(tight.port) as wire:
        for _ in range(100):  # 100 at a time, and all at once they would wait for each other
            wire.send(request("POST", opened_at, b"") * 100)
            for _ in range(100):
                answer = wire.answer()
                statuses.append(answer.status)
                if answer.status == 202:
                    opened.append(answer.headers["location"])
    fillings = 1 + (time.monotonic() - began) // _TTL

    assert set(statuses) == {202, 429}
    assert _CAP <= len(opened) <= fillings * _CAP
    assert eventually(lambda: ask(tight.port, "GET", opened[0]).status == 404)
    assert eventually(lambda: ask(tight.port, "POST", opened_at, b"").status == 202)


def test_an_expired_session_is_404(tight: Daemon) -> None:
    """Past its time a session with bytes is gone to every method, and so are its bytes."""
    session = open_session(tight, "expired")
    assert ask(tight.port, "PATCH", session, b"0" * 1000).status == 202
    file = tight.state / "uploads" / session.rpartition("/")[2]
    assert file.stat().st_size == 1000

    assert eventually(lambda: ask(tight.port, "GET", session).status == 404)
    assert [_touch(tight, method, session) for method in _METHODS] == [404] * 5
    assert eventually(lambda: not file.exists())


def test_a_busy_session_outlives_its_time(tight: Daemon) -> None:
    """While bytes arrive a session is not idle, however long it takes."""
    session = open_session(tight, "busy")
    content = random.Random(8).randbytes(8 * 300_000)  # each piece fills a slab, and is written
    with Wire(tight.port) as wire:
        wire.send(request("PATCH", session, b"", [("Content-Length", str(len(content)))]))
        for at in range(0, len(content), 300_000):
            wire.send(content[at : at + 300_000])
            time.sleep(_TTL / 5)

        assert wire.answer().status == 202
    target = f"{session}?digest={Digest.of(content)}"
    assert ask(tight.port, "PUT", target, b"").status == 201
