"""The frame: who is let in, what comes back, and that nothing else does."""

import asyncio
import logging
import time
from collections.abc import Iterator

import pytest

from cypd.api.app import MAX_BODY
from cypd.oci import errors as oci
from cypd.refusals import Code, Refusal, invalid
from cypd.registry.ports import BlobMissing, Fatal, Unavailable
from tests.api.client import Response
from tests.api.conftest import House

ENVELOPE = {"code", "message", "data", "timestamp", "trace_id"}


def assert_refused(answer: Response, code: Code) -> None:
    assert (code.status, code.number) == (answer.status, answer.code)
    assert set(answer.json()) == ENVELOPE


async def test_success_is_in_the_envelope(house: House) -> None:
    """A success carries 20000, the handler's value, the time in unix seconds and the trace id."""
    answer = await house.client().get("/api/v1/health")
    document = answer.json()

    assert answer.status == 200
    assert set(document) == ENVELOPE
    assert (20000, "success", {"status": "ok"}) == (
        document["code"], document["message"], document["data"],
    )  # fmt: skip
    assert abs(document["timestamp"] - time.time()) < 100
    assert document["trace_id"] == answer.headers["x-request-id"]


async def test_a_created_thing_is_201(house: House) -> None:
    """The status of success is the one that the route declares."""
    answer = await house.client("other").request("POST", "/api/v1/things", {"name": "a"})

    assert (201, {"name": "a", "size": 0}) == (answer.status, answer.data)


async def test_what_returns_nothing_has_null(house: House) -> None:
    """A handler without a value answers 200 with the envelope, ``data`` null."""
    answer = await house.client("root").request("DELETE", "/api/v1/things/x")

    assert (200, 20000, None) == (answer.status, answer.code, answer.data)


@pytest.mark.parametrize(
    ("url", "who"),
    [("/api/v1/health", None), ("/api/v1/nothing", None), ("/api/v1/things/x", None),
     ("/api/v1/things/x", "other"), ("/docs", None), ("/api/v1/openapi.json", None)],
)  # fmt: skip
async def test_every_answer_is_harmless_to_browsers(
    house: House, url: str, who: str | None
) -> None:
    """No answer may be cached, sniffed, framed, run, or read by another site's scripts."""
    answer = await house.client(who).get(url, headers={"origin": "https://evil.example"})

    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].startswith(
        "default-src 'none'; frame-ancestors 'none'"
    )
    assert not [name for name in answer.headers if name.startswith("access-control-")]


async def test_a_handler_has_a_task(house: House) -> None:
    """Handlers may use timeouts from their first line on, although the door runs without a task."""
    assert (await house.client().get("/api/v1/wait")).status == 200


# --- who is let in ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "method", "url", "code"),
    [
        (None, "GET", "/api/v1/things/x", Code.NO_CREDENTIALS),
        (None, "GET", "/api/v1/system/info", Code.NO_CREDENTIALS),
        ("stranger", "GET", "/api/v1/things/x", Code.TOKEN_INVALID),
        ("docker", "GET", "/api/v1/things/x", Code.TOKEN_INVALID),
        ("late", "GET", "/api/v1/things/x", Code.TOKEN_INVALID),
        ("reader", "POST", "/api/v1/things", Code.LACKS_WRITE),
        ("other", "DELETE", "/api/v1/things/x", Code.PERMISSION_MISSING),
        ("reader-of-root", "DELETE", "/api/v1/things/x", Code.LACKS_ADMIN),
        ("root", "GET", "/api/v1/forgotten", Code.NO_CREDENTIALS),
    ],
)
async def test_default_is_deny(
    house: House, who: str | None, method: str, url: str, code: Code
) -> None:
    """Nobody, wrong credentials, docker's tokens, too small a scope and a route without a rule
    are refused, each with its own code, and no handler runs.
    """
    answer = await house.client(who).request(method, url)

    assert_refused(answer, code)
    assert house.things.calls == []
    if code.status == 401:
        assert answer.headers["www-authenticate"] == 'Bearer realm="cypd"'


