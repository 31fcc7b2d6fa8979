"""The daemon against its own OpenAPI document: requests that fit it, and requests that do not."""

from collections import defaultdict
from http import HTTPStatus
from typing import Any

import orjson
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.daemon import Daemon

Operation = APIOperation[Any, Any, Any, Any]

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
# The same requests in each run; what fails is told as it is, since the daemon has moved on.
STEADY = settings(
    max_examples=10,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
# What is made is there before it is looked for, and goes at the end.
METHODS = ("post", "get", "put", "patch", "delete")


class Walk:
    """Asks for every operation, with ids of what it has made itself where it can."""

    def __init__(self, daemon: Daemon, document: Any) -> None:
        self._daemon = daemon
        schema = schemathesis.openapi.from_dict(document)
        found = [it.ok() for it in schema.get_all_operations() if isinstance(it, Ok)]
        # A stream of events has no end that could be waited for.
        found = [it for it in found if it.path != "/api/v1/events"]
        self.operations = sorted(found, key=lambda it: METHODS.index(it.method.lower()))
        # One session each: some end theirs. All at once: later the throttle may be shut.
        self._tokens = [_sign_in(daemon) for _ in self.operations]
        self._made: dict[str, list[str]] = defaultdict(list)

    def run(self) -> None:
        """Ask for all of them; raises what does not conform."""
        for operation, token in zip(self.operations, self._tokens, strict=True):
            self._ask(operation, token, GenerationMode.POSITIVE)
            if operation.path_parameters or operation.query or operation.body:
                self._ask(operation, token, GenerationMode.NEGATIVE)

    def _ask(
        self, operation: APIOperation[Any, Any, Any, Any], token: str, mode: GenerationMode
    ) -> None:
        collection = operation.path.partition("/{")[0]

        @STEADY
        @given(operation.as_strategy(mode), st.booleans())
        def ask(case: Case[Any], known: bool) -> None:
            if known and case.path_parameters and self._made[collection]:
                case.path_parameters["id"] = self._made[collection][-1]
            answer = case.call(self._daemon.url, headers={"Authorization": f"Bearer {token}"})
            case.validate_response(answer, checks=CHECKS)
            if answer.status_code == HTTPStatus.CREATED:
                data = orjson.loads(answer.content)["data"] or {}
                self._made[operation.path] += [data["id"]] if "id" in data else []

        ask()


def _sign_in(daemon: Daemon) -> str:
    body = orjson.dumps({"username": daemon.user, "password": daemon.password})
    headers = {"Content-Type": "application/json"}
    answer = daemon.request("POST", "/api/v1/auth/login", headers=headers, body=body, auth=False)

    assert answer.status == 200, answer.body
    token: str = orjson.loads(answer.body)["data"]["access_token"]
    return token


@pytest.mark.timeout(180)
def test_the_daemon_keeps_to_its_document(daemon: Daemon, document: Any) -> None:
    """No request gets a 5xx, a status or an answer that the document does not have."""
    walk = Walk(daemon, document)
    walk.run()

    assert walk.operations
