"""Reusable buffers for request bodies."""

import mmap


class Slab:
    """One buffer: ``data`` to receive into, ``given`` the part an application looks at.

    Mapped, not allocated: of a body that comes byte by byte only the first page takes memory, and
    nobody waits while all of them are cleared (1 ms for 256 KiB in a virtual machine).
    """

    __slots__ = ("data", "given")

    def __init__(self, size: int) -> None:
        self.data = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.given: memoryview | None = None

    def give(self, size: int) -> memoryview:
        """Show the first ``size`` bytes to the application."""
        self.given = memoryview(self.data)[:size]
        return self.given

    def take_back(self) -> bool:
        """End what ``give`` gave; False if a thread of the application still works on it."""
        if self.given is None:
            return True
        try:
            self.given.release()
            # A slice of the view would outlive its release, but not unnoticed: a map that is
            # looked at refuses to be resized, be it to the size that it has.
            self.data.resize(len(self.data))
        except BufferError:
            return False
        self.given = None
        return True


class SlabPool:
    """Slabs of one size; up to ``spare`` unused ones are kept."""

    def __init__(self, size: int, spare: int) -> None:
        self.size = size
        self._spare = spare
        self._free: list[Slab] = []

    def __repr__(self) -> str:
        return f"<SlabPool {len(self._free)} free of {self.size} bytes>"

    def borrow(self) -> Slab:
        return self._free.pop() if self._free else Slab(self.size)

    def give_back(self, slab: Slab) -> None:
        """Keep ``slab`` for the next request, unless somebody might still read it."""
        if slab.take_back() and len(self._free) < self._spare:
            self._free.append(slab)
