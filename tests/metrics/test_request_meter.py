"""The meter of requests: what it counts of answers of every kind, and that it changes none."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cypd.doors.asgi import REQUEST_SLABS, ZEROCOPY_SEND, Receive, Scope, Send
from cypd.metrics import table
from cypd.metrics.named import NamedProjects
from cypd.metrics.page import Page
from cypd.metrics.pages import Pages
from cypd.oci.digest import Digest
from cypd.oci.endpoints import parse
from cypd.request_meter import metered

BLOB = f"/v2/library/app/blobs/{Digest.of(b'')}"
MIB = 1 << 20


class House:
    """A page, and an application that answers with some messages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.page = Page(folder)
        self.sent: list[dict[str, Any]] = []
        self.during: list[int] = []
        """What was counted as sent when each message was handed on."""
        self.active: list[int] = []
        """How many pulls were active then."""

    async def ask(
        self,
        *messages: dict[str, Any],
        status: int = 200,
        method: str = "GET",
        path: str = BLOB,
        seconds: float = 0,
        **extra: Any,
    ) -> None:
        """Have one request answered; each message takes ``seconds`` to send."""

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            scope["target"] = parse(method, path)
            await send({"type": "http.response.start", "status": status, "headers": []})
            for message in messages:
                await send(message)

        async def receive() -> dict[str, Any]:
            raise AssertionError("there is no body")

        async def send(message: dict[str, Any]) -> None:
            self.during.append(self.count(table.SENT) or 0)
            self.active.append(self.count(table.ACTIVE_PULLS) or 0)
            await asyncio.sleep(seconds)
            self.sent.append(message)

        scope = {"method": method, "path": path, "headers": [], "extensions": {}}
        scope |= {"scheme": "http"} | extra
        await metered(application, self.page, NamedProjects(self.folder, 10))(scope, receive, send)

    def count(self, metric: table.Metric, *labels: str) -> int | None:
        """Return what was counted of a series."""
        found = Pages(self.folder).values().get((metric.name, *labels))
        return None if found is None else found[0]

    def pulled(self, source: str) -> int | None:
        """Return the bytes that were pulled."""
        return self.count(table.PULLED, "library", source)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """An empty page."""
    house = House(tmp_path)
    yield house
    house.page.close()


async def test_a_large_file_is_counted_while_it_is_sent(house: House) -> None:
    """It goes in pieces that together are the file, and the counter moves with each of them."""
    message = {"type": ZEROCOPY_SEND, "file": 3, "offset": 10, "count": 150 * MIB}
    await house.ask({**message, "more_body": False})
    pieces = house.sent[1:]

    assert [it["count"] for it in pieces] == [64 * MIB, 64 * MIB, 22 * MIB]
    assert [it["offset"] for it in pieces] == [10, 10 + 64 * MIB, 10 + 128 * MIB]
    assert [it["more_body"] for it in pieces] == [True, True, False]
    assert house.during == [0, 0, 64 * MIB, 128 * MIB]
    assert house.active == [0, 1, 1, 1]
    assert house.pulled("sendfile") == 150 * MIB == house.count(table.SENT)
    assert house.count(table.ACTIVE_PULLS) == 0


async def test_who_leaves_in_the_middle_got_the_pieces_before(house: House) -> None:
    """A transfer that breaks off counts what was sent whole, and is active no longer."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        scope["target"] = parse("GET", BLOB)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": ZEROCOPY_SEND, "file": 3, "offset": 0, "count": 100 * MIB})

    async def send(message: dict[str, Any]) -> None:
        if message.get("offset"):
            raise ConnectionResetError

    scope = {"method": "GET", "path": BLOB, "scheme": "http", "extensions": {}}
    named = NamedProjects(house.folder, 10)
    with pytest.raises(ConnectionResetError):
        await metered(application, house.page, named)(scope, None, send)  # type: ignore[arg-type]

    assert house.pulled("sendfile") == 64 * MIB
    assert house.count(table.ACTIVE_PULLS) == 0
    assert house.count(table.REQUESTS, "blobs", "GET", "200") == 1


async def test_who_left_before_the_answer_got_none(house: House) -> None:
    """The registry answers whom it can't know to be gone: what can't be sent is no answer."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        scope["target"] = parse("GET", BLOB)
        with suppress(ConnectionResetError):
            await send({"type": "http.response.start", "status": 400, "headers": []})

    async def send(_: dict[str, Any]) -> None:
        raise ConnectionResetError

    scope = {"method": "GET", "path": BLOB, "scheme": "http", "extensions": {}}
    named = NamedProjects(house.folder, 10)
    await metered(application, house.page, named)(scope, None, send)  # type: ignore[arg-type]

    assert house.count(table.REQUESTS, "blobs", "GET", "none") == 1
    assert house.count(table.REQUESTS, "blobs", "GET", "400") is None


