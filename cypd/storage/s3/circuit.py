"""Patience with a store that falters, in bounds; and none with one that is down."""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from cypd.registry.ports import Unavailable

T = TypeVar("T")

log = logging.getLogger(__name__)

_TRIES = 6
_FIRST_WAIT_SECONDS = 0.1
_LONGEST_WAIT_SECONDS = 2.0
# A store that restarts is back by then; one that fails for longer is not asked any more.
_PATIENCE_SECONDS = 5.0
_FAILURES = 5
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 5.0
# Retries are a tenth of what works, and some in store: a store that has too much to do is not given
# several times as much by those who wait for it.
_BUDGET = 100.0
_EARNED = 0.1


class Passing(Exception):
    """One attempt failed for a reason that may pass; the message says which, without addresses."""


class Circuit:
    """The way to one store: closed while it answers, open while it does not."""

    def __init__(self, *, longest: float) -> None:
        self._longest = longest
        """Seconds after which no further attempt of a call is begun."""
        self._budget = _BUDGET
        self._failures = 0
        self._failing_since = 0.0
        self._pause = 0.0
        self._open_until = 0.0
        self._looking: asyncio.Future[None] | None = None

    @property
    def is_open(self) -> bool:
        """Tell whether the store counts as down."""
        return self._pause > 0

    async def call(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Return what the attempt does, which is made again where it raises ``Passing``.

        Raises ``Unavailable`` where that was not enough, and at once while the store is down.
        """
        if asyncio.current_task() is None:
            # A door may run a request outside of any task until it first waits, and the session's
            # timeouts need one.
            await asyncio.sleep(0)
        begun = time.monotonic()
        for number in range(_TRIES):
            try:
                async with self._passage():
                    result = await attempt()
            except Passing as error:
                last = number == _TRIES - 1 or time.monotonic() - begun > self._longest
                if last or not self._may_retry():
                    raise Unavailable(f"the S3 store failed: {error}") from error
                await asyncio.sleep(_backoff(number))
            else:
                return result
        raise AssertionError("the last attempt returns or raises")

    def worked(self) -> None:
        """Note that the store has done something."""
        if self._pause:
            log.info("the S3 store answers again")
        self._budget = min(_BUDGET, self._budget + _EARNED)
        self._failures, self._pause = 0, 0.0

    def failed(self, error: Passing) -> None:
        """Note that the store has failed."""
        now = time.monotonic()
        if not self._failures:
            self._failing_since = now
        self._failures += 1
        if self._pause:
            self._pause = min(_LONGEST_PAUSE_SECONDS, 2 * self._pause)
        elif self._failures >= _FAILURES and now - self._failing_since > _PATIENCE_SECONDS:
            log.warning("the S3 store is down: %s; what needs it is refused meanwhile", error)
            self._pause = _FIRST_PAUSE_SECONDS
        self._open_until = now + self._pause

    @asynccontextmanager
    async def _passage(self) -> AsyncIterator[None]:
        """Let an attempt through, or raise ``Unavailable``, and note what comes of it."""
        while self._pause and self._looking:  # one goes to see whether the store is back
            await asyncio.wait([self._looking])
        looking: asyncio.Future[None] | None = None
        if self._pause:
            if time.monotonic() < self._open_until:
                raise Unavailable("the S3 store is down")
            looking = self._looking = asyncio.get_running_loop().create_future()
        try:
            yield
        except Passing as error:
            self.failed(error)
            raise
        else:
            self.worked()
        finally:
            if looking:
                looking.set_result(None)
                self._looking = None

    def _may_retry(self) -> bool:
        if self._budget < 1:
            return False
        self._budget -= 1
        return True


def _backoff(number: int) -> float:
    # Those who failed together shall not come back together.
    longest: float = min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2**number)
    return random.uniform(longest / 2, longest)  # noqa: S311 (nobody gains by guessing it)
