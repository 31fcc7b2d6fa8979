"""Answers ``/metrics``: what Prometheus scrapes."""

import hmac
from collections.abc import Awaitable, Callable

from cypd.doors.asgi import Application, Receive, Scope, Send
from cypd.metrics.exposition import CONTENT_TYPE

_TEXT = b"text/plain"


def scrape(text: Callable[[], Awaitable[bytes]], token: str) -> Application:
    """Return the application: open to everybody who reaches it, or to those with the token."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != "/metrics":
            await _answer(send, 404, b"there is /metrics here\n")
        elif scope["method"] not in ("GET", "HEAD"):
            await _answer(send, 405, b"ask with GET\n", headers=[(b"allow", b"GET, HEAD")])
        elif token and not _has(scope, token):
            challenge = [(b"www-authenticate", b'Bearer realm="cypd metrics"')]
            await _answer(send, 401, b"metrics.token is wanted\n", headers=challenge)
        else:
            await _answer(send, 200, await text(), CONTENT_TYPE)

    return application


def _has(scope: Scope, token: str) -> bool:
    expected = b"bearer " + token.encode()
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, given = value.partition(b" ")
            return hmac.compare_digest(scheme.lower() + b" " + given.strip(), expected)
    return False


async def _answer(
    send: Send,
    status: int,
    body: bytes,
    content_type: bytes = _TEXT,
    *,
    headers: list[tuple[bytes, bytes]] | None = None,
) -> None:
    fields = [
        (b"content-type", content_type),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        *(headers or []),
    ]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})
