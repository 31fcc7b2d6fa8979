"""The API that was promised in writing: ``registry-api.zh.md`` against the routes served."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

PROMISE = (Path(__file__).parent / "registry-api.zh.md").read_text(encoding="utf-8")
SECTIONS = ("用户认证", "用户管理", "项目管理", "镜像管理", "漏洞扫描", "Webhook")

_ROW = re.compile(
    r"^\| (?P<method>[A-Z]+) \| `(?P<path>[^`]+)` \|.*\| (?P<access>是|否) \|$", re.MULTILINE
)
_PARAMETER = re.compile(r":\w+")
# A request in a block of http, and the next block of json as its answer.
_EXAMPLE = re.compile(
    r"```http\n(?P<method>[A-Z]+) (?P<path>\S+)\n.*?\n\n(?P<body>\{.*?)```.*?"
    r"```json\n(?P<answer>.*?)```",
    re.DOTALL,
)


def promised(section: str) -> list[tuple[str, str, bool]]:
    """Return a section's rows: method, path with ``{}`` for each parameter, who is let in."""
    text = PROMISE.partition(f"### {section}\n")[2].partition("\n### ")[0]
    return [
        (row["method"], _PARAMETER.sub("{}", row["path"]), row["access"] == "否")
        for row in _ROW.finditer(text)
    ]


@pytest.mark.parametrize(
    ("method", "path", "is_open"),
    [row for section in SECTIONS for row in promised(section)],
)
def test_a_promised_route_is_served(document: Any, method: str, path: str, is_open: bool) -> None:
    """Each row of the tables has its route, and those that need no credentials are open."""
    served = {
        (name.upper(), re.sub(r"\{\w+\}", "{}", url)): operation
        for url, operations in document["paths"].items()
        for name, operation in operations.items()
    }

    assert (method, path) in served
    if is_open:
        assert served[method, path]["security"] == []


def test_the_tables_are_read() -> None:
    """No section is empty, so none can be missed by a change of its form."""
    assert [5, 6, 8, 5, 4, 7] == [len(promised(section)) for section in SECTIONS]


@pytest.mark.parametrize("example", list(_EXAMPLE.finditer(PROMISE)), ids=lambda it: it["path"])
def test_an_example_holds(document: Any, example: re.Match[str]) -> None:
    """Each example's request is taken, and each field of its answer is there, of that type."""
    operation = document["paths"][example["path"]][example["method"].lower()]
    answer = next(it for status, it in operation["responses"].items() if status < "300")
    expected = json.loads(example["answer"])["data"]
    data = _fields(document, answer["content"]["application/json"]["schema"]["properties"]["data"])
    body = operation["requestBody"]["content"]["application/json"]["schema"]

    _validate(document, body, json.loads(example["body"]))
    assert expected.keys() <= data.keys()
    for name, value in expected.items():
        _validate(document, data[name], value)


def test_the_examples_are_read() -> None:
    """Signing in and creating a project are the examples there are."""
    assert ["/api/v1/auth/login", "/api/v1/projects"] == [
        it["path"] for it in _EXAMPLE.finditer(PROMISE)
    ]


def test_the_envelope_holds(document: Any) -> None:
    """Every answer has the fields of the documented envelope, and no other."""
    success, error = (_top_fields(f"### {name}响应") for name in ("成功", "错误"))

    assert success == error == {"code", "message", "data", "timestamp", "trace_id"}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            for answer in operation["responses"].values():
                if "text/event-stream" in answer["content"]:
                    continue
                schema = answer["content"]["application/json"]["schema"]
                if path != "/api/v1/openapi.json" or "$ref" in schema:
                    assert success == _fields(document, schema).keys()


def _top_fields(heading: str) -> set[str]:
    """Return the outermost fields of the block below a heading, which may have comments."""
    block = PROMISE.partition(f"{heading}\n```json\n")[2].partition("```")[0]
    return set(re.findall(r'^  "(\w+)":', block, re.MULTILINE))


def _fields(document: Any, schema: Any) -> dict[str, Any]:
    """Return an object's fields; of several kinds of object, those of each."""
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    fields: dict[str, Any] = dict(schema.get("properties", {}))
    for kind in schema.get("anyOf", ()):
        fields |= _fields(document, kind)
    return fields


def _validate(document: Any, schema: Any, value: Any) -> None:
    whole = {**schema, "components": document["components"]}
    jsonschema_rs.Draft202012Validator(whole, validate_formats=True).validate(value)