async def test_an_open_route_does_not_look_at_credentials(house: House) -> None:
    """Signing in anew works although the client still sends what has run out."""
    answer = await house.client("stranger").get("/api/v1/health")

    assert answer.status == 200
    assert house.credentials.addresses == []


async def test_two_credentials_are_none(house: House) -> None:
    """A second Authorization can't hide behind the first, whichever a proxy looks at."""
    headers = {"Authorization": "Bearer root", "authorization": "Bearer other"}
    answer = await house.client().get("/api/v1/things/x", headers=headers)

    assert_refused(answer, Code.TOKEN_INVALID)


async def test_handlers_and_the_authenticator_learn_the_address(direct_house: House) -> None:
    """The client's address goes to the authenticator, for its throttle, and to the handler."""
    answer = await direct_house.client("other").get("/api/v1/things/x")

    assert answer.data["address"] == "192.0.2.7"
    assert direct_house.credentials.addresses == ["192.0.2.7"]


# --- paths and methods --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["/api/v1", "/api/v1/", "/api/v1/nothing", "/api/v1/things/a/b", "/docs/x", "/api/v1/%ff%2f",
     "/api/v1/Things", "/api/v1/things/", "/api/v1/health/", "/API/v1/health", "/api/v1//health",
     "/api/v1/" + "x" * 8000],
)  # fmt: skip
async def test_an_unknown_path_is_404_in_the_envelope(direct_house: House, url: str) -> None:
    """What no route has is 10007, in the envelope, for whatever method."""
    for method in ("GET", "POST", "OPTIONS", "BREW"):
        assert_refused(await direct_house.client("root").request(method, url), Code.NO_SUCH_PATH)


@pytest.mark.parametrize("url", ["/api/v1/things/" + "x" * 256, "/api/v1/trees//leaves/x"])
async def test_a_path_parameter_is_bounded(house: House, url: str) -> None:
    """A parameter of more characters than any name or id has, or of none, is no path of ours."""
    assert_refused(await house.client("root").get(url), Code.NO_SUCH_PATH)


@pytest.mark.parametrize("method", ["PUT", "OPTIONS", "TRACE", "BREW", "GET_WS"])
async def test_an_unknown_method_is_405_with_allow(direct_house: House, method: str) -> None:
    """A method that a path does not have is 10008 and names those it has; CORS is not spoken."""
    answer = await direct_house.client().request(method, "/api/v1/things")

    assert_refused(answer, Code.METHOD_NOT_ALLOWED)
    assert answer.headers["allow"] == "GET, HEAD, POST"


async def test_head_is_get_without_the_body(house: House) -> None:
    """HEAD answers wherever GET does, with the same headers."""
    get = await house.client("root").get("/api/v1/things/x", headers={"x-request-id": "a"})
    head = await house.client("root").request(
        "HEAD", "/api/v1/things/x", headers={"x-request-id": "a"}
    )

    assert get.status == head.status
    assert get.headers["content-length"] == head.headers["content-length"]


@pytest.mark.parametrize(
    ("url", "name"),
    [("/api/v1/trees/library%2Fapp/leaves/v1", "library/app"),
     ("/api/v1/trees/library/app/leaves/v1", "library/app"),
     ("/api/v1/trees/a/leaves/b/leaves/v1", "a/leaves/b")],
)  # fmt: skip
async def test_a_path_parameter_may_have_slashes(house: House, url: str, name: str) -> None:
    """A repository's name arrives whole, escaped or plain."""
    assert name == (await house.client().get(url)).data["name"]


# --- trace id and language ----------------------------------------------------------------------


@pytest.mark.parametrize("given", ["a", "A-b_c.9", "x" * 64])
async def test_a_harmless_request_id_is_kept(house: House, given: str) -> None:
    """The client's own X-Request-ID is the trace id, in the envelope and in the header."""
    answer = await house.client().get("/api/v1/health", headers={"x-request-id": given})

    assert given == answer.json()["trace_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a\u00e9", "a;b", "<x>", "../x"])
