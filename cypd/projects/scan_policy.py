"""What a project says of pulls: images with which vulnerabilities are refused to everybody."""

from typing import Literal

import msgspec

MAX_EXCEPTIONS = 100
MAX_REASON = 256
"""In characters. A project is read at each request, and its policy with it."""

Threshold = Literal["critical", "high", "medium", "low"]
THRESHOLDS: tuple[Threshold, ...] = ("low", "medium", "high", "critical")
"""From the least."""


class ScanException(msgspec.Struct, frozen=True, array_like=True):
    """A vulnerability that keeps nobody from pulling, for a while."""

    vulnerability: str
    """Its id, as findings have it."""
    reason: str
    expires_at: float
    """Unix seconds."""


class ScanPolicy(msgspec.Struct, frozen=True, array_like=True):
    """What may be pulled; without bounds, everything."""

    block_at: Threshold | None = None
    """Images with a vulnerability of this severity, or of a worse one, are refused."""
    block_unscanned: bool = False
    """Images that were never scanned are refused."""
    exceptions: tuple[ScanException, ...] = ()

    @property
    def is_set(self) -> bool:
        """Whether there is anything that could be refused."""
        return self.block_at is not None or self.block_unscanned

    def excused(self, now: float) -> frozenset[str]:
        """Return the ids of the vulnerabilities that are excused at a time, in unix seconds."""
        return frozenset(it.vulnerability for it in self.exceptions if it.expires_at > now)
