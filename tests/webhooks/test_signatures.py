"""What a delivery is signed with."""

import hashlib
import hmac

from hypothesis import given
from hypothesis import strategies as st

from cypd.webhooks.signatures import sign

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def test_a_signature_is_hmac_sha256_of_the_body() -> None:
    """The first signature is RFC 4231's test case 2, so any HMAC library verifies it."""
    headers = sign("Jefe", b"what do ya want for nothing?", 1_700_000_000)

    expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert f"sha256={expected}" == headers["X-Webhook-Signature"]
    assert "1700000000" == headers["X-Webhook-Timestamp"]


@given(secret=TEXT.filter(bool), body=st.binary(), timestamp=st.integers(0, 1 << 40))
def test_the_second_signature_covers_the_timestamp(
    secret: str, body: bytes, timestamp: int
) -> None:
    """A receiver verifies ``t.body`` with what the header and the body alone tell it."""
    time, mac = sign(secret, body, timestamp)["X-Webhook-Signature-V2"].split(",")

    assert f"t={timestamp}" == time
    signed = time.removeprefix("t=").encode() + b"." + body
    assert f"v1={hmac.digest(secret.encode(), signed, 'sha256').hex()}" == mac


@given(TEXT.filter(bool))
def test_another_secret_body_or_time_is_another_signature(secret: str) -> None:
    """Nothing signed passes for anything else, and neither signature for the other."""
    first = sign(secret, b"{}", 1)
    others = [sign(secret + "x", b"{}", 1), sign(secret, b"{ }", 1), sign(secret, b"{}", 2)]

    assert all(first["X-Webhook-Signature-V2"] != o["X-Webhook-Signature-V2"] for o in others)
    plain = first["X-Webhook-Signature"].removeprefix("sha256=")
    assert plain not in first["X-Webhook-Signature-V2"]
    assert hmac.new(secret.encode(), b"{}", hashlib.sha256).hexdigest() == plain


def test_without_a_secret_nothing_is_signed() -> None:
    """An empty secret gives the timestamp alone."""
    assert {"X-Webhook-Timestamp": "7"} == sign("", b"{}", 7)