async def test_any_other_request_id_is_replaced(direct_house: House, given: str) -> None:
    """What could forge a log line or a header is replaced by 8 hex digits."""
    answer = await direct_house.client().get("/api/v1/health", headers={"x-request-id": given})
    trace = answer.json()["trace_id"]

    assert len(trace) == 8
    assert int(trace, 16) >= 0
    assert trace == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("accept", "message"),
    [
        ("", "路径不存在"), ("zh-CN,zh;q=0.9,en;q=0.8", "路径不存在"), ("fr", "路径不存在"),
        ("en;q=0", "路径不存在"), ("*", "路径不存在"), ("zh, en", "路径不存在"),
        ("en;q=high", "路径不存在"), ("en", "no such path"), ("EN-gb", "no such path"),
        ("en, zh", "no such path"), ("zh;q=0.1, en;q=0.11", "no such path"),
        ("fr, en;q=0.5", "no such path"), ("en-US, en; q=0.7, zh; q=0.9", "no such path"),
    ],
)  # fmt: skip
async def test_messages_are_in_the_language_preferred(
    direct_house: House, accept: str, message: str
) -> None:
    """Messages are Chinese, and English where the client weighs it higher."""
    answer = await direct_house.client().get("/api/v1/no", headers={"accept-language": accept})

    assert message == answer.json()["message"]


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trouble", "code"),
    [
        (Refusal(Code.PROJECT_EXISTS), Code.PROJECT_EXISTS),
        (invalid("name", "is taken"), Code.VALIDATION_FAILED),
        (oci.OCIError(oci.Code.MANIFEST_UNKNOWN), Code.IMAGE_NOT_FOUND),
        (oci.OCIError(oci.Code.NAME_UNKNOWN), Code.IMAGE_NOT_FOUND),
        (oci.OCIError(oci.Code.BLOB_UNKNOWN), Code.BLOB_NOT_FOUND),
        (oci.OCIError(oci.Code.UNAUTHORIZED), Code.TOKEN_INVALID),
        (oci.OCIError(oci.Code.DENIED), Code.ACCESS_DENIED),
        (oci.OCIError(oci.Code.DENIED, detail={"quota": 1}), Code.QUOTA_EXCEEDED),
        (oci.OCIError(oci.Code.TAG_INVALID), Code.VALIDATION_FAILED),
        (oci.OCIError(oci.Code.UNSUPPORTED), Code.NOT_IN_THIS_STATE),
        (oci.OCIError(oci.Code.TOOMANYREQUESTS), Code.TOO_MANY_REQUESTS),
        (oci.OCIError(oci.Code.UNAVAILABLE), Code.METADATA_UNAVAILABLE),
        (oci.OCIError(oci.Code.UNKNOWN, "secret"), Code.INTERNAL),
        (Unavailable("the queue is full"), Code.METADATA_UNAVAILABLE),
        (BlobMissing("sha256:secret"), Code.INTERNAL),
        (RuntimeError("secret"), Code.INTERNAL),
        (Fatal("secret"), Code.INTERNAL),
    ],
)
async def test_every_error_has_one_answer(house: House, trouble: Exception, code: Code) -> None:
    """Whatever is raised becomes its code and status; nothing of a fault's words gets out."""
    house.things.trouble = trouble
    answer = await house.client("other").get("/api/v1/things/x")

    assert_refused(answer, code)
    assert b"secret" not in answer.body
    if code is Code.METADATA_UNAVAILABLE:
        assert int(answer.headers["retry-after"]) > 0
    assert house.fatal == ([trouble] if isinstance(trouble, Fatal) else [])


async def test_a_refusals_own_headers_are_sent(house: House) -> None:
    """Retry-After goes with a 429."""
    house.things.trouble = Refusal(Code.TOO_MANY_FAILURES, headers={"Retry-After": "7"})
    answer = await house.client("other").get("/api/v1/things/x")

    assert answer.headers["retry-after"] == "7"


