"""Files as the disk has them, whatever the page cache says."""

import errno
import fcntl
import mmap
import os
from typing import TYPE_CHECKING

from cypd.oci.digest import Digest, hasher

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

PIECE_BYTES = 1 << 20
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_FOLDER = os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY


class DiskFile:
    """An open file, hashed piece by piece. Raises OSError.

    O_DIRECT (open(2)): what is read is on the disk, and the cache keeps what clients want. A file
    system that has none of it, as tmpfs, is read as usual.
    """

    def __init__(self, path: str, digest: Digest) -> None:
        self.descriptor = _open(path)
        self.size = os.fstat(self.descriptor).st_size
        self._offset = 0
        self._digest = digest
        self._hash: Hash = hasher(digest.algorithm)
        self._buffer = mmap.mmap(-1, PIECE_BYTES)  # aligned to a page, as O_DIRECT wants it

    def close(self) -> None:
        """Close the file."""
        os.close(self.descriptor)
        self._buffer.close()

    def advance(self) -> int:
        """Hash the next piece; return its length, 0 at the end."""
        count = os.preadv(self.descriptor, [self._buffer], self._offset)
        with memoryview(self._buffer) as view:
            self._hash.update(view[:count])
        self._offset += count
        return count

    def is_right(self, size: int) -> bool:
        """Tell whether what was hashed has that size and the digest."""
        return self._offset == size and self._hash.hexdigest() == self._digest.hex


def _open(path: str) -> int:
    try:
        return os.open(path, _READ | os.O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.open(path, _READ)


def move_away(path: str, descriptor: int, target: str) -> bool:
    """Move a blob that is open to another place, unless it was pushed again since.

    The shard's lock keeps pushes of its digests waiting meanwhile.
    """
    shard = os.open(os.path.dirname(path), _FOLDER)
    try:
        fcntl.flock(shard, fcntl.LOCK_EX)
        try:
            there = os.stat(path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        if not os.path.samestat(there, os.fstat(descriptor)):
            return False
        os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
        os.rename(path, target)
        os.fsync(shard)
    finally:
        os.close(shard)
    return True
