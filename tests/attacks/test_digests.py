"""Digests in every form but the one, and digests somebody merely knows."""

import pytest

from cypd.oci.digest import Digest
from tests.attacks.content import new_repository, open_session, push_blob
from tests.attacks.wire import Answer, Wire, ask, request
from tests.daemon import Daemon
from tests.samples import EMPTY, image

_CONTENT = b"what the digest is of"
_GOOD = Digest.of(_CONTENT)
_FORMS = [
    "",
    ":",
    "sha256",
    "sha256:",
    f"SHA256:{_GOOD.hex}",
    f"Sha256:{_GOOD.hex}",
    f"sha256:{_GOOD.hex.upper()}",
    f"sha256:{_GOOD.hex[:-1]}",
    f"sha256:{_GOOD.hex}0",
    f"sha256:{_GOOD.hex[:-1]}g",
    f"sha256:{_GOOD.hex}%00",
    f"sha256:{_GOOD.hex}%0a",
    f"sha256:%20{_GOOD.hex}",
    f"%20sha256:{_GOOD.hex}",
    f"sha256::{_GOOD.hex}",
    f"sha256-{_GOOD.hex}",
    f"sha256+b64u:{_GOOD.hex}",
    f"sha512:{_GOOD.hex}",
    f"sha256:{Digest.of(_CONTENT, 'sha512').hex}",
    f"sha384:{'0' * 96}",
    "md5:d41d8cd98f00b204e9800998ecf8427e",
    f"blake3:{_GOOD.hex}",
    "sha256:../../../../etc/passwd",
    f"sha256:..%2f{_GOOD.hex}",
    f"sha256:{'%d9%a0' * 64}",  # Arabic-Indic digits
    f"sha256:{'%ef%bc%90' * 64}",  # full-width digits
]


@pytest.mark.parametrize("form", _FORMS)
def test_a_digest_has_one_form(daemon: Daemon, form: str) -> None:
    """Another form is 400 (or no path at all), wherever it stands, and opens no session."""
    repository = new_repository()
    push_blob(daemon, repository, _CONTENT)
    session = open_session(daemon, repository)
    uploads = f"/v2/{repository}/blobs/uploads/"
    answers: list[Answer] = [
        ask(daemon.port, "GET", f"/v2/{repository}/blobs/{form}"),
        ask(daemon.port, "HEAD", f"/v2/{repository}/blobs/{form}"),
        ask(daemon.port, "DELETE", f"/v2/{repository}/blobs/{form}"),
        ask(daemon.port, "GET", f"/v2/{repository}/referrers/{form}"),
        ask(daemon.port, "POST", f"{uploads}?digest={form}", _CONTENT),
        ask(daemon.port, "POST", f"{uploads}?mount={form}", b""),
        ask(daemon.port, "PUT", f"{session}?digest={form}", _CONTENT),
    ]

    assert {answer.status for answer in answers} <= {400, 404, 405}
    assert {answer.status for answer in answers[4:]} == {400}
    assert ask(daemon.port, "GET", f"/v2/{repository}/blobs/{_GOOD}").body == _CONTENT
    assert ask(daemon.port, "PUT", f"{session}?digest={_GOOD}", _CONTENT).status == 201


@pytest.mark.parametrize(
    "query",
    [
        f"digest={_GOOD}&digest={_GOOD}",
        f"digest={_GOOD}&digest=",
        f"digest={_GOOD}&digest=sha256:{'0' * 64}",
        f"digest=&digest={_GOOD}",
        f"Digest={_GOOD}",
        f"digest%00={_GOOD}",
        f"digest={_GOOD}%26digest={_GOOD}",
        f"digest={_GOOD};x=y",
        f"digest[]={_GOOD}",
        "digest",
        "",
        "&&&===",
        "&" * 8000,
    ],
)
def test_a_push_names_one_digest(daemon: Daemon, query: str) -> None:
    """With two digests, or none that counts, a closing PUT is 400 and the session stays."""
    session = open_session(daemon, new_repository())

    assert ask(daemon.port, "PUT", f"{session}?{query}", _CONTENT).status == 400
    assert ask(daemon.port, "PUT", f"{session}?digest={_GOOD}", _CONTENT).status == 201


def test_each_algorithm_is_checked_as_itself(daemon: Daemon) -> None:
    """A blob pushed by sha512 is there under sha512 alone, and wrong bytes under neither."""
    repository = new_repository()
    long = Digest.of(_CONTENT, "sha512")
    target = f"/v2/{repository}/blobs/uploads/?digest={long}"

    assert ask(daemon.port, "POST", target, b"other bytes").status == 400
    assert ask(daemon.port, "POST", target, _CONTENT).status == 201
    assert ask(daemon.port, "GET", f"/v2/{repository}/blobs/{long}").body == _CONTENT
    assert ask(daemon.port, "GET", f"/v2/{repository}/blobs/{_GOOD}").status == 404


@pytest.mark.parametrize("body", [b"", b"\0", _CONTENT[:-1], _CONTENT + b"\0"])
@pytest.mark.parametrize("framing", ["length", "chunked", "none"])
def test_knowing_a_digest_claims_nothing(daemon: Daemon, body: bytes, framing: str) -> None:
    """A digest that exists elsewhere is not linked without its bytes (CVE-2024-39897)."""
    push_blob(daemon, new_repository(), _CONTENT)
    repository = new_repository()
    target = f"/v2/{repository}/blobs/uploads/?digest={_GOOD}"
    if framing == "chunked":
        coded = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
        raw = request("POST", target, coded, [("Transfer-Encoding", "chunked")])
    elif framing == "length":
        raw = request("POST", target, body)
    else:  # RFC 9112 6.3: without either field there is no body
        raw = request("POST", target)
    with Wire(daemon.port) as wire:
        wire.send(raw)
        assert wire.answer().status == 400

    assert ask(daemon.port, "HEAD", f"/v2/{repository}/blobs/{_GOOD}").status == 404
    assert ask(daemon.port, "PUT", f"/v2/{repository}/manifests/x", image(_CONTENT)).status == 404


def test_a_manifest_is_no_way_to_a_blob(daemon: Daemon) -> None:
    """Listing a foreign blob is refused, and naming it as a subject does not open it."""
    push_blob(daemon, new_repository(), _CONTENT)
    repository = new_repository()
    push_blob(daemon, repository, EMPTY)
    listing, about = image(_CONTENT), image(EMPTY, subject=_GOOD)

    assert ask(daemon.port, "PUT", f"/v2/{repository}/manifests/x", listing).status == 404
    assert ask(daemon.port, "PUT", f"/v2/{repository}/manifests/x", about).status == 201
    assert ask(daemon.port, "GET", f"/v2/{repository}/blobs/{_GOOD}").status == 404
    assert ask(daemon.port, "GET", f"/v2/{repository}/manifests/{_GOOD}").status == 404
