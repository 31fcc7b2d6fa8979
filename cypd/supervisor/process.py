"""One worker: its process, and what it says about itself."""

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable

from cypd.config import Config
from cypd.orders import Orders, encoded
from cypd.sockets import Sockets

# -P: whoever starts cypd in some folder does not want modules from there.
COMMAND = (sys.executable, "-P", "-m", "cypd.worker", "--supervised")

_LAST_WORDS_SECONDS = 2.0  # for the dump of its threads that SIGABRT asks for
_FIGURE = re.compile(r"([0-9]+) ([a-z ]+)", re.ASCII)


class Worker:
    """A running process; made in a running event loop. Raises OSError where none can be started.

    ``on_sign`` is called at each sign of life.
    """

    def __init__(
        self,
        config: Config,
        sockets: Sockets,
        watchdog: float,
        on_sign: Callable[["Worker"], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_sign = on_sign
        self.ready: asyncio.Future[bool] = self._loop.create_future()
        """Whether it got ready before it ended."""
        self.ended: asyncio.Future[int] = self._loop.create_future()
        """Its exit status, negative for a signal."""
        self.figures: Counter[str] = Counter()
        """How many of what it has, as it last said."""
        self.heard_at = self._loop.time()
        """When it gave the last sign of life, or was started; the loop's time."""
        self.ready_at = self.heard_at
        """When it got ready; means nothing before."""
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._channel.setblocking(False)
        passed = {role: tuple(it.fileno() for it in some) for role, some in sockets.items()}
        orders = Orders(config, passed, theirs.fileno(), watchdog, os.getpid())
        with theirs, contextlib.ExitStack() as undo:
            undo.callback(self._channel.close)
            self._process = subprocess.Popen(  # noqa: S603
                COMMAND,
                stdin=subprocess.PIPE,
                pass_fds=(theirs.fileno(), *(it for some in passed.values() for it in some)),
            )
            undo.callback(self._process.kill)
            self._descriptor = os.pidfd_open(self._process.pid)
            undo.pop_all()
        self._give(orders)
        self._loop.add_reader(self._channel, self._listen)
        self._loop.add_reader(self._descriptor, self._end)

    def __repr__(self) -> str:
        return f"<Worker {self.pid}>"

    @property
    def pid(self) -> int:
        """Its process id, also when it has ended."""
        return self._process.pid

    @property
    def is_serving(self) -> bool:
        """Whether it is ready, and has not ended."""
        return self.ready.done() and not self.ended.done() and self.ready.result()

    def stop(self) -> None:
        """Let it finish what it is at; one that is not ready has nothing to finish."""
        self._send(signal.SIGTERM if self.ready.done() else signal.SIGKILL)

    def kill(self) -> None:
        """End it at once."""
        self._send(signal.SIGKILL)

    def abort(self) -> None:
        """End it, and let it tell where it hangs if it can."""
        self.heard_at = self._loop.time()  # for as long again nobody asks
        self._send(signal.SIGABRT)
        self._loop.call_later(_LAST_WORDS_SECONDS, self.kill)

    def _send(self, number: signal.Signals) -> None:
        # Popen knows whether it was waited for: nobody else gets the signal.
        self._process.send_signal(number)

    def _give(self, orders: Orders) -> None:
        pipe = self._process.stdin
        assert pipe is not None  # noqa: S101 (asked for)
        with contextlib.suppress(BrokenPipeError), pipe:  # it has ended already: that is heard of
            pipe.write(encoded(orders))

    def _listen(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while True:
                for line in self._channel.recv(4096).decode(errors="replace").split("\n"):
                    self._hear(line)

    def _hear(self, line: str) -> None:
        name, _, value = line.partition("=")
        if name == "READY" and not self.ready.done():
            self.heard_at = self.ready_at = self._loop.time()
            self.ready.set_result(True)
        elif name == "WATCHDOG":
            self.heard_at = self._loop.time()
            self._on_sign(self)
        elif name == "STATUS":
            found = [_FIGURE.fullmatch(it) for it in value.split(", ")]
            self.figures = Counter({it[2]: int(it[1]) for it in found if it})

    def _end(self) -> None:
        self._listen()  # to its last words
        status = self._process.wait()
        self._loop.remove_reader(self._channel)
        self._loop.remove_reader(self._descriptor)
        self._channel.close()
        os.close(self._descriptor)
        if not self.ready.done():
            self.ready.set_result(False)
        self.ended.set_result(status)
