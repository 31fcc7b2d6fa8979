"""Signed tokens: ours, in their time, for their purpose, or nothing."""

import base64
import hmac
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cypd.access import Grant
from cypd.accounts.ports import User
from cypd.auth.tokens import Claims, Tokens, TokenType
from cypd.refusals import Code, Refusal
from tests.accounts.house import KEY, LIFETIMES, Clock

USER = User(id="6ba7b810-0000-4000-8000-000000000000", name="ada", password_hash="h")
GRANTS = (Grant("library/app", frozenset({"pull", "push"})), Grant("*", frozenset({"*"})))


@pytest.fixture
def tokens(clock: Clock) -> Tokens:
    """One registry's, at a time that stands."""
    return Tokens(KEY, LIFETIMES)


def text(tokens: Tokens, kind: TokenType) -> str:
    """Return a token of a kind."""
    return {
        TokenType.ACCESS: lambda: tokens.issue_access(USER, "s").text,
        TokenType.REFRESH: lambda: tokens.issue_refresh(USER, "s").text,
        TokenType.MFA: lambda: tokens.issue_mfa(USER).text,
        TokenType.REGISTRY: lambda: tokens.issue_registry(USER, GRANTS, "sid:s").text,
        TokenType.IDENTITY: lambda: tokens.issue_identity(USER, "sid:s").text,
    }[kind]()


def refusal_of(tokens: Tokens, token: str, *kinds: TokenType, grace: float = 0.0) -> Code:
    """Return the code that a token is refused with; nothing else may be raised."""
    with pytest.raises(Refusal) as refusal:
        tokens.verify(token, *(kinds or TokenType), grace=grace)
    assert 401 == refusal.value.code.status
    assert not refusal.value.errors  # and it is not told why
    return refusal.value.code


# --- what is good -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TokenType)
def test_a_token_says_whose_it_is(tokens: Tokens, kind: TokenType) -> None:
    """Each kind names its user and itself, and another registry's key does not verify it."""
    token = text(tokens, kind)
    for _ in range(2):  # decoded, and remembered
        claims = tokens.verify(token, kind)
        assert (USER.id, "ada", kind) == (claims.user_id, claims.username, claims.token_type)
        assert USER.id == claims.sub
        assert claims == Tokens(KEY, LIFETIMES).verify(token, kind)  # of another process
    assert Code.TOKEN_INVALID is refusal_of(Tokens("o" * 64, LIFETIMES), token)


@pytest.mark.parametrize("kind", TokenType)
def test_no_kind_is_taken_for_another(tokens: Tokens, kind: TokenType) -> None:
    """Also once it was verified as what it is."""
    token = text(tokens, kind)
    tokens.verify(token, kind)
    for other in set(TokenType) - {kind}:
        assert Code.TOKEN_INVALID is refusal_of(tokens, token, other)
    assert Code.TOKEN_INVALID is refusal_of(tokens, token, *(set(TokenType) - {kind}))


def test_a_session_is_named_by_its_tokens(tokens: Tokens) -> None:
    """The refresh token's claims are those of its session, and of no other kind of token."""
    issued = tokens.issue_refresh(USER, "s")
    assert (USER.id, "s", issued.id) == tokens.refresh_claims(issued.text)
    half = tokens.issue_mfa(USER).text
    assert (USER.id, USER.password_mark) == tokens.mfa_claims(half)
    for kind in set(TokenType) - {TokenType.REFRESH}:
        with pytest.raises(Refusal) as refusal:
            tokens.refresh_claims(text(tokens, kind))
        assert Code.REFRESH_TOKEN_INVALID is refusal.value.code


def test_a_registry_token_carries_its_grants(tokens: Tokens) -> None:
    """What it was issued for and by what, for a user and for nobody."""
    token = tokens.issue_registry(USER, GRANTS, "pat:00")
    claims = tokens.verify(token.text, TokenType.REGISTRY)
    assert LIFETIMES.registry == token.lifetime
    assert ("pat:00", GRANTS) == (claims.credential, claims.grants())
    nobody = tokens.verify(tokens.issue_registry(None, (), "").text, TokenType.REGISTRY)

    assert ("", "", ()) == (nobody.user_id, nobody.credential, nobody.grants())


@pytest.mark.parametrize("kind", TokenType)
def test_a_token_ends(tokens: Tokens, clock: Clock, kind: TokenType) -> None:
    """A minute's leeway after its lifetime, also if it was verified before."""
    lifetime = {
        TokenType.ACCESS: LIFETIMES.access,
        TokenType.REGISTRY: LIFETIMES.registry,
        TokenType.MFA: 300,
    }.get(kind, LIFETIMES.refresh)
    token = text(tokens, kind)
    clock.now += lifetime + 60
    tokens.verify(token, kind)
    clock.now += 1
    assert Code.TOKEN_EXPIRED is refusal_of(tokens, token, kind)