async def test_a_file_by_tls_goes_by_way_of_memory(house: House) -> None:
    """It is read and encrypted there."""
    message = {"type": ZEROCOPY_SEND, "file": 3, "offset": 0, "count": 1000}
    await house.ask(message, scheme="https")

    assert house.pulled("memory") == 1000
    assert house.pulled("sendfile") is None


async def test_pieces_from_memory_add_up(house: House) -> None:
    """Bodies of several messages count whole, and while they are sent."""
    piece = {"type": "http.response.body", "body": b"x" * MIB, "more_body": True}
    await house.ask(piece, piece, piece, {"type": "http.response.body", "body": b"end"})

    assert house.pulled("memory") == 3 * MIB + 3
    assert house.during[-1] >= 2 * MIB
    assert house.active == [0, 1, 1, 1, 1]
    assert house.count(table.ACTIVE_PULLS) == 0


async def test_a_list_in_pieces_is_no_active_pull(house: House) -> None:
    """However long it takes to send it."""
    piece = {"type": "http.response.body", "body": b"x", "more_body": True}
    await house.ask(piece, {"type": "http.response.body"}, path="/v2/library/app/tags/list")

    assert house.active == [0, 0, 0]


async def test_a_rate_is_of_the_time_that_sending_took(house: House) -> None:
    """Not of the moment in which the application said what is to be sent."""
    message = {"type": ZEROCOPY_SEND, "file": 3, "offset": 0, "count": 2 * MIB}
    await house.ask(message, scheme="https", seconds=0.1)
    *counts, rate = Pages(house.folder).values()[(table.PULL_RATE.name,)]

    assert sum(counts) == 1
    assert 0 < rate <= 20 * MIB


@pytest.mark.parametrize("status", [401, 404, 416, 500])
async def test_a_refusal_is_no_pull(house: House, status: int) -> None:
    """Its bytes are sent, but of no project: so names that somebody made up make no series."""
    body = {"type": "http.response.body", "body": b"refused"}
    await house.ask(body, status=status, path=BLOB.replace("library", "made-up"))

    assert house.count(table.SENT) == 7
    assert house.count(table.REQUESTS, "blobs", "GET", str(status)) == 1
    assert not [it for it in Pages(house.folder).values() if "made-up" in it]


async def test_what_is_fetched_elsewhere_is_pulled_too(house: House) -> None:
    """A redirect to the object store counts the bytes that it stands for."""
    empty = {"type": "http.response.body", "body": b""}
    await house.ask(empty, status=307, redirected=12345)

    assert house.pulled("redirect") == 12345
    assert house.count(table.SENT) == 0


async def test_methods_that_nobody_knows_are_one(house: House) -> None:
    """However many a client invents."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 405, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def send(message: dict[str, Any]) -> None:
        pass

    run = metered(application, house.page, NamedProjects(house.folder, 10))
    for number in range(1000):
        scope = {"method": f"M{number}", "path": f"/x{number}", "headers": [], "extensions": {}}
        await run(scope, None, send)  # type: ignore[arg-type]

    assert house.count(table.REQUESTS, "other", "other", "405") == 1000
    assert len(house.page.slots) < 10


@pytest.mark.parametrize("slabs", [False, True])
async def test_a_body_is_counted_as_it_comes_in(house: House, slabs: bool) -> None:
    """By whichever of the door's two ways, of a project and of all, and it is active meanwhile."""
    path = "/v2/library/app/blobs/uploads/5f3b"
    active = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        scope["target"] = parse("PATCH", path)
        if slabs:
            receive = scope["extensions"][REQUEST_SLABS]["receive"]
        while (await receive())["more_body"]:
            active.append(house.count(table.ACTIVE_UPLOADS))
        await send({"type": "http.response.start", "status": 202, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    left = [(b"x" * MIB, True), (b"y" * 5, False)]

    async def receive() -> dict[str, Any]:
        body, more = left.pop(0)
        return {"type": "http.request", "body": memoryview(body), "more_body": more}

    async def send(message: dict[str, Any]) -> None:
        pass

    extensions = {REQUEST_SLABS: {"receive": receive}} if slabs else {}
    scope = {"method": "PATCH", "path": path, "headers": [], "extensions": extensions}
    await metered(application, house.page, NamedProjects(house.folder, 10))(scope, receive, send)

    assert house.count(table.PUSHED, "library", "upload") == MIB + 5 == house.count(table.RECEIVED)
    assert (active, house.count(table.ACTIVE_UPLOADS)) == ([1], 0)
    rates = Pages(house.folder).values()[(table.PUSH_RATE.name,)]
    assert sum(rates[:-1]) == 1
