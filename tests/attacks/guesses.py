"""Guess passwords at a fixed rate: ``python -m tests.attacks.guesses PORT A_SECOND SECONDS``.

A process of its own, so that its work is not taken for the daemon's. Prints how many were answered.
"""

import asyncio
import secrets
import sys
from contextlib import suppress

from tests.daemon import USER, basic

_CONNECTIONS = 100


async def guess(port: int, rate: float, seconds: float) -> int:
    """Send guesses when they are due, whether or not earlier ones were answered."""
    due: asyncio.Queue[None] = asyncio.Queue()
    answered = 0

    async def ask() -> None:
        nonlocal answered
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while True:
            await due.get()
            fields = f"Host: x\r\nAuthorization: {basic(USER, secrets.token_hex(8))}\r\n"
            writer.write(f"GET /v2/ HTTP/1.1\r\n{fields}\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(length))
            answered += 1

    tasks = [asyncio.create_task(ask()) for _ in range(_CONNECTIONS)]
    loop = asyncio.get_running_loop()
    start = loop.time()
    for number in range(int(rate * seconds)):
        with suppress(TimeoutError):
            await asyncio.sleep(start + number / rate - loop.time())
        due.put_nowait(None)
    await asyncio.sleep(0.5)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return answered


if __name__ == "__main__":
    port, rate, seconds = sys.argv[1:]
    print(asyncio.run(guess(int(port), float(rate), float(seconds))))  # noqa: T201
