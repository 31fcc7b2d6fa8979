"""Making the engine: clients, sessions, credentials, and a first look at the store."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

from cypd.config import S3, ConfigError
from cypd.registry.ports import Unavailable
from cypd.storage.s3.circuit import Circuit
from cypd.storage.s3.owner import ForeignKeys
from cypd.storage.s3.plain import PlainClient
from cypd.storage.s3.redirects import Redirects
from cypd.storage.s3.storage import S3Storage
from cypd.storage.s3.store import Store, StoreRefused

log = logging.getLogger(__name__)

_CONNECTIONS = 1000
_READ_BYTES = 256 << 10
_LOOK_SECONDS = 20.0  # at the start; two attempts may take longer than a service manager waits


@asynccontextmanager
async def open_s3(settings: S3, root: Path) -> AsyncIterator[S3Storage]:
    """Give the engine over the store that the settings name, with its local state under ``root``.

    A store that does not answer soon, or refuses, is told in the log: what needs no blob is served.
    """
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(_client(settings, settings.endpoint))
        signer = client
        if settings.public_endpoint:
            signer = await stack.enter_async_context(_client(settings, settings.public_endpoint))
        session = await stack.enter_async_context(_session(settings))
        # What has timed out is tried once more.
        circuit = Circuit(longest=1.5 * settings.read_timeout)
        plain = None
        if settings.endpoint.startswith("http://"):
            plain = PlainClient(
                connect_timeout=settings.connect_timeout, read_timeout=settings.read_timeout
            )
            stack.callback(plain.close)
        store = Store(client, signer, session, bucket=settings.bucket, circuit=circuit, plain=plain)
        prefix = settings.prefix and settings.prefix.rstrip("/") + "/"
        redirects = Redirects(settings.redirect, settings.redirect_networks)
        storage = S3Storage(
            store,
            root,
            prefix=prefix,
            part_size=settings.part_size,
            redirects=redirects,
            cache_size=settings.cache_size,
        )
        stack.push_async_callback(storage.close)
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                await store.require_bucket()
                await storage.claim()
        except ForeignKeys as error:
            raise ConfigError(f"s3.bucket, s3.prefix: {error}") from None
        except (TimeoutError, Unavailable, StoreRefused) as error:
            told = str(error) or f"no answer in {_LOOK_SECONDS:g} seconds"
            log.warning("bucket %s: %s; what needs a blob fails until then", settings.bucket, told)
        yield storage


def _client(settings: S3, endpoint: str) -> Any:
    return get_session().create_client(
        "s3",
        endpoint_url=endpoint or None,
        region_name=settings.region,
        aws_access_key_id=settings.access_key or None,
        aws_secret_access_key=settings.secret_key or None,
        verify=settings.ca_file or None,
        config=AioConfig(
            signature_version="s3v4",
            s3={"addressing_style": "path" if settings.path_style else "virtual"},
            # Not every store knows the newer checksums; a digest is verified of all that comes.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            connect_timeout=settings.connect_timeout,
            read_timeout=settings.read_timeout,
            max_pool_connections=_CONNECTIONS,
            retries={"total_max_attempts": 1},  # the circuit's work
        ),
    )


def _session(settings: S3) -> aiohttp.ClientSession:
    context = ssl.create_default_context(cafile=settings.ca_file or None)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=_CONNECTIONS, ssl=context),
        timeout=aiohttp.ClientTimeout(
            sock_connect=settings.connect_timeout, sock_read=settings.read_timeout
        ),
        read_bufsize=_READ_BYTES,
        auto_decompress=False,
        skip_auto_headers={"Accept-Encoding", "User-Agent"},
    )
