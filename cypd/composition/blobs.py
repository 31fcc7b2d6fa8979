"""The engine that keeps blobs, by configuration."""

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import msgspec

from cypd import systemd
from cypd.config import S3, Config, ConfigError
from cypd.registry.ports import BlobStorage, Unavailable
from cypd.storage.filesystem import FilesystemStorage
from cypd.storage.moving import MovingStorage
from cypd.storage.use import in_use

Driver = Literal["filesystem", "s3"]


@contextlib.asynccontextmanager
async def blob_storage(config: Config, root: Path) -> AsyncIterator[BlobStorage]:
    """Give the configured storage, and with it the one that blobs are moved from."""
    settings = config.storage
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(in_use(root, settings.driver))
        storage = await stack.enter_async_context(engine(config, root, settings.driver))
        if settings.moving_from:
            stack.enter_context(in_use(root, settings.moving_from))
            old = await stack.enter_async_context(engine(config, root, settings.moving_from))
            storage = MovingStorage(storage, old)
        yield storage


@contextlib.asynccontextmanager
async def engine(config: Config, root: Path, driver: Driver) -> AsyncIterator[BlobStorage]:
    """Give one engine over the state folder."""
    if driver == "s3":
        # Its client is large, and nobody else needs it.
        from cypd.storage.s3 import StoreRefused, open_s3  # noqa: PLC0415

        # A folder of its own: both engines have one where uploads grow.
        async with open_s3(_with_credentials(config.s3), root / "s3") as remote:
            try:
                yield remote
            except StoreRefused as error:  # what ends a command
                raise Unavailable(str(error)) from error
    else:
        storage = FilesystemStorage(root)
        try:
            yield storage
        finally:
            storage.close()


def without_cache(config: Config) -> Config:
    """Return the configuration for who reads everything once, where it is kept.

    Nobody pulls what is read then, and what is verified has to come from the store.
    """
    return msgspec.structs.replace(config, s3=msgspec.structs.replace(config.s3, cache_size=0))


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