def test_a_token_of_the_future_is_none(tokens: Tokens, clock: Clock) -> None:
    """A minute's leeway for clocks that differ, and no more."""
    token = text(tokens, TokenType.ACCESS)
    clock.now -= 60
    tokens.verify(token, TokenType.ACCESS)
    clock.now -= 1
    assert Code.TOKEN_INVALID is refusal_of(tokens, token)


def test_grace_is_as_long_as_asked_for(tokens: Tokens, clock: Clock) -> None:
    """And changes nothing for whoever asks for none, or for another kind."""
    token = text(tokens, TokenType.REGISTRY)
    clock.now += LIFETIMES.registry + 60 + 600
    tokens.verify(token, TokenType.REGISTRY, grace=600)
    assert Code.TOKEN_EXPIRED is refusal_of(tokens, token, TokenType.REGISTRY, grace=599)
    assert Code.TOKEN_EXPIRED is refusal_of(tokens, token, TokenType.REGISTRY)
    assert Code.TOKEN_INVALID is refusal_of(tokens, token, TokenType.ACCESS, grace=600)


# --- what is not --------------------------------------------------------------------------------


def encoded(value: Any) -> str:
    """Return JSON, or bytes as they are, in base64url."""
    raw = value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(header: Any, payload: Any, key: str = KEY, digest: str = "sha256") -> str:
    """Return a token by hand: no library refuses to make it."""
    message = f"{encoded(header)}.{encoded(payload)}"
    return f"{message}.{encoded(hmac.digest(key.encode(), message.encode(), digest))}"


def good(clock: Clock) -> dict[str, Any]:
    """Return claims of which nothing is wrong."""
    now = int(clock.now)
    return {
        "iss": "cypd", "aud": "cypd", "sub": USER.id, "exp": now + 900, "iat": now, "nbf": now,
        "jti": "j", "sid": "s", "user_id": USER.id, "username": "ada", "token_type": "access",
        "credential": "", "access": [],
    }  # fmt: skip


HEADER = {"alg": "HS256", "typ": "JWT"}
JWK = {"kty": "oct", "k": encoded(KEY.encode())}


def headers(payload: dict[str, Any]) -> Iterator[str]:
    """Yield tokens whose header asks for something, signed with the right key and with others."""
    algorithms = ["none", "None", "NONE", "nOnE", "HS384", "HS512", "RS256", "ES256", "PS256",
                  "EdDSA", "hs256", "", None, 0, True, [], ["HS256"], {"alg": "HS256"}]  # fmt: skip
    extras: list[dict[str, Any]] = [
        {"kid": kid}
        for kid in ("", "0", "../../../dev/null", "/dev/null", "' OR 1=1 --", 0, None, "k" * 4096)
    ]
    extras += [{"jwk": JWK}, {"jwk": {}}, {"jku": "https://example.org/keys"}, {"jku": ""}]
    extras += [{"x5u": "https://example.org/certificate"}, {"x5c": ["AAAA"]}, {"x5t": "AAAA"}]
    extras += [{"crit": it} for it in ([], ["b64"], ["exp"], ["x"], "b64", None)]
    extras += [{"b64": it} for it in (False, True)] + [{"b64": False, "crit": ["b64"]}]
    extras += [{"zip": "DEF"}, {"cty": "JWT"}, {"enc": "A128GCM"}, {"typ": "at+jwt"}, {"typ": None}]
    asked: list[dict[str, Any]] = [HEADER | {"alg": algorithm} for algorithm in algorithms]
    asked += [HEADER | extra for extra in extras]
    asked += [{"alg": algorithm} | extra for algorithm in ("none", "RS256") for extra in extras]
    asked += [{}, {"typ": "JWT"}, {"alg": "HS256"}, dict(reversed(HEADER.items()))]
    for header in asked:
        for key in (KEY, "", "o" * 64):
            yield signed(header, payload, key)
        yield f"{encoded(header)}.{encoded(payload)}."
    for raw in (b"", b"null", b"[]", b"{", b'"HS256"', b"1", b"\xff\xfe", b'{"alg":"HS256"} '):
        yield signed(raw, payload)
    for digest in ("sha384", "sha512", "sha1"):
        yield signed(HEADER, payload, digest=digest)
        yield signed(HEADER | {"alg": "HS" + digest[3:]}, payload, digest=digest)
    for algorithm, size in (("RS256", 256), ("PS256", 256), ("ES256", 64), ("EdDSA", 64)):
        message = f"{encoded(HEADER | {'alg': algorithm})}.{encoded(payload)}"
        yield f"{message}.{encoded(b'x' * size)}"  # of the length that such a signature has
    for key in ("", "o" * 64, KEY[:-1], KEY + "k", KEY.upper()):
        yield signed(HEADER, payload, key)


NO_TEXTS = [None, 1, 1.5, True, False, [], {}, ["x"], {"x": 1}, -1, 1 << 70]
NO_TIMES = ["", "1", "x", 1.5, True, False, -1, -1.5, 1 << 40, 1 << 64, 10**400, None, [], [1], {},
            float("inf"), float("nan")]  # fmt: skip
