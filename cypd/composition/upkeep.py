"""What is done again and again beside the requests."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from cypd.registry.ports import Fatal, Unavailable

log = logging.getLogger(__name__)

OnFatal = Callable[[Fatal], None]


async def repeat(
    name: str, interval: float, work: Callable[[], Awaitable[object]], on_fatal: OnFatal
) -> None:
    """Do a piece of upkeep now, and again after each interval, in seconds."""
    while True:
        try:
            await work()
        except Fatal as error:
            on_fatal(error)
        except Unavailable as error:
            log.warning("%s: %s; it tries again in %g seconds", name, error, interval)
        except Exception:
            # Whatever it stumbled over, it is no reason to stop serving.
            log.exception("%s: a round broke off; it tries again in %g seconds", name, interval)
        await asyncio.sleep(interval)
