"""Mounts of what is not there: every answer is the one of an upload that begins."""

import re

import pytest

from cypd.oci.digest import Digest
from tests.attacks.content import new_repository, push_blob
from tests.attacks.wire import Answer, ask
from tests.daemon import Daemon

_ABSENT = Digest.of(b"nobody pushed this")


def _skeleton(answer: Answer) -> bytes:
    """Return an answer's head without what differs from one session or second to the next."""
    return re.sub(rb"[0-9a-f-]{36}|date: .*", b"", answer.head)


@pytest.mark.parametrize(
    "source",
    [
        "absent/repository",
        "attacks",
        "_invalid",
        "UPPER",
        "..%2f..",
        "%00",
        "%0d%0aX-Injected:%20yes",
        "",
        "a" * 300,
        "http:%2f%2f127.0.0.1%2f",
        "a&from=b",
    ],
)
def test_no_source_can_be_told_from_another(daemon: Daemon, source: str) -> None:
    """Absent, empty and malformed sources give status and headers of a plain new session."""
    repository, holder = new_repository(), new_repository()
    digest = push_blob(daemon, holder, b"held elsewhere")
    uploads = f"/v2/{repository}/blobs/uploads/"
    plain = ask(daemon.port, "POST", uploads, b"")
    for mounted in (digest, _ABSENT):
        answer = ask(daemon.port, "POST", f"{uploads}?mount={mounted}&from={source}", b"")

        assert answer.status == plain.status == 202
        assert _skeleton(answer) == _skeleton(plain)
        assert answer.body == plain.body
    assert ask(daemon.port, "HEAD", f"/v2/{repository}/blobs/{digest}").status == 404


def test_a_mount_of_what_was_deleted_is_an_upload(daemon: Daemon) -> None:
    """Once its only holder has let go, a blob can't be had without its bytes."""
    repository, holder = new_repository(), new_repository()
    digest = push_blob(daemon, holder, b"held, and let go")
    assert ask(daemon.port, "DELETE", f"/v2/{holder}/blobs/{digest}").status == 202
    for query in (f"mount={digest}", f"mount={digest}&from={holder}"):
        answer = ask(daemon.port, "POST", f"/v2/{repository}/blobs/uploads/?{query}", b"")

        assert answer.status == 202
    assert ask(daemon.port, "HEAD", f"/v2/{repository}/blobs/{digest}").status == 404


@pytest.mark.parametrize("query", ["mount={0}&mount={0}", "mount={0}&mount=", "mount=&mount={0}"])
def test_a_mount_names_one_digest(daemon: Daemon, query: str) -> None:
    """Two digests to mount are 400."""
    digest = push_blob(daemon, new_repository(), b"mounted twice")
    target = f"/v2/{new_repository()}/blobs/uploads/?{query.format(digest)}"

    assert ask(daemon.port, "POST", target, b"").status == 400


def test_a_mount_with_a_body_is_read_past(daemon: Daemon) -> None:
    """A mount that succeeds never takes the body for the blob."""
    repository = new_repository()
    digest = push_blob(daemon, new_repository(), b"the real bytes")
    target = f"/v2/{repository}/blobs/uploads/?mount={digest}"

    assert ask(daemon.port, "POST", target, b"other bytes").status == 201
    assert ask(daemon.port, "GET", f"/v2/{repository}/blobs/{digest}").body == b"the real bytes"