async def test_a_fault_is_logged_with_its_trace_id(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    """The log line of a 500 has the trace id that the client was told, and the traceback."""
    house.things.trouble = RuntimeError("what happened")
    with caplog.at_level(logging.ERROR):
        answer = await house.client("other").get("/api/v1/things/x?token=hidden")

    assert f"trace={answer.json()['trace_id']}" in caplog.text
    assert "what happened" in caplog.text
    assert "hidden" not in caplog.text


async def test_old_clients_get_200() -> None:
    """With ``api.always_200`` the status is 200 and the code says what happened."""
    house = House(always_200=True)
    async with house.api:
        refused = await house.client().get("/api/v1/things/x")
        created = await house.client("other").request("POST", "/api/v1/things", {"name": "a"})

    assert (200, Code.NO_CREDENTIALS.number) == (refused.status, refused.code)
    assert (200, 20000) == (created.status, created.code)


# --- bodies -------------------------------------------------------------------------------------


async def test_a_large_body_is_refused_before_it_is_read(direct_house: House) -> None:
    """A declared length past 1 MiB is 413 without a byte read."""

    def unread() -> Iterator[bytes]:
        raise AssertionError("it is read")
        yield b""

    headers = {"content-type": "application/json", "content-length": str(MAX_BODY + 1)}
    answer = await direct_house.client("other").request(
        "POST", "/api/v1/things", body=unread(), headers=headers
    )

    assert_refused(answer, Code.BODY_TOO_LARGE)


async def test_a_large_body_without_length_is_refused(house: House) -> None:
    """A stream past 1 MiB is 413 as soon as it is past it."""
    answer = await house.client("other").request(
        "POST", "/api/v1/things", body=[b" " * (1 << 16)] * 17
    )

    assert_refused(answer, Code.BODY_TOO_LARGE)


async def test_a_body_of_the_largest_size_is_taken(house: House) -> None:
    """1 MiB exactly is not too large."""
    body = b'{"name": "a"}'.ljust(MAX_BODY)
    answer = await house.client("other").request("POST", "/api/v1/things", body=body)

    assert answer.status == 201


@pytest.mark.parametrize("media_type", ["", "text/plain", "application/x-www-form-urlencoded"])
async def test_only_json_is_taken(house: House, media_type: str) -> None:
    """A form of another site can't send application/json, so nothing else is read."""
    answer = await house.client("other").request(
        "POST", "/api/v1/things", {"name": "a"}, headers={"content-type": media_type}
    )

    assert_refused(answer, Code.INVALID_PARAMETER)
    assert answer.field == "Content-Type"


async def test_a_client_that_goes_away_harms_nobody(direct_house: House) -> None:
    """A body that breaks off is a 400, for who has closed only its sending side."""

    def cut() -> Iterator[bytes]:
        yield b'{"name":'
        raise ConnectionResetError

    answer = await direct_house.client("other").request(
        "POST", "/api/v1/things", body=cut(), headers={"content-type": "application/json"}
    )

    assert_refused(answer, Code.INVALID_PARAMETER)
    assert "broke off" in answer.data["errors"][0]["message"]


async def test_a_cancelled_request_cancels_its_handler(direct_house: House) -> None:
    """When the door gives up on a request, its handler ends too, before the door goes on."""
    started, ended = asyncio.Event(), asyncio.Event()

    async def authenticate(authorization: str | None, *, address: str = "") -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    direct_house.credentials.authenticate = authenticate  # type: ignore[assignment,method-assign]
    request = asyncio.ensure_future(direct_house.client("other").get("/api/v1/things/x"))
    await started.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request

    assert ended.is_set()


# --- lists --------------------------------------------------------------------------------------


async def test_a_list_comes_in_pages(house: House) -> None:
    """A page has its items, the total and where it stands; the default is the first 20."""
    first = (await house.client().get("/api/v1/things")).data
    last = (await house.client().get("/api/v1/things?page=3&sort=-name&page_size=20")).data

    assert (20, 45, 1, 20) == (
        len(first["things"]), first["total"], first["page"], first["page_size"],
    )  # fmt: skip
    assert [f"thing{i}" for i in (4, 3, 2, 1, 0)] == [it["name"] for it in last["things"]]


@pytest.mark.parametrize(
    ("query", "field", "code"),
    [
        ("page=0", "page", Code.VALIDATION_FAILED),
        ("page=10000001", "page", Code.VALIDATION_FAILED),
        ("page=99999999999999999999999999", "page", Code.VALIDATION_FAILED),
        ("page=x", "page", Code.WRONG_TYPE),
        ("page_size=101", "page_size", Code.VALIDATION_FAILED),
        ("page_size=", "page_size", Code.WRONG_TYPE),
        ("keyword=" + "x" * 129, "keyword", Code.VALIDATION_FAILED),
        ("sort=size", "sort", Code.VALIDATION_FAILED),
        ("is_public=maybe", "is_public", Code.WRONG_TYPE),
        ("unknown=1", "unknown", Code.INVALID_PARAMETER),
        ("page=1&page=2", "page", Code.INVALID_PARAMETER),
        ("keyword=%ff", "query", Code.INVALID_PARAMETER),
    ],
)
async def test_a_wrong_query_names_its_parameter(
    house: House, query: str, field: str, code: Code
) -> None:
    """Whatever a query has wrong is 400 with the parameter named."""
    answer = await house.client().get(f"/api/v1/things?{query}")

    assert_refused(answer, code)
    assert field == answer.field


@pytest.mark.parametrize(
    ("body", "field", "code"),
    [
        (b"", "body", Code.INVALID_PARAMETER),
        (b"{", "body", Code.INVALID_PARAMETER),
        (b"\xff", "body", Code.INVALID_PARAMETER),
        (b'{"name": NaN}', "body", Code.INVALID_PARAMETER),
        (b'{"name": "\\ud800"}', "body", Code.INVALID_PARAMETER),
        (b'{"name": "a", "size": 1' + b"0" * 5000 + b"}", "body", Code.INVALID_PARAMETER),
        (b'{"name": "a", "size": 18446744073709551616}', "body", Code.INVALID_PARAMETER),
        (b"[" * 100_000, "body", Code.INVALID_PARAMETER),
        (b"[]", "body", Code.WRONG_TYPE),
        (b'"name"', "body", Code.WRONG_TYPE),
        (b"{}", "name", Code.MISSING_PARAMETER),
        (b'{"name": "a", "name": "b"}', "name", Code.INVALID_PARAMETER),
        (b'{"name": "a", "names": "b"}', "names", Code.INVALID_PARAMETER),
        (b'{"name": 1}', "name", Code.WRONG_TYPE),
        (b'{"name": null}', "name", Code.WRONG_TYPE),
        (b'{"name": "a", "size": "1"}', "size", Code.WRONG_TYPE),
        (b'{"name": "a", "size": true}', "size", Code.WRONG_TYPE),
        (b'{"name": "a", "size": 101}', "size", Code.VALIDATION_FAILED),
        (b'{"name": "A"}', "name", Code.VALIDATION_FAILED),
        (b'{"name": "abcdefghi"}', "name", Code.VALIDATION_FAILED),
        (b'{"name": "a", "parts": [{"weight": 1}, {}]}', "parts[1].weight", Code.MISSING_PARAMETER),
        (b'{"name": "a", "parts": [{"weight": "1"}]}', "parts[0].weight", Code.WRONG_TYPE),
        (b'{"name": "a", "parts": [1]}', "parts[0]", Code.WRONG_TYPE),
        (b'{"name": "a", "' + b"x" * 1000 + b'": 1}', "x" * 128, Code.INVALID_PARAMETER),
    ],
)
async def test_a_wrong_body_names_its_field(
    house: House, body: bytes, field: str, code: Code
) -> None:
    """Whatever a body has wrong is 400 with the field named by its path."""
    answer = await house.client("other").request(
        "POST", "/api/v1/things", body=body, headers={"content-type": "application/json"}
    )

    assert_refused(answer, code)
    assert field == answer.field
