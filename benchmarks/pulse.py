"""A steady rate of small requests, and how long each took."""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from benchmarks.http import Connection

_THREADS = 6


class Pulse:
    """Sends ``rate`` GETs a second while its context is entered.

    A request counts from the moment it was due, so that one that takes long does not hide what the
    others behind it wait for.
    """

    def __init__(self, connect: Callable[[], Connection], path: str, rate: float) -> None:
        self._connect = connect
        self._path = path
        self._interval = _THREADS / rate
        self._stop = threading.Event()
        self._taken: list[float] = []
        self._failures: list[Exception] = []
        self._threads = [
            threading.Thread(target=self._run, args=(number / rate,)) for number in range(_THREADS)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self._failures:
            raise self._failures[0]

    @property
    def count(self) -> int:
        """How many were answered."""
        return len(self._taken)

    def percentile(self, share: float) -> float:
        """Return the seconds that so large a share of the requests took at most."""
        return sorted(self._taken)[int(len(self._taken) * share)]

    def _run(self, offset: float) -> None:
        due = time.monotonic() + offset
        try:
            with self._connect() as connection:
                while not self._stop.wait(max(0.0, due - time.monotonic())):
                    connection.discard(self._path)
                    self._taken.append(time.monotonic() - due)
                    due += self._interval
        except Exception as error:  # noqa: BLE001 - raised where the context is left
            self._failures.append(error)
