"""Room on the disk: pushes end before it does, so that deletes can still be written down."""

import logging
import os
import time
from pathlib import Path

from cypd.oci.errors import Code, OCIError

log = logging.getLogger(__name__)

_FRESH_SECONDS = 1.0
_RETRY_SECONDS = b"60"


class FreeSpace:
    """Free bytes of the file system that ``folder`` is on; ``floor`` of them are not for pushes."""

    def __init__(self, folder: Path, floor: int) -> None:
        self._folder = folder
        self._floor = floor
        self._is_short = False
        self._free = 0
        self._looked_at = float("-inf")

    def require(self) -> None:
        """Raise UNAVAILABLE unless pushes are taken."""
        if not self.is_enough():
            raise OCIError(
                Code.UNAVAILABLE,
                "the disk is almost full: pushes are refused, pulls and deletes go on",
                headers={b"retry-after": _RETRY_SECONDS},
            )

    def is_enough(self) -> bool:
        """Tell whether pushes are taken at all."""
        return not self._floor or self._left() >= 0

    def _left(self) -> int:
        now = time.monotonic()
        if now - self._looked_at > _FRESH_SECONDS:
            # On a local file system this is answered from memory: a thread would cost more.
            found = os.statvfs(self._folder)
            self._free = found.f_bavail * found.f_frsize
            self._looked_at = now
            self._tell(is_short=self._free < self._floor)
        return self._free - self._floor

    def _tell(self, *, is_short: bool) -> None:
        if is_short and not self._is_short:
            log.warning(
                "%d bytes are free, less than storage.min_free: pushes are refused", self._free
            )
        elif self._is_short and not is_short:
            log.info("%d bytes are free: pushes are taken again", self._free)
        self._is_short = is_short
