"""Whatever is sent, the answer is an envelope and never a 5xx."""

from string import ascii_letters
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.api.client import Response
from tests.api.conftest import PEOPLE, House

NAMES = st.sampled_from(["name", "size", "parts", "weight", "page", "page_size", "sort", "keyword"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(NAMES | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=8,
)
SEGMENTS = st.sampled_from(["things", "trees", "leaves", "system", "info", "health", "forgotten"])
PATHS = st.lists(SEGMENTS | st.binary(max_size=9).map(quote_from_bytes), max_size=5).map("/".join)
WHO = st.sampled_from([None, "stranger", *PEOPLE])


def assert_sane(answer: Response) -> None:
    assert answer.status < 500
    document = answer.json()
    assert set(document) == {"code", "message", "data", "timestamp", "trace_id"}
    assert (answer.status < 300) == (document["code"] == 20000)
    assert document["trace_id"] == answer.headers["x-request-id"]
    if answer.status >= 400:
        assert document["data"] is None or document["data"]["errors"]


@pytest.fixture
def house(direct_house: House) -> House:
    """Without the door, which has tests of its own."""
    return direct_house


@given(WHO, st.sampled_from(["POST", "PUT", "DELETE", "GET"]), JSON)
async def test_any_document(house: House, who: str | None, method: str, document: object) -> None:
    """Any JSON document on any method of a route is answered by it or refused."""
    assert_sane(await house.client(who).request(method, "/api/v1/things", document))


@given(st.binary(max_size=200))
async def test_any_bytes(house: House, body: bytes) -> None:
    """Any bytes that say they are JSON are refused, or are a document."""
    headers = {"content-type": "application/json"}
    answer = await house.client("other").request(
        "POST", "/api/v1/things", body=body, headers=headers
    )
    assert_sane(answer)


@given(
    st.lists(st.tuples(NAMES, st.binary(max_size=9).map(quote_from_bytes))).map(
        lambda pairs: "&".join("=".join(pair) for pair in pairs)
    )
    | st.text(ascii_letters + "0123456789%&=;+#-", max_size=40)
)
async def test_any_query(house: House, query: str) -> None:
    """Any query is answered or refused."""
    assert_sane(await house.client().get(f"/api/v1/things?{query}"))


@given(WHO, st.sampled_from(["GET", "HEAD", "POST", "OPTIONS", "X"]), PATHS)
async def test_any_path(house: House, who: str | None, method: str, path: str) -> None:
    """Any path, by anyone, with any method, is answered or refused."""
    assert_sane(await house.client(who).request(method, f"/api/v1/{path}"))


@given(
    st.dictionaries(
        st.sampled_from(["x-request-id", "accept-language", "authorization", "content-length"]),
        st.text(st.characters(max_codepoint=255), max_size=30),
    )
)
async def test_any_header(house: House, headers: dict[str, str]) -> None:
    """Whatever the headers say that the frame reads, it is understood or ignored."""
    answer = await house.client("other").request(
        "POST", "/api/v1/things", {"name": "a"}, headers=headers
    )
    assert_sane(answer)
