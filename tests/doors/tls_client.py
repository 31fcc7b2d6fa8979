"""The raw client, inside TLS."""

import asyncio
import ssl
from typing import NamedTuple, Self

from tests.doors.client import PATIENCE, Client


class Session(NamedTuple):
    """What a client and its door have agreed on."""

    version: str | None
    protocol: str | None
    certificate: bytes | None


class TlsClient(Client):
    """One connection; what it sends and receives is what is inside of TLS."""

    _incoming: ssl.MemoryBIO
    _outgoing: ssl.MemoryBIO
    _tls: ssl.SSLObject

    @classmethod
    async def open(
        cls, address: tuple[str, int], context: ssl.SSLContext, *, receive_buffer: int = 0
    ) -> Self:
        """Connect and shake hands. Raises ssl.SSLError and OSError."""
        client = await cls.connect(address, receive_buffer=receive_buffer)
        client._incoming, client._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client._tls = context.wrap_bio(
            client._incoming, client._outgoing, server_hostname=address[0]
        )
        try:
            await client._shake_hands()
        except OSError:
            client.close()
            raise
        return client

    @property
    def session(self) -> Session:
        tls = self._tls
        return Session(tls.version(), tls.selected_alpn_protocol(), tls.getpeercert(True))

    async def _shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                if not await self._fill(PATIENCE):
                    raise ConnectionResetError("closed in the handshake") from None
            else:
                await self._flush()
                return

    async def _flush(self) -> None:
        await super().send(self._outgoing.read())

    async def _fill(self, patience: float) -> bool:
        data = await super().receive(patience)
        self._incoming.write(data)
        return bool(data)

    async def send(self, data: bytes) -> None:
        for at in range(0, len(data), 1 << 20):
            self._tls.write(data[at : at + (1 << 20)])
            await self._flush()

    async def receive(self, patience: float = PATIENCE) -> bytes:
        async with asyncio.timeout(patience):
            while True:
                try:
                    return self._tls.read(1 << 20)
                except ssl.SSLWantReadError:
                    if not await self._fill(patience):
                        return b""
                except ssl.SSLZeroReturnError:
                    return b""
