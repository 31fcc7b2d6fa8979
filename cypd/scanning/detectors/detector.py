"""What a detector is."""

import io
from collections.abc import Callable, Iterable
from typing import NamedTuple

from cypd.scanning.packages import Fact
from cypd.scanning.unpacking import Budget

TEXT_BYTES = 16 << 20
"""The largest real metadata is dpkg's status, of some 10 MiB with everything installed."""
BINARY_BYTES = 192 << 20


class Detector(NamedTuple):
    """Reads one kind of file."""

    name: str
    wants: Callable[[str, int], bool]
    """Whether it reads the file of that path, below the root, and mode."""
    read: Callable[[str, io.BytesIO, Budget], Iterable[Fact]]
    """Return what is in the file; raise Damaged. The budget is for archives in it."""
    largest: int = TEXT_BYTES
    """Bytes of the largest file it reads."""
    is_vital: bool = False
    """Whether the whole scan would be wrong without one of these files."""
    begins: bytes = b""
    """How all of its files begin."""
