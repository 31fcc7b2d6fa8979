"""What one scan may take."""

import msgspec


class Limits(msgspec.Struct, frozen=True):
    """Bounds of the process that scans one image. A scan that passes one of them fails."""

    memory: int
    """Bytes of address space."""
    cpu_seconds: int
    timeout: float
    """Seconds, from its start."""
    max_bytes: int
    """What all layers may have, unpacked, in bytes."""
    max_files: int
    """Entries of all layers' archives, and of the archives in them."""
    max_ratio: int
    """How many times its own size a layer may unpack to."""
