"""Run as a program: one of several processes that serve one socket, and answer with their id.

    python -m tests.doors.worker DESCRIPTOR [CERTIFICATE KEY]

It says "ready" when it listens, and drains at SIGTERM. ``/slow`` is answered when a byte comes on
standard input.
"""

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

import uvloop

from cypd.doors.asgi import Receive, Scope, Send
from cypd.doors.plain import Limits, PlainDoor
from cypd.doors.tls import Certificates, TlsDoor
from tests.doors.apps import answer


def _say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


async def serve(descriptor: int, files: list[Path]) -> None:
    """Serve until SIGTERM."""
    loop = asyncio.get_running_loop()
    stopping, released = asyncio.Event(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    loop.add_reader(sys.stdin.fileno(), released.set)

    async def app(scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            _say("asked")
            await released.wait()
        await answer(send, b"%d" % os.getpid())

    door = TlsDoor(app, Certificates(*files)) if files else PlainDoor(app, Limits(shared=True))
    await door.start([socket.socket(fileno=descriptor)])
    _say("ready")
    await stopping.wait()
    draining = loop.create_task(door.drain(20))
    await asyncio.sleep(0.1)  # Granian stops in a thread of its own
    _say("draining")
    await draining


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), [Path(name) for name in sys.argv[2:]]))
