"""The engine that keeps blobs, by configuration."""

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import msgspec

from cypd import systemd
from cypd.config import S3, Config, ConfigError
from cypd.registry.ports import BlobStorage
from cypd.storage.filesystem import FilesystemStorage

Driver = Literal["filesystem", "s3"]


@contextlib.asynccontextmanager
async def blob_storage(
    config: Config, root: Path, driver: Driver | None = None
) -> AsyncIterator[BlobStorage]:
    """Give the configured engine, or another one, over the state folder."""
    if (driver or config.storage.driver) == "s3":
        # Its client is large, and nobody else needs it.
        from cypd.storage.s3 import open_s3  # noqa: PLC0415

        async with open_s3(_with_credentials(config.s3), root) as remote:
            yield remote
    else:
        storage = FilesystemStorage(root)
        try:
            yield storage
        finally:
            storage.close()


def _with_credentials(settings: S3) -> S3:
    """Return the settings with the keys that the service manager passes, if it does."""
    access_key = systemd.credential(os.environ, "s3-access-key")
    secret_key = systemd.credential(os.environ, "s3-secret-key")
    if bool(access_key) != bool(secret_key):
        raise ConfigError(
            "credentials s3-access-key, s3-secret-key: one is there without the other"
        )
    if not access_key or settings.access_key:
        return settings
    return msgspec.structs.replace(settings, access_key=access_key, secret_key=secret_key)
