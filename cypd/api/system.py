"""How the daemon is: open to probes in one word, to administrators in detail."""

import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import cypd
from cypd.api.routes import OPEN, PREFIX, Answer, Call, Route, Time, administrator


class Health(Answer, frozen=True):
    """That it answers."""

    status: str


class Disk(Answer, frozen=True):
    """The file system of the state folder, in bytes."""

    total: int
    free: int


class Collection(Answer, frozen=True):
    """The removal of what nobody uses any more, in seconds."""

    interval: float
    blob_grace: float


class SystemInfo(Answer, frozen=True):
    """The daemon in detail."""

    version: str
    python: str
    workers: int
    started_at: Time
    uptime: int
    """In seconds."""
    storage: Disk
    gc: Collection


class System:
    """The handlers. ``disk`` looks at the storage of this moment; ``workers``: how many serve."""

    def __init__(self, disk: Callable[[], Disk], gc: Collection, workers: int) -> None:
        self._disk = disk
        self._gc = gc
        self._workers = workers
        self._started = time.monotonic()

    def routes(self) -> list[Route]:
        """Return what the API serves of it."""
        return [
            Route(
                "GET", f"{PREFIX}/health", self.health, OPEN,
                answer=Health, tag="system", summary="Tell that the daemon answers",
            ),
            Route(
                "GET", f"{PREFIX}/system/info", self.info, administrator(),
                answer=SystemInfo, tag="system", summary="Describe the running daemon",
            ),
        ]  # fmt: skip

    async def health(self, call: Call) -> Health:
        """Say so."""
        return Health(status="ok")

    async def info(self, call: Call) -> SystemInfo:
        """Describe it."""
        uptime = int(time.monotonic() - self._started)
        return SystemInfo(
            version=cypd.__version__,
            python=platform.python_version(),
            workers=self._workers,
            started_at=datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=uptime),
            uptime=uptime,
            storage=self._disk(),
            gc=self._gc,
        )
