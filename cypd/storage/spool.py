"""Content as a file of this machine, whoever keeps it: for those who can't do with less."""

import asyncio
import tempfile
from contextlib import aclosing, closing
from pathlib import Path
from typing import IO

from cypd.oci.digest import Digest
from cypd.registry.ports import BlobStorage, Inline, LocalFile, Remote


class _Fetched:
    """A file without a name: the kernel takes it back with its last descriptor."""

    def __init__(self, folder: Path, size: int) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (until close)
        self.size = size

    def fileno(self) -> int:
        return self._file.fileno()

    def write(self, piece: bytes) -> None:
        self._file.write(piece)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class Spool:
    """Opens blobs of ``storage``; what another machine has is fetched to ``folder`` first."""

    def __init__(self, storage: BlobStorage, folder: Path) -> None:
        self._storage = storage
        self._folder = folder

    async def open(self, digest: Digest, size: int) -> Inline | LocalFile:
        """Return the content; the caller closes it. Raises ``BlobMissing``."""
        content = await self._storage.open(digest, size)
        if not isinstance(content, Remote):
            return content
        file = _Fetched(self._folder, size)
        try:
            with closing(content):
                async with aclosing(content.read(0, size)) as pieces:
                    async for piece in pieces:
                        await asyncio.to_thread(file.write, piece)
            await asyncio.to_thread(file.flush)
        except BaseException:
            file.close()
            raise
        return file
