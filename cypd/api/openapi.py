"""The OpenAPI 3.1 document of a list of routes."""

import re
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from types import UnionType
from typing import Any, get_args

import msgspec

import cypd
from cypd.api.envelope import JSON
from cypd.api.routes import Document, Route, Stream
from cypd.audit.ports import SUCCESS
from cypd.refusals import Code

Schema = dict[str, Any]

_PARAMETER = re.compile(r"\{(?:path:)?(\w+)\}")
_INPUT = (
    Code.INVALID_PARAMETER,
    Code.MISSING_PARAMETER,
    Code.WRONG_TYPE,
    Code.VALIDATION_FAILED,
)
_SECURITY: list[dict[str, list[str]]] = [{"bearer": []}, {"basic": []}]
_SCHEMES = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An access token from `/api/v1/auth/login`, or a personal access token.",
    },
    "basic": {
        "type": "http",
        "scheme": "basic",
        "description": "A user name and a personal access token of that user.",
    },
}
_INTRODUCTION = """\
Every answer is an envelope: `code`, `message`, `data`, `timestamp` (unix seconds) and `trace_id`,
which is also in the header `X-Request-ID` and in the daemon's log. `message` is Chinese, or English
where `Accept-Language` prefers it. Times are RFC 3339 in UTC, sizes are bytes.
"""
_REFUSED: Schema = {
    "type": "object",
    "title": "Refused",
    "properties": {
        "code": {"type": "integer"},
        "message": {"type": "string"},
        "data": {
            "anyOf": [
                {"type": "null"},
                {
                    "type": "object",
                    "properties": {
                        "errors": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "properties": {
                                    "field": {"type": "string"},
                                    "message": {"type": "string"},
                                },
                                "required": ["field", "message"],
                            },
                        }
                    },
                    "required": ["errors"],
                },
            ]
        },
        "timestamp": {"type": "integer"},
        "trace_id": {"type": "string"},
    },
    "required": ["code", "message", "data", "timestamp", "trace_id"],
}


def describe(routes: Sequence[Route]) -> dict[str, Any]:
    """Return the document of those routes whose answers are documents of data."""
    types = list(dict.fromkeys(it for route in routes for it in _types(route)))
    schemas, components = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    by_type = dict(zip(types, schemas, strict=True))
    for route in routes:
        if route.query is not None and "$ref" in by_type[route.query]:
            # A query is not a document: it stands in the document as its parameters.
            name = by_type[route.query]["$ref"].rpartition("/")[2]
            by_type[route.query] = components.pop(name)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = _PARAMETER.sub(r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, path, by_type)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "cypd",
            "version": cypd.__version__.partition("+")[0],
            "description": f"{_INTRODUCTION}\n{_table_of_codes()}",
        },
        "paths": paths,
        "components": {
            "schemas": {**components, "Refused": _REFUSED},
            "securitySchemes": _SCHEMES,
        },
    }


def refusals(route: Route) -> list[Code]:
    """Return every code that a route can answer beside success."""
    access = route.access.refusals() if route.access else (Code.NO_CREDENTIALS,)
    found = [*access, *route.refusals, Code.INTERNAL, Code.METADATA_UNAVAILABLE]
    if route.body or route.query:
        found += _INPUT
    if route.body:
        found.append(Code.BODY_TOO_LARGE)
    if "{" in route.path:
        found.append(Code.NO_SUCH_PATH)
    return sorted(set(found), key=lambda code: code.number)


def _types(route: Route) -> Iterable[Any]:
    if route.body is not None:
        yield route.body
    if route.query is not None:
        yield route.query
    if route.answer not in (Document, Stream):
        yield from _kinds(route.answer)


def _kinds(answer: Any) -> tuple[Any, ...]:
    """Return the types that a union is of: msgspec has no schema for one of several Structs."""
    return get_args(answer) if isinstance(answer, UnionType) else (answer,)


def _operation(route: Route, path: str, schemas: dict[Any, Schema]) -> dict[str, Any]:
    # Without the prefix, which says nothing.
    words = re.findall(r"\w+", path.partition("/api/v1")[2])
    operation: dict[str, Any] = {
        "operationId": "_".join([route.method.lower(), *words]),
        "tags": [route.tag],
        "summary": route.summary,
        "security": [] if route.access and route.access.is_open else _SECURITY,
        "parameters": [*_path_parameters(path), *_query_parameters(route, schemas)],
        "responses": _responses(route, schemas),
    }
    if route.body is not None:
        content = {JSON: {"schema": schemas[route.body]}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _path_parameters(path: str) -> Iterable[Schema]:
    for name in _PARAMETER.findall(path):
        schema = {"type": "string", "minLength": 1, "maxLength": 255}
        yield {"name": name, "in": "path", "required": True, "schema": schema}


def _query_parameters(route: Route, schemas: dict[Any, Schema]) -> Iterable[Schema]:
    if route.query is None:
        return
    shape = schemas[route.query]
    for name, schema in shape["properties"].items():
        required = name in shape.get("required", ())
        yield {"name": name, "in": "query", "required": required, "schema": schema}


def _responses(route: Route, schemas: dict[Any, Schema]) -> dict[str, Any]:
    responses: dict[str, Any] = {str(route.status): _success(route, schemas)}
    by_status: dict[int, list[Code]] = {}
    for code in refusals(route):
        by_status.setdefault(code.status, []).append(code)
    for status, codes in sorted(by_status.items()):
        responses[str(status)] = {
            "description": "; ".join(f"{it.number} {it.message(english=True)}" for it in codes),
            "content": {JSON: {"schema": {"$ref": "#/components/schemas/Refused"}}},
        }
    return responses


def _success(route: Route, schemas: dict[Any, Schema]) -> dict[str, Any]:
    description = HTTPStatus(route.status).phrase
    if route.answer is Stream:
        return {"description": description, "content": {"text/event-stream": {}}}
    if route.answer is Document:
        return {"description": description, "content": {JSON: {"schema": {"type": "object"}}}}
    kinds = [schemas[it] for it in _kinds(route.answer)]
    data = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    properties = {**_REFUSED["properties"], "code": {"const": SUCCESS}, "data": data}
    schema = {"type": "object", "properties": properties, "required": _REFUSED["required"]}
    return {"description": description, "content": {JSON: {"schema": schema}}}


def _table_of_codes() -> str:
    rows = [f"| {it.number} | {it.status} | {it.message(english=True)} |" for it in Code]
    return "\n".join(["| code | status | meaning |", "|---|---|---|", *rows])
