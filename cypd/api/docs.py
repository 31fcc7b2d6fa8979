"""The OpenAPI document, and the same for people: one page without scripts."""

import re
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from typing import Any

import msgspec

from cypd.api.envelope import JSON
from cypd.api.openapi import describe
from cypd.api.routes import OPEN, PREFIX, Call, Document, Route
from cypd.refusals import Code

_NOTHING = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_PAGE = f"{_NOTHING}; style-src 'self'"


class Docs:
    """The handlers; what they answer is built once."""

    def __init__(self, routes: Sequence[Route]) -> None:
        document = describe([*routes, self._machine_route()])
        style = resources.files("cypd.api").joinpath("style.css").read_bytes()
        self._openapi = Document(JSON, msgspec.json.encode(document), f"{_NOTHING}; sandbox")
        self._page = Document("text/html; charset=utf-8", render(document).encode(), _PAGE)
        self._style = Document("text/css; charset=utf-8", style, _NOTHING)

    def routes(self) -> list[Route]:
        """Return what the API serves of it."""
        return [
            self._machine_route(),
            Route("GET", "/docs", self.page, OPEN, answer=Document),
            Route("GET", "/docs/style.css", self.style, OPEN, answer=Document),
        ]

    def _machine_route(self) -> Route:
        path = f"{PREFIX}/openapi.json"
        summary = "Describe this API, without an envelope"
        return Route("GET", path, self.openapi, OPEN, answer=Document, summary=summary)

    async def openapi(self, call: Call) -> Document:
        """Answer with the OpenAPI document."""
        return self._openapi

    async def page(self, call: Call) -> Document:
        """Answer with the page."""
        return self._page

    async def style(self, call: Call) -> Document:
        """Answer with the page's style sheet."""
        return self._style


def render(document: dict[str, Any]) -> str:
    """Return an OpenAPI document as an HTML page."""
    info = document["info"]
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(info['title'])} API</title>",
            '<link rel="stylesheet" href="/docs/style.css"></head><body>',
            f"<h1>{escape(info['title'])} API {escape(info['version'])}</h1>",
            f"<p>{_prose(info['description'].partition('| code')[0])}</p>",
            f'<p><a href="{PREFIX}/openapi.json">openapi.json</a></p>',
            *_operations(document["paths"]),
            "<h2>Shapes</h2>",
            *_schemas(document["components"]["schemas"]),
            "<h2>Codes</h2>",
            _table(
                ["code", "status", "meaning", ""],
                [[it.number, it.status, it.message(english=True), it.message()] for it in Code],
            ),
            "</body></html>",
        ]
    )


def _prose(text: str) -> str:
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))


def _operations(paths: dict[str, dict[str, Any]]) -> Iterable[str]:
    tags: dict[str, list[str]] = {}
    for path, operations in paths.items():
        for method, operation in operations.items():
            section = tags.setdefault(operation["tags"][0], [])
            section.append(_operation(method, path, operation))
    for tag, sections in sorted(tags.items()):
        yield f"<h2>{escape(tag)}</h2>"
        yield from sections


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    access = "" if operation["security"] else " <em>open</em>"
    parts = [
        f"<h3><b>{method.upper()}</b> <code>{escape(path)}</code>{access}</h3>",
        f"<p>{escape(operation['summary'])}</p>",
    ]
    if parameters := operation["parameters"]:
        rows = [[it["name"], it["in"], _Html(_shape(it["schema"]))] for it in parameters]
        parts.append(_table(["parameter", "in", "type"], rows))
    if body := operation.get("requestBody"):
        parts.append(f"<p>Body: {_shape(body['content'][JSON]['schema'])}</p>")
    answers = [
        [status, answer["description"], _Html(_data(answer))]
        for status, answer in operation["responses"].items()
    ]
    parts.append(_table(["status", "", "data"], answers))
    return "<section>" + "\n".join(parts) + "</section>"


def _data(answer: dict[str, Any]) -> str:
    schema = answer["content"].get(JSON, {}).get("schema", {})
    return _shape(schema["properties"]["data"]) if "properties" in schema else ""


def _schemas(schemas: dict[str, Any]) -> Iterable[str]:
    for name, schema in schemas.items():
        required = schema.get("required", ())
        rows = [
            [field, "" if field in required else "optional", _Html(_shape(it))]
            for field, it in schema.get("properties", {}).items()
        ]
        description = escape(schema.get("description", ""))
        yield f'<h3 id="{escape(name)}">{escape(name)}</h3><p>{description}</p>'
        yield _table(["field", "", "type"], rows)


def _shape(schema: dict[str, Any]) -> str:
    """Return a schema in a few words, as HTML."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_shape(it) for it in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_shape(schema.get('items', {}))}"
    if "enum" in schema:
        return escape(" | ".join(str(it) for it in schema["enum"]))
    words = [str(schema.get("format") or schema.get("type", "any"))]
    words += [
        f"{word} {schema[key]}"
        for key, word in (
            ("minimum", "from"), ("maximum", "to"),
            ("minLength", "at least"), ("maxLength", "at most"), ("pattern", "as"),
        )
        if key in schema
    ]  # fmt: skip
    return escape(" ".join(words))


class _Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["<table><tr>" + "".join(f"<th>{escape(it)}</th>" for it in head) + "</tr>"]
    for row in rows:
        cells = (it if isinstance(it, _Html) else escape(str(it)) for it in row)
        lines.append("<tr>" + "".join(f"<td>{it}</td>" for it in cells) + "</tr>")
    return "\n".join([*lines, "</table>"])
