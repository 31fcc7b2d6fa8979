"""Credentials that are no text, no base64 or no pair are a 401, never a fault of ours."""

import base64

import pytest

from tests.attacks.wire import Wire, ask, request
from tests.daemon import Daemon


def _encoded(raw: bytes) -> str:
    return "Basic " + base64.b64encode(raw).decode()


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Basic",
        "Basic ",
        "Basic \xff\xfe",
        "Basic YWRtaW4\xff",
        "Basic \xa0\x85",
        "Basic =",
        "Basic ====",
        "Basic YQ",
        "Basic Y-_Q",
        "\xe9",
        "Bearer \xff",
        "Digest username=admin",
        "Basic " + "A" * 20_000,
        _encoded(b"admin"),
        _encoded(b":"),
        _encoded(b"admin:"),
        _encoded(b"\xff:\xff"),
        _encoded(b"\xed\xa0\x80:x"),  # a lone surrogate in UTF-8
        _encoded(b"admin\0:x"),
        _encoded(b"admin:\0"),
        _encoded(b"a" * 511 + b":x"),
        _encoded("\u20ac".encode() * 255 + b":x"),
        _encoded(b"admin:" + b"x" * 10_000),
    ],
)
@pytest.mark.parametrize("target", ["/v2/", "/v2/_catalog", "/v2/a/manifests/b"])
def test_odd_credentials_are_401(daemon: Daemon, value: str, target: str) -> None:
    """Whatever stands in Authorization, without the right password the answer is 401."""
    answer = ask(daemon.port, "GET", target, fields=[("Authorization", value)])

    assert answer.status == 401
    assert answer.headers["www-authenticate"].startswith("Bearer realm=")


def test_two_credentials_are_none(daemon: Daemon) -> None:
    """Two Authorization fields are never the better of the two."""
    good = request("GET", "/v2/", auth=True)
    with Wire(daemon.port) as wire:
        wire.send(good.replace(b"\r\n\r\n", b"\r\nAuthorization: Basic eDp5\r\n\r\n"))

        assert wire.answer().status == 401
