"""Whether the daemon can do its work, as it can tell from the inside."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from cypd.registry.ports import Fatal, Unavailable

log = logging.getLogger(__name__)

_FRESH_SECONDS = 1.0  # an answer holds that long, so that asking costs the writer nothing
_PATIENCE_SECONDS = 2.0


class Health:
    """Looks at the metadata's writer, at free space, and at whether the daemon is on its way out.

    ``probe`` returns if the writer commits and reads work, and never where they hang.
    """

    def __init__(
        self,
        probe: Callable[[], Awaitable[None]],
        has_space: Callable[[], bool],
        on_fatal: Callable[[Fatal], None],
    ) -> None:
        self.is_draining = False
        self._probe = probe
        self._has_space = has_space
        self._on_fatal = on_fatal
        self._look: asyncio.Task[bool] | None = None
        self._looked_at = 0.0

    async def is_well(self) -> bool:
        """Tell whether the store works; does not return while it hangs."""
        return await asyncio.shield(self._latest_look())

    async def trouble(self) -> str:
        """Return why no request should be sent here, in a word; empty if nothing is wrong."""
        if self.is_draining:
            return "draining"
        look = self._latest_look()
        # Not asyncio.timeout: a door may run this outside of any task.
        done, _ = await asyncio.wait({look}, timeout=_PATIENCE_SECONDS)
        if not done or not look.result():
            return "metadata"
        return "" if self._has_space() else "disk"

    def _latest_look(self) -> asyncio.Task[bool]:
        """All who ask meanwhile share one look: a writer that hangs collects no queue of them."""
        look = self._look
        is_old = time.monotonic() - self._looked_at > _FRESH_SECONDS
        if look is None or (look.done() and is_old):
            look = self._look = asyncio.ensure_future(self._take_look())
        return look

    async def _take_look(self) -> bool:
        try:
            await self._probe()
        except Fatal as error:
            self._on_fatal(error)
            return False
        except Unavailable as error:
            log.warning("health: %s", error)
            return False
        finally:
            self._looked_at = time.monotonic()
        return True
