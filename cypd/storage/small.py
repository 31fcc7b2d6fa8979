"""Small blobs in memory: a handful of configs and signatures is most of what is asked for."""

from collections import OrderedDict

from cypd.oci.digest import Digest

# In IBM's registry traces (FAST'18) the top tenth of the blobs takes six in ten requests, and half
# of all blobs are below 12 kB: this holds thousands.
_BUDGET_BYTES = 32 << 20


class SmallBlobs:
    """The bytes last asked for, each verified as it came in: what has a digest never changes."""

    def __init__(self, budget: int = _BUDGET_BYTES) -> None:
        self._budget = budget
        self._size = 0
        self._blobs: OrderedDict[Digest, bytes] = OrderedDict()

    def get(self, digest: Digest) -> bytes | None:
        """Return a blob's bytes if they are here."""
        data = self._blobs.get(digest)
        if data is not None:
            self._blobs.move_to_end(digest)
        return data

    def put(self, digest: Digest, data: bytes) -> bool:
        """Keep a blob's bytes; return ``False`` if they are not what the digest says."""
        if Digest.of(data, digest.algorithm) != digest:
            return False
        if digest not in self._blobs:
            self._blobs[digest] = data
            self._size += len(data)
        while self._size > self._budget:
            _, oldest = self._blobs.popitem(last=False)
            self._size -= len(oldest)
        return True
