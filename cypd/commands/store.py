"""The metadata of a registry, for commands beside the running daemon or without it.

Each opens it as a process of its own: the daemon sees every change at its next read.
"""

import contextlib
import getpass
import time
from collections.abc import Iterator

from cypd.audit.ports import SUCCESS, Entry
from cypd.config import Config, ConfigError
from cypd.metadata.lmdb import LmdbMetadata
from cypd.state import require_root


async def note(metadata: LmdbMetadata, action: str, **target: str) -> None:
    """Tell the audit log what the command line has done."""
    entry = Entry(
        at=time.time(),
        action=action,
        outcome=SUCCESS,
        username=f"{getpass.getuser()} on the command line",
        target=target,
    )
    await metadata.audit.append_audit(entry)


@contextlib.contextmanager
def opened(config: Config) -> Iterator[LmdbMetadata]:
    """Open the metadata of the registry that the configuration names; raise ConfigError."""
    folder = require_root(config) / "metadata"
    if not (folder / "data.mdb").exists():
        raise ConfigError(f"storage.root: there is no registry in {folder.parent}")
    metadata = LmdbMetadata(folder, config.metadata.map_size)
    try:
        yield metadata
    finally:
        metadata.close()
