"""Every timeout and every bound of the door, in one place."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may ask of the door; seconds and bytes throughout."""

    # Time
    sweep: float = 1.0  # between two looks at all connections: how coarse the times below are
    header: float = 10.0  # from the first byte of a request head to its last
    keep_alive: float = 75.0  # without a request; nginx has the same
    rate_window: float = 30.0  # over which ``rate`` is taken, up and down
    linger: float = 2.0  # for the client to read the last answer and close from its side

    # Rate
    rate: int = 1024  # bytes a second that a client must send of its body, or take of an answer

    # Size
    head_bytes: int = 32 * 1024  # zstd:chunked clients send long Range fields
    head_fields: int = 100
    target_bytes: int = 8 * 1024
    pipelined_bytes: int = 64 * 1024  # read ahead while a request is being answered
    linger_bytes: int = 64 * 1024  # of an unread body that are read and thrown away

    # Count
    connections: int = 16_384  # one more is closed at once
    connections_per_client: int = 0  # 0: as many as there are
    pipelined_turns: int = 16  # requests answered on one connection before another has its turn
    backlog: int = 4096  # connections that wait for accept(2); the kernel caps it at somaxconn
    shared: bool = False  # other processes accept connections of the same sockets

    # Slabs: two for each body that does not fit into the first read. 512 KiB and 1 MiB were not
    # measurably cheaper for each byte, in 1 GiB uploads that are hashed and written.
    slab_bytes: int = 256 * 1024
    spare_slabs: int = 32  # kept for reuse; more are given back to the allocator

    def __post_init__(self) -> None:
        """Raises ValueError for limits that no request could keep."""
        if self.pipelined_bytes < self.head_bytes:
            raise ValueError("pipelined_bytes must have room for a head of head_bytes")
