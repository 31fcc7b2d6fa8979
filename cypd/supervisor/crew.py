"""The workers of one configuration, each replaced when it ends."""

import asyncio
import logging
import signal
from collections import Counter
from collections.abc import Callable

from cypd.config import Config
from cypd.exits import EXIT_CONFIG, EXIT_FATAL
from cypd.sockets import Sockets
from cypd.supervisor.process import Worker

log = logging.getLogger(__name__)

# Seconds
_START = 120.0  # until a worker has to be ready
_SOON = 1.0  # who ends sooner than that after it was ready is likely to end so again
_FIRST_DELAY, _LONGEST_DELAY = 0.1, 5.0
_LOOK_SECONDS = 0.5


class Crew:
    """Workers on the same sockets.

    ``watchdog``: seconds within which each gives a sign of life. ``patience``: seconds after which
    one that gives none is replaced. ``on_round`` is called whenever all that serve have given a
    sign since the last time; ``on_fault`` once replacing them is of no use, with the exit status
    that says so.
    """

    def __init__(
        self,
        config: Config,
        sockets: Sockets,
        *,
        watchdog: float,
        patience: float,
        on_round: Callable[["Crew"], None],
        on_fault: Callable[[int], None],
    ) -> None:
        self._config = config
        self._sockets = sockets
        self._watchdog = watchdog
        self._patience = patience
        self._on_round = on_round
        self._on_fault = on_fault
        self._workers: list[Worker] = []
        self._signed: set[Worker] = set()
        self._keeping: list[asyncio.Task[None]] = []

    @property
    def pids(self) -> list[int]:
        """Its workers' process ids."""
        return [it.pid for it in self._workers]

    @property
    def status(self) -> str:
        """How it is, in a line."""
        serving = [it for it in self._workers if it.is_serving]
        figures = sum((it.figures for it in serving), Counter[str]())
        names = dict.fromkeys(name for it in serving for name in it.figures)  # in their order
        workers = f"{len(serving)} of {len(self._workers)} workers"
        return ", ".join([workers, *(f"{figures[name]} {name}" for name in names)])

    async def start(self) -> int:
        """Return 0 when all workers are ready, else the exit status that the first other has."""
        try:
            for _ in range(self._config.server.workers):
                self._workers.append(self._hire())
            for ready in asyncio.as_completed([it.ready for it in self._workers], timeout=_START):
                if not await ready:
                    return await self._first_status()
        except TimeoutError:
            log.error("after %g seconds there are %s", _START, self.status)  # noqa: TRY400
            return EXIT_FATAL
        except OSError as error:
            log.error("no worker can be started: %s", error)  # noqa: TRY400
            return EXIT_FATAL
        loop = asyncio.get_running_loop()
        self._keeping = [loop.create_task(self._keep(it)) for it in range(len(self._workers))]
        self._keeping.append(loop.create_task(self._watch()))
        return 0

    async def _first_status(self) -> int:
        for worker in self._workers:
            if worker.ready.done() and not worker.ready.result():
                status = await worker.ended
                if status in (EXIT_CONFIG, EXIT_FATAL):  # it has told why
                    return status
                log.error("worker %d ended before it was ready: %s", worker.pid, _told(status))
        return EXIT_FATAL

    async def stop(self, within: float) -> None:
        """Let the workers finish for at most that many seconds; return when all have ended."""
        for task in self._keeping:
            task.cancel()
        for worker in self._workers:
            worker.stop()
        ended = [it.ended for it in self._workers]
        if ended:
            await asyncio.wait(ended, timeout=within)
        for worker in self._workers:
            if not worker.ended.done():
                log.warning("worker %d does not end, and is killed", worker.pid)
                worker.kill()
                await worker.ended

    def _hire(self) -> Worker:
        return Worker(self._config, self._sockets, self._watchdog, self._note_sign)

    def _note_sign(self, worker: Worker) -> None:
        self._signed.add(worker)
        if self._signed.issuperset(it for it in self._workers if it.is_serving):
            self._signed.clear()
            self._on_round(self)

    async def _keep(self, place: int) -> None:
        """Replace the worker of one place each time that it ends."""
        loop = asyncio.get_running_loop()
        in_a_row = before = 0
        while True:
            worker = self._workers[place]
            status = await asyncio.shield(worker.ended)
            self._signed.discard(worker)
            is_soon = not worker.ready.result() or loop.time() - worker.ready_at < _SOON
            if is_soon and status == before == EXIT_FATAL:
                self._on_fault(EXIT_FATAL)
                return
            delay = min(_FIRST_DELAY * 2**in_a_row, _LONGEST_DELAY) if is_soon else 0.0
            in_a_row = in_a_row + 1 if is_soon else 0
            before = status
            log.error(
                "worker %d ended: %s; the next one starts in %g seconds",
                worker.pid,
                _told(status),
                delay,
            )
            await asyncio.sleep(delay)
            self._workers[place] = await self._hire_at_last()

    async def _hire_at_last(self) -> Worker:
        while True:
            try:
                return self._hire()
            except OSError as error:  # out of memory, processes or descriptors
                log.error("no worker can be started: %s", error)  # noqa: TRY400
                await asyncio.sleep(_LONGEST_DELAY)

    async def _watch(self) -> None:
        """End those that are silent for too long."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            for worker in self._workers:
                silence = loop.time() - worker.heard_at
                patience = self._patience if worker.is_serving else _START
                if silence > patience and not worker.ended.done():
                    log.error("worker %d: no sign of life for %.1f seconds", worker.pid, silence)
                    worker.abort()


def _told(status: int) -> str:
    return f"status {status}" if status >= 0 else signal.strsignal(-status) or f"signal {-status}"
