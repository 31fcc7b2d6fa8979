"""A poster and how it fails."""

import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from cypd.webhooks.poster import Poster
from cypd.webhooks.posting import Undeliverable
from cypd.webhooks.targets import Targets

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LOOPBACK = ("127.0.0.0/8",)
SECRET = {"Authorization": "Bearer s3cret"}

Resolve = Callable[..., None]
"""Sets the answers that DNS gives from now on, one after the other."""


@asynccontextmanager
async def poster(*networks: str, timeout: float = 30.0) -> AsyncIterator[Poster]:
    """Give a poster that may dial ``networks``, too."""
    poster = Poster(Targets(networks), timeout=timeout)
    try:
        yield poster
    finally:
        await poster.close()


async def failure(poster: Poster, url: str) -> str:
    """Return why a post is undeliverable; neither that nor its traceback tells a secret."""
    with pytest.raises(Undeliverable) as caught:
        await poster.post(url, SECRET, b"{}")
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))
    return str(caught.value)
