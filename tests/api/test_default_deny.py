"""The routes of the daemon itself: what is not open by name is closed."""

import re
from typing import Any

import orjson
import pytest

from tests.daemon import Daemon

# Adding to this list opens a route to everyone.
OPEN = {
    ("GET", "/api/v1/health"),
    ("GET", "/api/v1/openapi.json"),
    ("POST", "/api/v1/auth/login"),
    ("POST", "/api/v1/auth/register"),
    ("POST", "/api/v1/auth/refresh"),
    ("POST", "/api/v1/auth/mfa/verify"),
}


@pytest.fixture
def operations(document: Any) -> dict[tuple[str, str], Any]:
    """Every route by method and path."""
    return {
        (method.upper(), path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def test_only_these_are_open(operations: dict[tuple[str, str], Any]) -> None:
    """No route is open but those that have to be."""
    found = {route for route, operation in operations.items() if operation["security"] == []}

    assert found <= OPEN


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer x", "Bearer a.b.c", "Bearer pat_v1_" + "0" * 64, "Basic",
     "Basic !!!", "Basic YWRtaW46d3Jvbmc=", "Digest x", "Negotiate x", "bearer\tx"],
)  # fmt: skip
def test_every_other_route_wants_credentials(
    daemon: Daemon, operations: dict[tuple[str, str], Any], authorization: str | None
) -> None:
    """Without credentials, with malformed ones and with an unknown scheme it is 401 everywhere,
    whatever else is wrong with the request.
    """
    headers = {} if authorization is None else {"Authorization": authorization}
    for method, path in operations.keys() - OPEN:
        url = re.sub(r"\{\w+\}", "x", path)
        answer = daemon.request(method, url, headers=headers, auth=False)
        document = orjson.loads(answer.body)

        assert answer.status == 401, (method, path)
        assert 30001 <= document["code"] < 40000
        assert document["data"] is None
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="cypd"'
