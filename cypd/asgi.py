"""The one ASGI callable: which part of the daemon a path belongs to."""

from cypd.doors.asgi import Application, Receive, Scope, Send
from cypd.health import Health


def compose(
    v2: Application, api: Application, health: Health, metrics: Application | None
) -> Application:
    """Return the application that serves everything; ``/metrics`` only if told to."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        if path.startswith("/v2/") or path == "/v2":
            await v2(scope, receive, send)
        elif f"{path}/".startswith(("/api/v1/", "/docs/")):
            await api(scope, receive, send)
        elif path in ("/healthz", "/readyz"):
            await _answer_health(health, scope, send)
        elif metrics and path == "/metrics":
            await metrics(scope, receive, send)
        else:
            await _answer(send, 404, b"no such path; the OCI distribution API is below /v2/\n")

    return application


async def _answer_health(health: Health, scope: Scope, send: Send) -> None:
    """Open to everybody, so a word is all that is told."""
    if scope["method"] not in ("GET", "HEAD"):
        await _answer(send, 405, b"ask with GET\n", (b"allow", b"GET, HEAD"))
    elif scope["path"] == "/healthz":
        await _answer(send, 200, b"alive\n")
    elif trouble := await health.trouble():
        await _answer(send, 503, trouble.encode() + b"\n", (b"retry-after", b"5"))
    else:
        await _answer(send, 200, b"ready\n")


async def _answer(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    fields = [
        (b"content-type", b"text/plain"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        *headers,
    ]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})
