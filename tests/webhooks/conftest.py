"""What the tests of webhooks share."""

import socket
from itertools import cycle

import aiohttp
import pytest
from aiohttp.abc import ResolveResult

from tests.webhooks.house import Resolve


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Resolve:
    """Return what sets the answers that DNS gives from now on, one after the other."""

    def answers(*answers: list[str]) -> None:
        turns = cycle(answers)

        async def resolve(
            _self: object, host: str, port: int = 0, family: int = 0
        ) -> list[ResolveResult]:
            addresses = next(turns)
            if not addresses:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            return [
                ResolveResult(
                    hostname=host, host=address, port=port, family=family, proto=0, flags=0
                )
                for address in addresses
            ]

        monkeypatch.setattr(aiohttp.ThreadedResolver, "resolve", resolve)

    return answers
