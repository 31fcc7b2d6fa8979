"""Bodies nobody reads, and requests behind them: the second answer is the second request's."""

import pytest

from cypd.oci.digest import Digest
from tests.attacks.content import new_repository, push_blob, push_image
from tests.attacks.wire import Answer, Closed, Wire, chunked, request
from tests.daemon import Daemon

_SIZES = [0, 1, 64 << 10, 65 << 10, 10 << 20]
_ABSENT = Digest.of(b"nothing has this digest")
_SMUGGLED = request("DELETE", "/v2/desync/manifests/latest")
_REFUSED = {
    "no credentials": ("POST", "/v2/desync/blobs/uploads/?digest=x", False, 401),
    "no such path": ("PUT", "/v2/desync/nothing", True, 404),
    "no such session": ("PATCH", "/v2/desync/blobs/uploads/x", True, 404),
    "not below /v2": ("POST", "/elsewhere", True, 404),
    "no such method": ("PUT", "/v2/", True, 405),
    "no such name": ("PUT", "/v2/UPPER/manifests/x", True, 400),
    "no such digest": ("POST", "/v2/desync/blobs/uploads/?digest=x", True, 400),
    "a GET": ("GET", "/v2/desync/tags/list", True, 200),
    "a HEAD": ("HEAD", "/v2/desync/manifests/latest", True, 200),
    "a session": ("POST", "/v2/desync/blobs/uploads/", True, 202),
}


