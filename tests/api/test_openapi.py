"""The OpenAPI document and the page made of it."""

from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import schemathesis
from flit_core.buildapi import build_wheel

from cypd.access import Scope
from cypd.api.app import Api
from cypd.api.paging import Page
from cypd.api.routes import OPEN, Call, Input, Route, signed_in
from cypd.refusals import Code
from tests.api.conftest import House, Thing
from tests.samples import unrecorded


@pytest.fixture
async def document(direct_house: House) -> Any:
    """The document as served."""
    answer = await direct_house.client().get("/api/v1/openapi.json")

    assert answer.status == 200
    return answer.json()


async def test_the_document_is_valid(document: Any) -> None:
    """It is OpenAPI 3.1 by its own schema."""
    schemathesis.openapi.from_dict(document).validate()


async def test_every_route_is_described(direct_house: House, document: Any) -> None:
    """Each route of the API is there with its access, and no other."""
    described = {
        (method.upper(), path): operation["security"]
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    served = {
        (route.method, route.path.replace("{path:", "{")): route.access is OPEN
        for route in direct_house.api.routes
        if route.path.startswith("/api/v1/")
    }

    assert served == {key: security == [] for key, security in described.items()}


async def test_an_operation_says_all_it_takes_and_gives(document: Any) -> None:
    """Parameters with their bounds, the body, the enveloped answer and every refusal."""
    listing = document["paths"]["/api/v1/things"]["get"]
    creating = document["paths"]["/api/v1/things"]["post"]
    parameters = {it["name"]: it["schema"] for it in listing["parameters"]}
    envelope = creating["responses"]["201"]["content"]["application/json"]["schema"]

    assert {"page", "page_size", "keyword", "sort", "is_public"} == set(parameters)
    assert (1, 100, 20) == tuple(
        parameters["page_size"][k] for k in ("minimum", "maximum", "default")
    )
    assert ["-name", "name"] == sorted(parameters["sort"]["enum"])
    assert creating["requestBody"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/Thing"
    }
    assert envelope["properties"]["data"] == {"$ref": "#/components/schemas/ThingAnswer"}
    assert {"201", "400", "401", "403", "409", "413", "500", "503"} == set(creating["responses"])
    assert str(Code.PROJECT_EXISTS.number) in creating["responses"]["409"]["description"]
    assert document["components"]["schemas"]["Thing"]["additionalProperties"] is False


async def test_the_codes_are_in_it(document: Any) -> None:
    """Each error code is explained."""
    for code in Code:
        assert f"| {code.number} | {code.status} |" in document["info"]["description"]


class _Outline(HTMLParser):
    """Collects what a page would load or run."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.loads: set[str | None] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loads |= {value for name, value in attrs if name in {"src", "href"}}
        assert not [name for name, _ in attrs if name.startswith("on") or name == "style"]

    def handle_data(self, data: str) -> None:
        self.text += data


async def test_the_page_works_alone(direct_house: House) -> None:
    """/docs shows every route without a script, and loads nothing but its own style sheet."""
    client = direct_house.client()
    page = await client.get("/docs")
    outline = _Outline()
    outline.feed(page.body.decode())
    style = await client.get("/docs/style.css")

    assert ("text/html; charset=utf-8", "text/css; charset=utf-8") == (
        page.headers["content-type"], style.headers["content-type"],
    )  # fmt: skip
    assert {"script", "img", "iframe", "form", "style"}.isdisjoint(outline.tags)
    assert {"/docs/style.css", "/api/v1/openapi.json"} == {
        it for it in outline.loads if it and not it.startswith("#")
    }
    assert b"url(" not in style.body
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "script-src" not in page.headers["content-security-policy"]
    for route in direct_house.api.routes:
        if route.path.startswith("/api/v1/"):
            assert route.path.replace("{path:", "{") in outline.text


def test_the_wheel_has_what_the_page_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The style sheet is installed with the package."""
    monkeypatch.chdir(Path(__file__).parents[2])
    wheel = tmp_path / build_wheel(str(tmp_path))

    assert "cypd/api/style.css" in ZipFile(wheel).namelist()


class Unsafe(Input, frozen=True):
    """<script>alert(1)</script>"""

    field: str


async def test_the_page_escapes() -> None:
    """Nothing that a route says of itself becomes markup."""

    class Handlers:
        async def post(self, call: Call, body: Unsafe) -> None: ...

    route = Route(
        "POST", "/api/v1/x", Handlers().post, OPEN, body=Unsafe, summary="<script>", tag="<b>"
    )
    api = Api([route], None, unrecorded, always_200=False, on_fatal=lambda _: None)  # type: ignore[arg-type]
    async with api:
        house = House()
        house.api = api
        page = await House.client(house).get("/docs")

    assert b"<script" not in page.body


class Either(Input, frozen=True):
    """One body."""


async def test_a_route_says_what_its_handler_says() -> None:
    """A route that declares other types than its handler takes or gives is a mistake at start."""

    class Handlers:
        async def post(self, call: Call, body: Thing) -> None: ...

    handler, path, rule = Handlers().post, "/api/v1/x", signed_in(Scope.READ)
    Route("POST", path, handler, rule, body=Thing)
    with pytest.raises(TypeError, match="body"):
        Route("POST", path, handler, rule)
    with pytest.raises(TypeError, match="body"):
        Route("POST", path, handler, rule, body=Either)
    with pytest.raises(TypeError, match="query"):
        Route("POST", path, handler, rule, body=Thing, query=Page)
    with pytest.raises(TypeError, match="return"):
        Route("POST", path, handler, rule, body=Thing, answer=Thing)
