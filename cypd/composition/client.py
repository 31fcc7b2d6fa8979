"""The HTTP client of webhooks, which is loaded when there is something to send."""

import asyncio
import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from cypd.webhooks.posting import Answer
from cypd.webhooks.targets import Targets

if TYPE_CHECKING:
    from cypd.webhooks.poster import Poster

_POSTER = "cypd.webhooks.poster"


class Client:
    """A ``Poster``, once it is needed: many registries have no webhook, and it takes 0.2 s."""

    def __init__(self, targets: Targets, timeout: float) -> None:
        self._targets = targets
        self._timeout = timeout
        self._poster: Poster | None = None

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Post as ``Poster.post`` does."""
        if self._poster is None:
            await asyncio.to_thread(importlib.import_module, _POSTER)
        return await self._opened().post(url, headers, body)

    def _opened(self) -> "Poster":
        if self._poster is None:
            kind: type[Poster] = importlib.import_module(_POSTER).Poster
            self._poster = kind(self._targets, timeout=self._timeout)
        return self._poster

    async def close(self) -> None:
        """End what is under way."""
        if self._poster is not None:
            await self._poster.close()
