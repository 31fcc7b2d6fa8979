"""Listening: addresses, shortage of descriptors, many connections."""

import asyncio
import os
import resource
import socket
from collections import Counter
from statistics import median

import pytest

from cypd.doors.plain import Limits, PlainDoor, bind
from cypd.doors.plain.protocol import Connection
from tests.doors.apps import hello
from tests.doors.client import Client
from tests.doors.conftest import OpenDoor


@pytest.mark.parametrize(
    ("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)]
)
async def test_bind(host: str, family: socket.AddressFamily) -> None:
    """IPv4 and IPv6 can be listened on, without SO_REUSEPORT, without Nagle's delay."""
    with bind(host, 0) as sock:
        assert sock.family == family
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_bind_twice() -> None:
    """An address in use is an error at once."""
    with bind("127.0.0.1", 0) as first:
        first.listen()
        with pytest.raises(OSError, match="in use"):
            bind("127.0.0.1", first.getsockname()[1])


def test_limits_fit_together() -> None:
    """Limits under which a valid head could never be read are refused."""
    with pytest.raises(ValueError, match="pipelined_bytes"):
        Limits(pipelined_bytes=1000)


async def test_two_sockets() -> None:
    """One door can listen on several sockets; draining closes them all."""
    door = PlainDoor(hello, Limits(sweep=0.02))
    sockets = [bind("127.0.0.1", 0), bind("127.0.0.1", 0)]
    addresses = [sock.getsockname() for sock in sockets]
    await door.start(sockets)
    for address in addresses:
        client = await Client.connect(address)
        assert (await client.get()).body == b"hello"
        client.close()
    await door.drain(1)

    for address in addresses:
        with pytest.raises(ConnectionRefusedError):
            await Client.connect(address)
    assert repr(door) == "<PlainDoor 0 connections, 0 active>"


async def test_a_connection_accepted_before_the_drain_is_answered(open_door: OpenDoor) -> None:
    """Whoever got through to the door before it closed has one request answered, not a reset."""
    opened = await open_door(hello)
    clients = [await opened.client() for _ in range(3)]
    await clients[0].get()
    draining = asyncio.ensure_future(opened.door.drain(2))
    await asyncio.sleep(0.02)
    answers = [await client.get() for client in clients[1:]]

    assert [(it.status, it.headers.get(b"connection")) for it in answers] == [(200, b"close")] * 2
    assert await clients[0].receive() == b""  # it was idle, and may open another
    for client in clients:
        client.close()
    await draining
    assert opened.door.connections == 0


async def test_silent_connections_do_not_hold_up_the_drain(open_door: OpenDoor) -> None:
    """One that sends nothing is closed a moment later, long before the drain's deadline."""
    opened = await open_door(hello)
    client = await opened.client()
    await asyncio.sleep(0.02)
    await opened.door.drain(60)

    assert await client.receive() == b""


async def test_no_descriptors_left(open_door: OpenDoor) -> None:
    """Without descriptors for new clients the door neither spins nor dies."""
    opened = await open_door(hello, limits=Limits(sweep=0.02))
    survivor = await opened.client()
    await survivor.get()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    sockets = [socket.socket() for _ in range(20)]
    free = os.open("/", os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 5, before[1]))
    try:
        for sock in sockets:
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                sock.connect(opened.address)
        used = os.times()
        await asyncio.sleep(0.3)
        spent = os.times().user + os.times().system - used.user - used.system
        assert (await survivor.get()).body == b"hello"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for sock in sockets:
            sock.close()
    await asyncio.sleep(0.05)
    late = await opened.client()

    assert spent < 0.15
    assert (await late.get()).body == b"hello"


async def test_connections_are_looked_at_in_small_steps(
    open_door: OpenDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each one once a sweep, a few in one turn of the loop, and nobody waits for all."""
    opened = await open_door(hello, limits=Limits(sweep=0.2))
    for _ in range(100):
        await opened.client()
    await asyncio.sleep(0.3)
    turn, turns, looks = 0, Counter[int](), Counter[Connection]()

    def look(connection: Connection, _now: float) -> None:
        turns[turn] += 1
        looks[connection] += 1

    monkeypatch.setattr(Connection, "look", look)
    deadline = opened.door.loop.time() + 1
    while opened.door.loop.time() < deadline:
        turn += 1
        await asyncio.sleep(0)

    assert median(turns.values()) < 50  # more than 16 only where the machine is late
    assert len(looks) == 100
    assert set(looks.values()) <= {1, 2, 3, 4, 5, 6}
    assert max(looks.values()) - min(looks.values()) <= 1
