"""A door on a free port of the loopback, and raw clients for it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from cypd.doors.asgi import Application
from cypd.doors.plain import Limits, PlainDoor, bind
from tests.doors.client import Client

QUICK = Limits(sweep=0.02, header=0.2, keep_alive=0.3, rate_window=0.2, linger=0.3)

OpenDoor = Callable[..., Awaitable["Opened"]]


class Opened:
    """A listening door and the clients that a test has opened to it."""

    def __init__(self, door: PlainDoor, address: tuple[str, int]) -> None:
        self.door = door
        self.address = address
        self.clients: list[Client] = []

    async def client(self, **options: Any) -> Client:
        client = await Client.connect(self.address, **options)
        self.clients.append(client)
        return client

    async def ask(self, data: bytes) -> bytes:
        """Send ``data`` on a fresh connection; everything that comes until the door closes."""
        client = await self.client()
        await client.send(data)
        return await client.read_all()


@pytest.fixture
async def open_door() -> AsyncIterator[OpenDoor]:
    """Opens doors: ``await open_door(app, limits=..., eager=...)``."""
    opened: list[Opened] = []

    async def open_one(app: Application, limits: Limits = QUICK, **options: Any) -> Opened:
        door = PlainDoor(app, limits, **options)
        sock = bind("127.0.0.1", 0)
        address = sock.getsockname()
        await door.start([sock])
        opened.append(Opened(door, address))
        return opened[-1]

    yield open_one
    for one in opened:
        for client in one.clients:
            client.close()
        await one.door.drain(0.5)
