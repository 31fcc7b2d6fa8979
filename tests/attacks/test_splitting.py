"""Line ends in whatever a client sends never become lines of an answer."""

import pytest

from tests.attacks.content import new_repository, push_blob, push_image
from tests.attacks.wire import Answer, Closed, Wire, ask, request
from tests.daemon import Daemon

_INJECTED = "X-Injected"
_ENDS = ["%0d%0a", "%0a", "%0d", "%0D%0A%20", "%E5%98%8A%E5%98%8D", "%c4%8d%c4%8a", "%250d%250a"]
_RAW_ENDS = ["\r\n", "\n", "\r", "\x0b", "\x0c", "\x85", "\0"]
_TARGETS = [
    "/v2/{name}/manifests/{evil}",
    "/v2/{name}{evil}/manifests/latest",
    "/v2/{name}/blobs/{digest}{evil}",
    "/v2/{name}/blobs/uploads/{evil}",
    "/v2/{name}/referrers/{digest}?artifactType={evil}",
    "/v2/{name}/referrers/{digest}?n=1&artifactType={evil}",
    "/v2/{name}/tags/list?last={evil}",
    "/v2/{name}/tags/list?n=1{evil}",
    "/v2/{name}/tags/list?n=1&last={evil}",
    "/v2/_catalog?n=1&last={evil}",
    "/{evil}",
    "//{evil}/v2/",
]
_PUSHES = [
    "/v2/{name}/blobs/uploads/?digest={digest}{evil}",
    "/v2/{name}/blobs/uploads/?mount={digest}&from={name}{evil}",
    "/v2/{name}/blobs/uploads/?mount={digest}{evil}",
    "/v2/{name}/blobs/uploads/?digest-algorithm=sha256{evil}",
]


@pytest.mark.parametrize("end", _ENDS)
def test_escaped_line_ends_stay_escaped(daemon: Daemon, end: str) -> None:
    """In a path or a query they are refused, or part of a value; no header comes of them."""
    name = new_repository()
    digest = push_blob(daemon, name, b"x")
    push_image(daemon, name, tag="a")
    push_image(daemon, name, tag="b")
    evil = f"{end}{_INJECTED}:%20yes{end}{end}<script>"
    for template in (*_TARGETS, *_PUSHES):
        method = "POST" if template in _PUSHES else "GET"
        target = template.format(name=name, digest=digest, evil=evil)
        with Wire(daemon.port) as wire:
            wire.send(request(method, target, b"" if method == "POST" else None))
            wire.finish()
            answer = wire.answer(method)

            _require_clean(answer)
            assert answer.status < 500
            assert wire.rest() == b"", "one request, one answer"
    for path in (f"manifests/a?tag={evil}", f"manifests/{evil}"):
        _require_clean(ask(daemon.port, "PUT", f"/v2/{name}/{path}", b"{}"))


@pytest.mark.parametrize("end", _RAW_ENDS, ids=ascii)
@pytest.mark.parametrize(
    "field",
    [
        "X-Request-ID", "Range", "If-None-Match", "If-Range", "Content-Type", "Content-Range",
        "Accept", "Origin", "Referer", "X-Forwarded-Host", "X-Forwarded-Proto", "Cookie",
    ],
)  # fmt: skip
def test_line_ends_in_values_split_nothing(daemon: Daemon, field: str, end: str) -> None:
    """A raw line end in a value is a 400 or another field of the request, never of the answer."""
    value = f"a{end}{_INJECTED}: yes"
    for method, target, body in (
        ("GET", "/v2/absent/manifests/x", None),
        ("PUT", "/v2/absent/manifests/x", b"{}"),
    ):
        with Wire(daemon.port) as wire:
            wire.send(request(method, target, body, [(field, value)]))
            wire.finish()
            try:
                answer = wire.answer()
            except Closed:
                continue

            _require_clean(answer)
            assert 400 <= answer.status < 500
            assert wire.rest() == b"", "one request, one answer"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("Host", "evil.example"),
        ("X-Forwarded-Host", "evil.example"),
        ("X-Forwarded-Proto", "evil.example"),
        ("Forwarded", "host=evil.example"),
        ("X-Original-URL", "/v2/evil.example/tags/list"),
        ("X-Rewrite-URL", "/v2/evil.example/tags/list"),
        ("Origin", "https://evil.example"),
        ("X-Request-ID", "<evil.example>"),
    ],
)
def test_no_answer_repeats_who_it_was_asked_as(daemon: Daemon, field: str, value: str) -> None:
    """Location, Link and the challenge are the registry's own; a client's fields don't show."""
    name = new_repository()
    push_image(daemon, name, tag="a")
    for auth in (True, False):
        for method, target in (
            ("GET", "/v2/"),
            ("POST", f"/v2/{name}/blobs/uploads/"),
            ("GET", f"/v2/{name}/tags/list?n=1"),
        ):
            raw = request(method, target, b"" if method == "POST" else None, auth=auth)
            line = f"{field}: {value}".encode()
            old = b"Host: registry"
            raw = raw.replace(old, line if field == "Host" else old + b"\r\n" + line)
            with Wire(daemon.port) as wire:
                wire.send(raw)
                answer = wire.answer()

            assert b"evil.example" not in answer.head + answer.body
            assert answer.headers.get("location", "/v2/").startswith("/v2/")
            assert "access-control-allow-origin" not in answer.headers


def _require_clean(answer: Answer) -> None:
    assert _INJECTED.lower() not in answer.headers
    assert b"<script>" not in answer.head
    assert answer.head.count(b"\n") == answer.head.count(b"\r\n") == answer.head.count(b"\r")
