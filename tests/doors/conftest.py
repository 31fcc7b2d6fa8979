"""A door on a free port of the loopback, and raw clients for it.

``open_door`` opens the plaintext door, for what is about bytes on the wire: how HTTP/1.1 frames,
what is refused, what is written at once, timeouts to the tenth of a second. At the TLS door that
is hyper's work, with tests of its own. ``open_either`` opens both, one after the other, for what an
application may rely on whichever it stands behind.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Generic, TypeVar

import pytest

from cypd.doors.asgi import Application
from cypd.doors.plain import Limits, PlainDoor, bind
from cypd.doors.tls import Certificates, TlsDoor
from tests.authority import Authority
from tests.doors.client import Client
from tests.doors.tls_client import TlsClient

QUICK = Limits(sweep=0.02, header=0.2, keep_alive=0.3, rate_window=0.2, linger=0.3)

Door_co = TypeVar("Door_co", bound=PlainDoor | TlsDoor, covariant=True)

OpenDoor = Callable[..., Awaitable["Opened[PlainDoor]"]]
OpenTls = Callable[..., Awaitable["OpenedTls"]]
OpenEither = Callable[..., Awaitable["Opened[PlainDoor | TlsDoor]"]]


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so that other threads, or the kernel, are about to do."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


class Opened(Generic[Door_co]):
    """A listening door and the clients that a test has opened to it."""

    def __init__(self, door: Door_co, address: tuple[str, int]) -> None:
        self.door = door
        self.address = address
        self.clients: list[Client] = []

    async def drain(self) -> None:
        for client in self.clients:
            client.close()
        await self.door.drain(0.5)

    async def client(self, **options: Any) -> Client:
        client = await Client.connect(self.address, **options)
        self.clients.append(client)
        return client

    async def ask(self, data: bytes) -> bytes:
        """Send ``data`` on a fresh connection; everything that comes until the door closes."""
        client = await self.client()
        await client.send(data)
        return await client.read_all()


class OpenedTls(Opened[TlsDoor]):
    """The same for the TLS door."""

    def __init__(self, door: TlsDoor, address: tuple[str, int], context: ssl.SSLContext) -> None:
        super().__init__(door, address)
        self.context = context

    async def client(self, **options: Any) -> TlsClient:
        context = options.pop("context", self.context)
        client = await TlsClient.open(self.address, context, **options)
        self.clients.append(client)
        return client


@pytest.fixture
async def opened() -> AsyncIterator[list[Opened[Any]]]:
    """The doors that a test has opened; they close after it."""
    doors: list[Opened[Any]] = []
    yield doors
    for one in doors:
        await one.drain()


@pytest.fixture
def open_door(opened: list[Opened[Any]]) -> OpenDoor:
    """Opens doors: ``await open_door(app, limits=..., eager=...)``."""

    async def open_one(
        app: Application, limits: Limits = QUICK, **options: Any
    ) -> Opened[PlainDoor]:
        door = PlainDoor(app, limits, **options)
        sock = bind("127.0.0.1", 0)
        address = sock.getsockname()
        await door.start([sock])
        one = Opened(door, address)
        opened.append(one)
        return one

    return open_one


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def open_tls(opened: list[Opened[Any]], authority: Authority) -> OpenTls:
    """Opens TLS doors: ``await open_tls(app, limits=..., files=...)``."""

    async def open_one(
        app: Application, limits: Limits = QUICK, files: Certificates = authority.files
    ) -> OpenedTls:
        door = TlsDoor(app, files, limits)
        sock = bind("127.0.0.1", 0)
        address = sock.getsockname()
        await door.start([sock])
        one = OpenedTls(door, address, authority.context())
        opened.append(one)
        return one

    return open_one


@pytest.fixture(params=["plain", "tls"])
def open_either(
    request: pytest.FixtureRequest, open_door: OpenDoor, open_tls: OpenTls
) -> OpenEither:
    """Opens doors of either kind: ``await open_either(app, limits=...)``."""

    async def open_plain(app: Application, limits: Limits = QUICK) -> Opened[PlainDoor]:
        return await open_door(app, limits, eager=False)

    return open_plain if request.param == "plain" else open_tls
