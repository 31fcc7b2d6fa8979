"""Reusable buffers for request bodies."""


class Slab:
    """One buffer: ``data`` to receive into, ``given`` the part an application looks at."""

    __slots__ = ("data", "given")

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)
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
            # A slice of the view would outlive its release, but not unnoticed: a bytearray that
            # is looked at refuses to be resized. Shrinking by one byte and back moves nothing.
            self.data.append(self.data.pop())
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
