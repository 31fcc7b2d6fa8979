"""Bearer tokens: ours, in their time, for their purpose, or nothing."""

import base64
import hmac
import json
import time
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cypd.access import ANONYMOUS, Principal
from cypd.accounts.ports import User
from cypd.auth.tokens import LIFETIME_SECONDS, Tokens
from cypd.metadata.memory.accounts import MemoryAccounts
from cypd.oci.errors import Code, OCIError

KEY = "k" * 64
ADMIN = Principal("admin", "admin", is_admin=True)


async def tokens() -> tuple[Tokens, MemoryAccounts]:
    """Return a token maker over a store with an administrator."""
    store = MemoryAccounts()
    await store.put_user(User("admin", "hash", is_admin=True))
    return Tokens(store, KEY), store


def refused(maker: Tokens, token: str) -> None:
    """Assert that a token is refused."""
    with pytest.raises(OCIError) as refusal:
        maker.verify(token)
    assert refusal.value.code is Code.UNAUTHORIZED


async def test_a_token_names_whom_it_was_given_to() -> None:
    """A user is themself again, nobody stays nobody."""
    maker, _ = await tokens()

    assert ADMIN == maker.verify(maker.issue(ADMIN))
    assert ANONYMOUS == maker.verify(maker.issue(ANONYMOUS))


async def test_a_token_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """After its lifetime and a minute's leeway, or before its time, it is refused."""
    maker, _ = await tokens()
    now = time.time()
    for offset in (-LIFETIME_SECONDS - 90, 90):
        monkeypatch.setattr(time, "time", lambda offset=offset: now + offset)
        token = maker.issue(ADMIN)
        monkeypatch.undo()
        refused(maker, token)


async def test_a_token_stops_with_its_password() -> None:
    """A changed password ends it at once, and so does the end of the user."""
    maker, store = await tokens()
    token = maker.issue(ADMIN)
    await store.put_user(User("admin", "other hash", is_admin=True))
    refused(maker, token)
    refused(maker, maker.issue(Principal(name="nobody")))


async def test_rights_are_those_of_the_moment() -> None:
    """A token of an administrator who is none any more is an ordinary user's."""
    maker, store = await tokens()
    token = maker.issue(ADMIN)
    await store.put_user(User("admin", "hash", is_admin=False))

    assert not maker.verify(token).is_admin


def claims(**changes: Any) -> dict[str, Any]:
    """Return the claims of a good token, changed; ``None`` leaves one out."""
    now = int(time.time())
    good = {
        "iss": "cypd", "aud": "cypd", "sub": "admin", "iat": now, "nbf": now, "exp": now + 900,
        "jti": "1", "credential": "", **changes,
    }  # fmt: skip
    return {key: value for key, value in good.items() if value is not None}


def signed(header: dict[str, Any], payload: Any, key: str = KEY) -> str:
    """Return a token with any header and payload, rightly signed."""
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
        for part in (header, payload)
    ]
    signature = hmac.digest(key.encode(), ".".join(parts).encode(), "sha256")
    return ".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=").decode()])


HS256 = {"alg": "HS256", "typ": "JWT"}


async def test_the_mutants_below_are_close() -> None:
    """What is changed below is a token that is taken unchanged."""
    maker, _ = await tokens()
    credential = jwt.decode(maker.issue(ADMIN), options={"verify_signature": False})["credential"]

    assert ADMIN == maker.verify(signed(HS256, claims(credential=credential)))


@pytest.mark.parametrize(
    "change",
    [
        {"iss": "other"}, {"iss": None}, {"iss": ["cypd"]}, {"iss": "cypd2"},
        {"aud": "other"}, {"aud": None}, {"aud": ["cypd"]}, {"aud": ["cypd", "x"]},
        {"sub": None}, {"sub": 1}, {"sub": ["admin"]}, {"sub": "Admin"}, {"sub": "x" * 1000},
        {"exp": None}, {"exp": 0}, {"exp": -1}, {"exp": "soon"}, {"exp": 1e400}, {"exp": [1]},
        {"iat": None}, {"iat": 1e12}, {"iat": "x"}, {"nbf": None}, {"nbf": 1e12}, {"nbf": {}},
        {"jti": None}, {"jti": 5}, {"credential": None}, {"credential": 1}, {"credential": "x"},
    ],
    ids=str,
)  # fmt: skip
async def test_a_claim_that_is_not_right_refuses(change: dict[str, Any]) -> None:
    """Every claim has to be there, of its type, and ours."""
    maker, _ = await tokens()
    credential = jwt.decode(maker.issue(ADMIN), options={"verify_signature": False})["credential"]
    refused(maker, signed(HS256, claims(**{"credential": credential, **change})))


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"}, {"alg": "None"}, {"alg": "HS512"}, {"alg": "RS256"}, {"alg": ""}, {},
        {"alg": "HS256", "crit": ["x"]}, {"alg": "HS256", "crit": []}, {"alg": ["HS256"]},
        {"alg": "HS256", "b64": False, "crit": ["b64"]},
    ],
    ids=str,
)  # fmt: skip
async def test_a_header_chooses_nothing(header: dict[str, Any]) -> None:
    """The algorithm is fixed, and extensions that must be understood are not."""
    maker, _ = await tokens()
    credential = jwt.decode(maker.issue(ADMIN), options={"verify_signature": False})["credential"]
    refused(maker, signed(header, claims(credential=credential)))


async def test_a_key_in_the_header_is_never_used() -> None:
    """jwk, jku, x5u and kid of an attacker's choice don't make their signature ours."""
    maker, _ = await tokens()
    jwk = {"kty": "oct", "k": base64.urlsafe_b64encode(b"a" * 64).decode()}
    for field, value in (("jwk", jwk), ("jku", "http://x"), ("x5u", "http://x"), ("kid", "../..")):
        refused(maker, signed({**HS256, field: value}, claims(), key="a" * 64))


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda raw: raw.hex() + ".x.y"))
async def test_any_text_is_refused(text: str) -> None:
    """Whatever stands behind Bearer, it is a token of ours or a 401."""
    maker, _ = await tokens()
    refused(maker, text)
    refused(maker, maker.issue(ADMIN) + "x" if text else "")
