"""Connections that can't be taken, and the kernel's reasons for it."""

import asyncio
import contextlib
import errno
import os
import resource
import socket
import time
from collections.abc import Iterator

import pytest

from cypd.doors.plain import PlainDoor, bind
from tests.doors.apps import hello
from tests.doors.client import Client
from tests.doors.conftest import QUICK, OpenDoor


@pytest.fixture
def crowd() -> Iterator[list[socket.socket]]:
    """Sockets of clients, made while there were descriptors for them."""
    sockets = [socket.socket() for _ in range(20)]
    for sock in sockets:
        sock.setblocking(False)
    yield sockets
    for sock in sockets:
        sock.close()


@pytest.fixture
def few_descriptors(crowd: list[socket.socket]) -> Iterator[int]:
    """Let 16 connections more be taken, and return the limit that an eighth is kept of."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(crowd[0].fileno())
    os.close(free)
    most = (free + 16) * 8 // 7
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, before[1]))
    yield most
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def outcome(sock: socket.socket, address: tuple[str, int]) -> str:
    """Connect and ask; tell what came of it."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(2):
            await loop.sock_connect(sock, address)
            await loop.sock_sendall(sock, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            return "answered" if await loop.sock_recv(sock, 4096) else "closed"
    except TimeoutError:
        return "hangs"
    except (ConnectionResetError, BrokenPipeError):
        return "reset"


async def test_some_descriptors_are_left_for_files(
    open_door: OpenDoor, crowd: list[socket.socket], few_descriptors: int
) -> None:
    """However many connect, a part of the descriptors is free for what requests open."""
    opened = await open_door(hello)
    outcomes = [await outcome(sock, opened.address) for sock in crowd]
    free = os.dup(crowd[0].fileno())
    os.close(free)

    assert set(outcomes) == {"answered", "reset"}
    assert free <= few_descriptors - few_descriptors // 8


async def test_without_descriptors_clients_are_told(
    open_door: OpenDoor,
    crowd: list[socket.socket],
    few_descriptors: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """When files have taken all, connections are reset at once, and one line tells of it."""
    opened = await open_door(hello)
    warm = await outcome(crowd[0], opened.address)
    taken: list[int] = []
    with contextlib.suppress(OSError):
        while True:
            taken.append(os.dup(crowd[0].fileno()))
    outcomes = {await outcome(sock, opened.address) for sock in crowd[1:-1]}
    for descriptor in taken:
        os.close(descriptor)
    start = time.monotonic()
    after = await outcome(crowd[-1], opened.address)

    assert (warm, outcomes, after) == ("answered", {"reset"}, "answered")
    assert time.monotonic() - start < 1
    assert caplog.text.count("new connections turned away") == 1


class Lacking(socket.socket):
    """A listening socket of a kernel that lacks something for a while."""

    refusals = 3
    asked = 0

    def accept(self) -> tuple[socket.socket, object]:
        self.asked += 1
        if self.refusals:
            self.refusals -= 1
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
        return super().accept()


async def test_what_the_kernel_lacks_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    """Without memory for a connection the door waits a little and asks again: it does not spin."""
    listening = Lacking(fileno=bind("127.0.0.1", 0).detach())
    door = PlainDoor(hello, QUICK)
    address = listening.getsockname()
    await door.start([listening])
    client = await Client.connect(address)

    assert (await client.get()).body == b"hello"
    assert listening.asked == 4
    assert os.strerror(errno.ENOBUFS) in caplog.text
    client.close()
    await door.drain(1)


async def test_a_client_that_has_gone_already_is_no_reason_to_wait(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An error of the new connection itself (accept(2)) is passed over."""
    listening = Lacking(fileno=bind("127.0.0.1", 0).detach())
    listening.refusals = 0
    real, listening_errors = listening.accept, iter([errno.ECONNABORTED, errno.EPROTO])

    def accept() -> tuple[socket.socket, object]:
        for number in listening_errors:
            raise OSError(number, os.strerror(number))
        return real()

    listening.accept = accept  # type: ignore[method-assign]
    door = PlainDoor(hello, QUICK)
    address = listening.getsockname()
    await door.start([listening])
    client = await Client.connect(address)

    assert (await client.get()).body == b"hello"
    assert caplog.text == ""
    client.close()
    await door.drain(1)
