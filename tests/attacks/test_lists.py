"""Lists asked for by the billion, from anywhere, and of entries that are as large as can be."""

import json

import pytest

from cypd.oci.digest import Digest
from tests.attacks.content import new_repository, push_blob, push_image
from tests.attacks.watch import MIB, anonymous_memory
from tests.attacks.wire import ask
from tests.daemon import Daemon
from tests.samples import EMPTY, image

_COUNT = 1100  # more than a page may have


@pytest.fixture(scope="module")
def full(daemon: Daemon) -> Daemon:
    """The daemon with more tags and more referrers than a page has."""
    manifest = push_image(daemon, "full", b"layer")
    subject = Digest.of(manifest)
    for start in range(0, _COUNT, 100):
        tags = "&".join(f"tag=t{number:05}" for number in range(start, start + 100))
        target = f"/v2/full/manifests/{subject}?{tags}"
        assert ask(daemon.port, "PUT", target, manifest).status == 201
    return daemon


@pytest.mark.parametrize("path", ["/v2/_catalog", "/v2/full/tags/list", "/v2/full/referrers/{}"])
@pytest.mark.parametrize(
    ("number", "status"),
    [
        ("1000000000", 200),
        ("9223372036854775808", 200),
        ("9" * 7000, 200),
        ("0" * 7000, 200),
        ("0", 200),
        ("-1", 400),
        ("+1", 400),
        ("%2B1", 400),
        ("abc", 400),
        ("1e9", 400),
        ("1.0", 400),
        ("0x10", 400),
        ("1_000", 400),
        ("", 400),
        ("%20", 400),
        ("%00", 400),
        ("%ff", 400),
        ("%D9%A1", 400),  # an Arabic-Indic one
        ("%C2%B2", 400),  # a superscript two
        ("Infinity", 400),
        ("NaN", 400),
    ],
    ids=lambda it: str(it)[:20],
)
def test_a_page_has_a_thousand_at_most(full: Daemon, path: str, number: str, status: int) -> None:
    """``n`` is a whole number, and past a page's size it is that; memory stays where it was."""
    before = anonymous_memory(full)
    answer = ask(full.port, "GET", f"{path.format(Digest.of(b'x'))}?n={number}")

    assert answer.status == status
    assert anonymous_memory(full) - before <= 4 * MIB
    if status == 200 and "tags" in path:
        expected = 0 if not number.strip("0") else 1000
        assert len(json.loads(answer.body)["tags"]) == expected


@pytest.mark.parametrize(
    "last",
    [
        "", "%00", "%00" * 999, "%ef%bf%bf", "%f4%8f%bf%bf" * 500, "~" * 7000, "a" * 511,
        "b" * 512, "..%2f..", "%20", "t00000%00", "%c3%28", "%ed%a0%80", "zzz&last=a", "t00500&n=1",
    ],
    ids=lambda it: it[:16],
)  # fmt: skip
def test_a_list_starts_anywhere(full: Daemon, last: str) -> None:
    """Any ``last`` that is text gives names past it, of this list alone; others are 400."""
    for path, key in (("/v2/_catalog", "repositories"), ("/v2/full/tags/list", "tags")):
        answer = ask(full.port, "GET", f"{path}?last={last}")

        assert answer.status in (200, 400)
        if answer.status == 200:
            listed = json.loads(answer.body)[key]
            assert listed == sorted(set(listed))
            assert len(listed) <= 1000


@pytest.mark.parametrize("last", ["x", "sha256:0", "%00", "sha256:" + "0" * 63, "sha256:..", "~"])
def test_referrers_start_at_a_digest(full: Daemon, last: str) -> None:
    """A ``last`` that is no digest is 400 there."""
    target = f"/v2/full/referrers/{Digest.of(b'x')}?last={last}"

    assert ask(full.port, "GET", target).status == 400


def test_large_referrers_come_in_pieces(daemon: Daemon) -> None:
    """Annotations of megabytes come a page at a time: all of them, never all at once."""
    repository = new_repository()
    push_blob(daemon, repository, EMPTY)
    subject = Digest.of(b"what they refer to")
    pushed = set()
    for number in range(24):
        document = image(EMPTY, subject=subject, note=f"{number:03}" + "x" * (3 << 20))
        target = f"/v2/{repository}/manifests/t{number}"
        assert ask(daemon.port, "PUT", target, document).status == 201
        pushed.add(Digest.of(document))
    before = anonymous_memory(daemon)
    target, listed = f"/v2/{repository}/referrers/{subject}", []
    while target:
        answer = ask(daemon.port, "GET", target)
        assert len(answer.body) <= 4 * MIB + 1000
        listed += [it["digest"] for it in json.loads(answer.body)["manifests"]]
        target = answer.headers.get("link", "").partition(">")[0].removeprefix("<")

    assert set(listed) == pushed
    assert len(listed) == len(pushed)
    assert anonymous_memory(daemon) - before <= 32 * MIB  # of the 72 that are listed