NOT_OURS = ["", "cyp", "cypd ", "cypd/", "cypd.example.org", "CYPD", ["cypd"], ["cypd", "x"],
            "cypd\0"]  # fmt: skip
NO_KINDS = ["", "ACCESS", "access ", "bearer", "pat", "TokenType.ACCESS"]
NO_GRANTS: list[Any] = [
    None, {}, "x", [None], [1], [{}], [{"name": "a"}], [{"name": 1, "actions": []}],
    [{"name": "a", "actions": "pull"}], [{"name": "a", "actions": [1]}],
]  # fmt: skip
TEXTS = ("iss", "aud", "sub", "jti", "user_id", "username", "token_type", "sid", "credential")
TIMES = ("exp", "nbf", "iat")
WRONG: list[tuple[str, list[Any]]] = [
    *((name, NO_TEXTS) for name in TEXTS),
    *((name, NO_TIMES) for name in TIMES),
    *((name, NOT_OURS) for name in ("iss", "aud")),
    ("token_type", NO_KINDS),
    ("access", NO_GRANTS),
]


def claims(payload: dict[str, Any]) -> Iterator[str]:
    """Yield tokens with the right key and header, of which one claim is wrong or missing."""
    now = payload["iat"]
    for name in set(payload) - {"sid", "credential", "access"}:  # those have defaults
        yield signed(HEADER, {key: value for key, value in payload.items() if key != name})
    for name, values in WRONG:
        yield from (signed(HEADER, payload | {name: value}) for value in values)
    for name in TIMES:
        raw = json.dumps(payload | {name: "HERE"}).replace('"HERE"', "1e400")
        yield signed(HEADER, raw.encode())
        yield signed(HEADER, payload | {name: str(now)})
        yield signed(HEADER, payload | {name: now + 0.5})
    yield signed(HEADER, payload | {"exp": now - 61})
    yield signed(HEADER, payload | {"nbf": now + 61})
    yield signed(HEADER, payload | {"iat": now + 61})
    for text in (b"", b"null", b"[]", b"1", b'"x"', b"{", b"\xff", b"[" * 4000, b'{"a":' * 1000):
        yield signed(HEADER, text)


def texts(token: str) -> Iterator[str]:
    """Yield what is left of a token after damage to its text."""
    header, payload, signature = token.split(".")
    for position in range(0, len(token), 3):
        yield token[:position]
    yield from (token[:-count] for count in (1, 2, 3, 4))
    for position, character in enumerate(token):
        for bit in (1, 2, 32):
            yield token[:position] + chr(ord(character) ^ bit) + token[position + 1 :]
    for mark in (".", "=", " ", "\n", "\0", "!", "é", "\ud800", "A"):
        yield from (token + mark, mark + token, f"{header}.{payload}{mark}.{signature}")
        yield f"{header}.{payload}.{signature[:9]}{mark}{signature[9:]}"
    yield from (f"{header}..{signature}", f".{payload}.{signature}", f"{header}.{payload}")
    yield from (
        f"{payload}.{header}.{signature}",
        f"{header}.{payload}.{header}",
        f"{token}.{token}",
    )
    yield from ("", ".", "..", "...", "é.é.é", "\ud800", "null", "Bearer " + token, "x" * (1 << 20))
    yield f"{header}.{'A' * (1 << 20)}.{signature}"
    yield f"{header}.{payload}.{signature}".upper()


@pytest.mark.parametrize(
    ("mutate", "at_least"), [("headers", 450), ("claims", 200), ("texts", 1400)]
)
def test_every_forgery_is_refused(tokens: Tokens, clock: Clock, mutate: str, at_least: int) -> None:
    """Whatever is wrong with a token, it is 401 and nothing else; with nothing wrong it holds."""
    whole = signed(HEADER, good(clock))
    tokens.verify(whole, TokenType.ACCESS)
    forged = {
        "headers": lambda: set(headers(good(clock))),
        "claims": lambda: set(claims(good(clock))),
        "texts": lambda: set(texts(whole)),
    }[mutate]() - {whole}

    assert len(forged) >= at_least
    for token in forged:
        assert refusal_of(tokens, token) in {Code.TOKEN_INVALID, Code.TOKEN_EXPIRED}, token[:2000]


@given(st.text(max_size=60) | st.lists(st.text("aA0-_=.", max_size=9)).map(".".join))
def test_no_text_is_a_fault_of_ours(token: str) -> None:
    """Whatever stands where a token belongs is refused."""
    assert Code.TOKEN_INVALID is refusal_of(Tokens(KEY, LIFETIMES), token)


def test_refused_tokens_are_not_remembered(tokens: Tokens, clock: Clock) -> None:
    """A forgery is looked at anew each time, and the memory of good ones is bounded."""
    forged = signed(HEADER, good(clock), "o" * 64)
    before = len(tokens._memory)
    for _ in range(2):
        refusal_of(tokens, forged)

    assert before == len(tokens._memory)
    assert all(isinstance(known, Claims) for known in tokens._memory.values())
