"""Run as a program, to be ended by rustls or to exit with 0: what it can't use, it aborts on."""

import asyncio
import os
import resource
import sys
from pathlib import Path

from cypd.doors.asgi import Receive, Scope, Send
from cypd.doors.plain.limits import Limits
from cypd.doors.plain.server import bind
from cypd.doors.tls.certificates import Certificates
from cypd.doors.tls.granian import Granian


async def _nothing(_scope: Scope, _receive: Receive, _send: Send) -> None:
    pass


async def _try(certificates: Certificates) -> None:
    with bind("127.0.0.1", 0) as sock:
        await Granian(_nothing, sock, certificates, Limits()).start()
    os._exit(0)  # it need not be stopped in good order


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would hold the key
    asyncio.run(_try(Certificates(*map(Path, sys.argv[1:]))))