@pytest.fixture(scope="module")
def image(daemon: Daemon) -> bytes:
    """Return the manifest that a request in a body would delete."""
    return push_image(daemon, "desync", b"layer")


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("size", _SIZES)
@pytest.mark.parametrize("name", _REFUSED)
def test_an_unread_body_is_no_request(
    daemon: Daemon, image: bytes, name: str, size: int, framing: str
) -> None:
    """After an early answer the connection closes, or answers exactly the next request."""
    method, target, auth, status = _REFUSED[name]
    body = (_SMUGGLED * (size // len(_SMUGGLED) + 1))[:size]
    if framing == "chunked":
        fields = [("Transfer-Encoding", "chunked")]
        raw = request(method, target, chunked(body), fields, auth=auth)
    else:
        raw = request(method, target, body, auth=auth)
    following = request("GET", "/v2/desync/manifests/latest")
    with Wire(daemon.port) as wire:
        wire.send_meanwhile(raw + following)
        first = wire.answer(method)
        second = _answer_or_close(wire)

        assert first.status == status
        if first.headers.get("connection") == "close":
            assert second is None
        else:
            assert second is not None
            assert second.body == image


def _answer_or_close(wire: Wire) -> Answer | None:
    try:
        return wire.answer()
    except Closed as error:
        assert str(error) == "after b''", "no half of an answer either"
        return None


@pytest.mark.parametrize("length", [4 * (1 << 20) + 1, 1 << 40, 10**17])
def test_what_is_too_large_is_told_before_it_comes(daemon: Daemon, length: int) -> None:
    """413 needs no byte of the body, and what follows it is not a request."""
    raw = request("PUT", "/v2/desync/manifests/x", b"", [("Content-Length", str(length))])
    with Wire(daemon.port) as wire:
        wire.send(raw + _SMUGGLED)
        answer = wire.answer()

        assert (answer.status, answer.headers["connection"]) == (413, "close")
        assert wire.rest() == b""


@pytest.mark.parametrize(
    ("method", "target", "auth", "status"),
    [
        ("POST", "/v2/desync/blobs/uploads/?digest={}", False, 401),
        ("PUT", "/v2/desync/manifests/x", False, 401),
        ("PATCH", "/v2/desync/blobs/uploads/x", False, 401),
        ("PATCH", "/v2/desync/blobs/uploads/x", True, 404),
        ("PUT", "/v2/desync/blobs/uploads/x?digest={}", True, 404),
        ("POST", "/v2/desync/blobs/uploads/?digest=x", True, 400),
        ("POST", "/v2/UPPER/blobs/uploads/?digest={}", True, 400),
        ("PUT", "/v2/", True, 405),
        ("PUT", "/elsewhere", True, 404),
    ],
)
@pytest.mark.parametrize("expectation", ["100-continue", "100-Continue"])
def test_a_refused_upload_is_not_asked_for(
    daemon: Daemon, method: str, target: str, auth: bool, status: int, expectation: str
) -> None:
    """With Expect a refusal comes instead of 100, and a body sent all the same is no request."""
    fields = [("Expect", expectation), ("Content-Length", str(len(_SMUGGLED)))]
    with Wire(daemon.port) as wire:
        wire.send(request(method, target.format(_ABSENT), b"", fields, auth=auth))
        answer = wire.answer()

        assert answer.status == status
        assert answer.headers["connection"] == "close"
        wire.send(_SMUGGLED)
        assert wire.rest() == b""


def test_a_wanted_upload_is_asked_for_once(daemon: Daemon) -> None:
    """With Expect an upload gets 100 before its body, and then its answer."""
    content = b"sent when it is asked for"
    target = f"/v2/desync/blobs/uploads/?digest={Digest.of(content)}"
    fields = [("Expect", "100-continue"), ("Content-Length", str(len(content)))]
    with Wire(daemon.port) as wire:
        wire.send(request("POST", target, b"", fields))
        assert wire.answer().status == 100
        wire.send(content + request("GET", "/v2/"))

        assert wire.answer().status == 201
        assert wire.answer().status == 200


def test_an_upload_that_does_not_wait_is_taken(daemon: Daemon) -> None:
    """With Expect, but the body right behind it, nothing is lost and nothing comes twice."""
    content = b"sent without waiting"
    target = f"/v2/desync/blobs/uploads/?digest={Digest.of(content)}"
    raw = request("POST", target, content, [("Expect", "100-continue")])
    assert b"Content-Length" in raw
    with Wire(daemon.port) as wire:
        wire.send(raw + request("GET", "/v2/"))
        answers = [wire.answer().status for _ in range(2)]

    assert answers == [201, 200]


@pytest.mark.parametrize("value", ["200-ok", "100-continue, 100-continue", "", "100-continue;q=1"])
def test_other_expectations_are_417(daemon: Daemon, value: str) -> None:
    """What is expected and not known is refused, and the connection ends."""
    raw = request("POST", "/v2/desync/blobs/uploads/", b"body", [("Expect", value)])
    with Wire(daemon.port) as wire:
        wire.send(raw + _SMUGGLED)

        assert wire.answer().status == 417
        assert wire.rest() == b""


def test_ten_thousand_pipelined_requests(daemon: Daemon, image: bytes) -> None:
    """Each is answered, in order, and others are served meanwhile."""
    count = 10_000
    targets = ["/v2/desync/manifests/latest", "/v2/", f"/v2/desync/blobs/{_ABSENT}"]
    expected = [(200, image), (200, b"{}"), (404, None)]
    with Wire(daemon.port) as wire:
        raw = b"".join(request("GET", targets[number % 3]) for number in range(count))
        wire.send_meanwhile(raw)
        for number in range(count):
            status, body = expected[number % 3]
            answer = wire.answer()

            assert answer.status == status, number
            assert body is None or answer.body == body
            if number % 2500 == 0:
                assert daemon.request("GET", "/v2/").status == 200


def test_every_method_on_one_connection(daemon: Daemon) -> None:
    """HEAD, GET, ranges, 304, 204 and errors in a row: no answer's body runs into the next."""
    name = new_repository()
    content = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n" * 5000  # 190 KB, sent as a file
    digest = push_blob(daemon, name, content)
    blob = f"/v2/{name}/blobs/{digest}"
    rounds: list[tuple[str, str, list[tuple[str, str]], int, bytes]] = [
        ("HEAD", blob, [], 200, b""),
        ("GET", blob, [("Range", "bytes=0-9")], 206, content[:10]),
        ("GET", blob, [("If-None-Match", f'"{digest}"')], 304, b""),
        ("HEAD", f"/v2/{name}/blobs/{_ABSENT}", [], 404, b""),
        ("GET", blob, [], 200, content),
        ("HEAD", blob, [("Range", "bytes=0-9")], 200, b""),
        ("GET", blob, [("Range", "bytes=999999-")], 416, b""),
        ("HEAD", f"/v2/{name}/tags/list", [], 200, b""),
        ("HEAD", "/elsewhere", [], 404, b""),
        ("DELETE", f"/v2/{name}/blobs/uploads/x", [], 404, b""),
    ]
    with Wire(daemon.port) as wire:
        for turn in range(20):
            part = rounds[turn % 10 :] + rounds[: turn % 10]
            wire.send_meanwhile(b"".join(request(m, target, None, f) for m, target, f, *_ in part))
            for method, _, _, status, body in part:
                answer = wire.answer(method)

                assert answer.status == status
                assert status >= 400 or answer.body == body
