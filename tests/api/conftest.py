"""The API with routes of its own that show what the frame does, and clients for it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, Literal

import orjson
import pytest
from msgspec import Meta

from cypd.access import ANONYMOUS, Grant, Principal, Scope
from cypd.api.app import Api
from cypd.api.paging import Listing, Page
from cypd.api.routes import OPEN, Answer, Call, Input, Route, administrator, signed_in
from cypd.api.system import Collection, Disk, System
from cypd.doors.plain import PlainDoor, bind
from cypd.refusals import Code, Refusal
from cypd.registry.ports import Fatal
from tests.api.client import Client, Transport, direct, through_door
from tests.daemon import Daemon
from tests.samples import unrecorded

PEOPLE = {
    "root": Principal("1", "root", is_admin=True),
    "reader-of-root": Principal("1", "root", is_admin=True, scope=Scope.READ),
    "other": Principal("2", "other"),
    "reader": Principal("2", "other", scope=Scope.READ),
    "docker": Principal("2", "other", grants=(Grant("library/app", frozenset({"pull"})),)),
    "late": Principal("2", "other", is_expired=True),
}


class Thing(Input, frozen=True):
    """A body."""

    name: Annotated[str, Meta(min_length=1, max_length=8, pattern="^[a-z]+$")]
    size: Annotated[int, Meta(ge=-1, le=100)] = 0
    parts: tuple["Part", ...] = ()


class Part(Input, frozen=True):
    """Something inside it."""

    weight: float


class ThingsQuery(Page, frozen=True):
    """A query."""

    sort: Literal["name", "-name"] = "name"
    is_public: bool | None = None


class ThingAnswer(Answer, frozen=True):
    """An answer."""

    name: str
    size: int


class ThingList(Listing, frozen=True):
    """Several."""

    things: list[ThingAnswer]


class Things:
    """Handlers; ``trouble`` is raised by the next call that would work."""

    def __init__(self) -> None:
        self.trouble: Exception | None = None
        self.calls: list[Call] = []

    async def create(self, call: Call, body: Thing) -> ThingAnswer:
        return ThingAnswer(name=body.name, size=body.size)

    async def browse(self, call: Call, query: ThingsQuery) -> ThingList:
        found = [ThingAnswer(name=f"thing{i}", size=i) for i in range(45)]
        if query.sort.startswith("-"):
            found.reverse()
        page = found[query.offset : query.offset + query.page_size]
        return ThingList(things=page, **query.place(len(found)))

    async def get(self, call: Call) -> dict[str, Any]:
        self.calls.append(call)
        if self.trouble:
            raise self.trouble
        return {"name": call.path["id"], "address": call.address}

    async def wait(self, call: Call) -> None:
        async with asyncio.timeout(60):
            await asyncio.sleep(0)

    async def delete(self, call: Call) -> None:
        self.calls.append(call)

    def routes(self) -> list[Route]:
        things, thing = "/api/v1/things", "/api/v1/things/{id}"
        tree = "/api/v1/trees/{path:id}/leaves/{leaf}"
        taken = (Code.PROJECT_EXISTS,)
        return [
            Route("GET", things, self.browse, OPEN, query=ThingsQuery, answer=ThingList),
            Route(
                "POST", things, self.create, signed_in(Scope.WRITE),
                body=Thing, answer=ThingAnswer, status=201, refusals=taken,
            ),
            Route("GET", thing, self.get, signed_in(Scope.READ), answer=dict[str, Any]),
            Route("DELETE", thing, self.delete, administrator()),
            Route("GET", tree, self.get, OPEN, answer=dict[str, Any]),
            Route("GET", "/api/v1/wait", self.wait, OPEN),
            Route("GET", "/api/v1/forgotten", self.get, answer=dict[str, Any]),
        ]  # fmt: skip


class Credentials:
    """An authenticator that knows some people by their tokens."""

    def __init__(self) -> None:
        self.addresses: list[str] = []

    async def authenticate(self, authorization: str | None, *, address: str = "") -> Principal:
        self.addresses.append(address)
        if authorization is None:
            return ANONYMOUS
        scheme, _, token = authorization.partition(" ")
        if scheme != "Bearer" or token not in PEOPLE:
            raise Refusal(Code.TOKEN_INVALID)
        return PEOPLE[token]


class House:
    """The application, what stands behind it, and clients for it."""

    def __init__(self, *, always_200: bool = False) -> None:
        self.things = Things()
        self.credentials = Credentials()
        self.fatal: list[Fatal] = []
        gc = Collection(interval=3600.0, blob_grace=60.0)
        self.api = Api(
            [*System(lambda: Disk(total=10, free=4), gc, 2).routes(), *self.things.routes()],
            self.credentials,
            unrecorded,
            always_200=always_200,
            on_fatal=self.fatal.append,
        )
        self.transport: Transport = direct(self.api)

    def client(self, who: str | None = None) -> Client:
        """Return a client that is somebody of PEOPLE, or nobody."""
        return Client(self.transport, who and f"Bearer {who}")


@pytest.fixture(params=["direct", "door"])
async def house(request: pytest.FixtureRequest) -> AsyncIterator[House]:
    """The application called directly, and through the real door."""
    built = House()
    async with built.api:
        if request.param == "direct":
            yield built
            return
        door, sock = PlainDoor(built.api), bind("127.0.0.1", 0)
        address = sock.getsockname()
        await door.start([sock])
        built.transport = through_door(address)
        yield built
        await door.drain(1)


@pytest.fixture
async def direct_house() -> AsyncIterator[House]:
    """The application called directly, for properties."""
    built = House()
    async with built.api:
        yield built


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """The daemon with all its routes."""
    with Daemon(tmp_path_factory.mktemp("daemon")) as running:
        yield running


@pytest.fixture(scope="module")
def document(daemon: Daemon) -> Any:
    """The OpenAPI document of the daemon with all its routes."""
    return orjson.loads(daemon.request("GET", "/api/v1/openapi.json", auth=False).body)
