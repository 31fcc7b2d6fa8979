"""The service's life: its signals, its generations of workers, and what the manager is told."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable

from msgspec.structs import replace

import cypd
from cypd import logs
from cypd.config import Config, ConfigError
from cypd.sockets import Listeners, Sockets, addresses
from cypd.supervisor import orphans
from cypd.supervisor.crew import Crew
from cypd.systemd import Notifier

log = logging.getLogger(__name__)

# Seconds
_WATCHDOG = 20.0  # where no service manager says within which it wants a sign of life
_LEAST_PATIENCE = 5.0
_CLOSE = 30.0  # after the last request: queued writes, and threads
_FAULT = 5.0  # the same when nothing is worth waiting for

_MOST_WORKERS = 8


class Supervisor:
    """Made in a running event loop, before there are other threads."""

    def __init__(
        self, configure: Callable[[], Config], listeners: Listeners, notifier: Notifier
    ) -> None:
        """``configure`` reads the configuration, or raises ConfigError."""
        self._configure = configure
        self._listeners = listeners
        self._notifier = notifier
        # Those that serve
        self._crew: Crew | None = None
        self._config: Config
        self._sockets: Sockets = {}
        # Those that start, or finish what they are at
        self._others: set[Crew] = set()
        self._leaving: set[asyncio.Task[None]] = set()
        # The end
        self._status = 0
        self._stopping = asyncio.Event()

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT; return the exit status. SIGHUP reads all anew.

        Raises ConfigError for a configuration that can't be used from the beginning.
        """
        loop = asyncio.get_running_loop()
        hangup = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, hangup.set)
        tasks = {loop.create_task(self._live(hangup)), loop.create_task(self._stopping.wait())}
        if os.getpid() == 1:
            tasks.add(loop.create_task(orphans.reap(self._pids)))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # raises what ended it
        finally:
            for task in tasks:
                task.cancel()
            await self._stop()
        return self._status

    def _crews(self) -> set[Crew]:
        return self._others | ({self._crew} if self._crew else set())

    def _pids(self) -> set[int]:
        return {pid for crew in self._crews() for pid in crew.pids}

    async def _live(self, hangup: asyncio.Event) -> None:
        status = await self._replace(self._configure())
        if status != 0:
            self._end(status)
        else:
            self._notifier.ready(f"serves {addresses(self._sockets)}")
        while True:
            await hangup.wait()
            hangup.clear()
            self._notifier.reloading()
            await self._reload()
            self._notifier.ready(f"serves {addresses(self._sockets)}")

    async def _reload(self) -> None:
        try:
            status = await self._replace(self._configure())
        except ConfigError as error:
            log.error("%s; all stays as it was", error)  # noqa: TRY400
        else:
            if status != 0:
                log.error("new workers did not start; all stays as it was")

    async def _replace(self, config: Config) -> int:
        """Have new workers take the place of those that serve, once they all can.

        Returns 0, or the exit status that one of the new had instead of getting ready. Raises
        ConfigError.
        """
        server = config.server
        count = server.workers or min(len(os.sched_getaffinity(0)), _MOST_WORKERS)
        config = replace(config, server=replace(server, workers=count))
        sockets = self._listeners.at(config)
        watchdog = self._notifier.watchdog or _WATCHDOG
        crew = Crew(
            config,
            sockets,
            # Half of the manager's time, so that a worker is replaced before all are.
            watchdog=watchdog / 2,
            patience=max(watchdog / 2, _LEAST_PATIENCE),
            on_round=self._tell,
            on_fault=self._end,
        )
        self._others.add(crew)
        status = await crew.start()
        if status != 0:
            await self._dismiss(crew, _FAULT)
            self._listeners.close_all_but(self._sockets)
            return status
        logs.configure(config.log.level, config.log.format, os.environ)
        log.info("cypd %s: %s serve %s", cypd.__version__, crew.status, addresses(sockets))
        if self._crew is not None:
            self._part_with(self._crew, self._config.server.drain_timeout + _CLOSE)
        self._crew, self._config, self._sockets = crew, config, sockets
        self._others.discard(crew)
        self._listeners.close_all_but(sockets)
        return 0

    def _part_with(self, crew: Crew, within: float) -> None:
        self._others.add(crew)
        self._leaving.add(task := asyncio.create_task(self._dismiss(crew, within)))
        task.add_done_callback(self._leaving.discard)

    async def _dismiss(self, crew: Crew, within: float) -> None:
        await crew.stop(within)
        self._others.discard(crew)

    def _tell(self, crew: Crew) -> None:
        """All workers are alive, and so are we."""
        if crew is self._crew:
            self._notifier.status(crew.status, alive=True)

    def _end(self, status: int) -> None:
        self._status = status
        self._stopping.set()

    async def _stop(self) -> None:
        within = _FAULT
        if self._crew is not None and self._status == 0:
            within = self._config.server.drain_timeout + _CLOSE
            log.info("stopping: %s, at most %g seconds", self._crew.status, within)
            self._notifier.stopping(f"stopping, {self._crew.status}", within)
        await asyncio.gather(*(it.stop(within) for it in self._crews()), *self._leaving)
