"""Run as a program, to be ended by rustls or to exit with 0: what it can't use, it aborts on.

First it does all the rest without the files, and says so: what ends it before that is no fault of
theirs.
"""

import asyncio
import os
import resource
import socket
import sys
from pathlib import Path

from cypd.doors.asgi import Receive, Scope, Send
from cypd.doors.plain.limits import Limits
from cypd.doors.tls.certificates import LISTENS, Certificates
from cypd.doors.tls.granian import Granian


async def _nothing(_scope: Scope, _receive: Receive, _send: Send) -> None:
    pass


async def _try(certificates: Certificates) -> None:
    for files in (None, certificates):
        # Nobody connects, and a service that inherits its sockets may make none of the network.
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind("")  # an address that nobody has (unix(7), autobind)
            granian = Granian(_nothing, sock, files, Limits())
            await granian.start()
            await granian.stop()
        os.write(1, LISTENS)
    os._exit(0)  # Rust's threads may outlive their server, and do not bear the end of Python


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would hold the key
    asyncio.run(_try(Certificates(*map(Path, sys.argv[1:]))))
