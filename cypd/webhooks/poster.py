"""Posting a delivery: one request to a target that nobody here trusts, and what it answered.

Where it goes is judged at the socket that is about to connect, the one place that every dial of
the client passes, by name or by literal. A connection serves one request, so that none outlives
the judgement it was made under.
"""

import asyncio
import errno
import socket
import time
from collections.abc import Mapping

import aiohttp
from aiohttp.abc import ResolveResult

from cypd.webhooks.posting import Answer, Undeliverable
from cypd.webhooks.targets import Targets

MAX_ANSWER = 64 << 10
_PER_HOST = 32  # who posts bounds what a target gets; several webhooks may share a host
# A name may have thousands of addresses, and after each failure the client tries all that are left
# anew: unbounded, one delivery would dial for all the time it has.
_MAX_ADDRESSES = 4

_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (TimeoutError, "timed out"),
    (aiohttp.ClientConnectorDNSError, "could not connect: the target's name has no address"),
    (aiohttp.ClientConnectorError, "could not connect"),
    (aiohttp.ClientResponseError, "what it answered is not HTTP"),
    (aiohttp.ClientError, "the connection broke before the answer was complete"),
)


class _Refused(OSError):
    """A dial that was not made; an OSError, so that the client goes on to the next address."""


class Poster:
    """Posts to what ``targets`` permits.

    ``timeout`` (seconds) is for a post from its look-up to the end of the answer,
    ``connect_timeout`` for each round of dialling.
    """

    def __init__(
        self, targets: Targets, *, timeout: float = 10.0, connect_timeout: float = 5.0
    ) -> None:
        self._targets = targets
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._session: aiohttp.ClientSession | None = None

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Post ``body``, JSON unless ``headers`` say otherwise; raise Undeliverable."""
        try:
            self._targets.check(url)
        except ValueError as error:
            raise Undeliverable(f"refused: {error}") from None
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout):
                status, answer = await self._exchange(url, headers, body)
        except (TimeoutError, aiohttp.ClientError) as error:
            # Not chained: what the client raises has the whole URL in it.
            raise Undeliverable(_reason(error)) from None
        return Answer(status, answer, time.monotonic() - started)

    async def _exchange(
        self, url: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, bytes]:
        self._session = self._session or self._open()
        response = await self._session.post(url, headers=headers, data=body, allow_redirects=False)
        try:
            return response.status, await response.content.readexactly(MAX_ANSWER)
        except asyncio.IncompleteReadError as all_there_is:
            return response.status, all_there_is.partial
        finally:
            response.close()

    def _open(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=_Resolver(),
                use_dns_cache=False,
                socket_factory=self._socket,
                force_close=True,
                limit_per_host=_PER_HOST,
            ),
            headers={
                "Accept-Encoding": "identity",
                "Content-Type": "application/json",
                "User-Agent": "cypd",
            },
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout),
            auto_decompress=False,
            trust_env=False,
            max_line_size=4096,
            max_field_size=8192,
            max_headers=64,
        )

    def _socket(self, info: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = info
        if not self._targets.permits(address[0]):
            raise _Refused(errno.EACCES, "the target's address is not allowed")
        return socket.socket(family, kind, protocol)

    async def close(self) -> None:
        """End what is under way."""
        session, self._session = self._session, None
        if session:
            await session.close()


class _Resolver(aiohttp.ThreadedResolver):
    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return (await super().resolve(host, port, family))[:_MAX_ADDRESSES]


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"TLS: {getattr(error.certificate_error, 'verify_message', 'bad certificate')}"
    if isinstance(error, aiohttp.ClientSSLError):
        return f"TLS: {getattr(error.os_error, 'reason', None) or 'the handshake failed'}"
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, _Refused):
        return f"refused: {error.os_error.strerror}"
    return next(why for kind, why in _REASONS if isinstance(error, kind))
