"""The one ASGI callable: which part of the daemon a path belongs to."""

from cypd.doors.asgi import Application, Receive, Scope, Send


def compose(v2: Application, api: Application) -> Application:
    """Return the application that serves everything."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        if path.startswith("/v2/") or path == "/v2":
            await v2(scope, receive, send)
        elif f"{path}/".startswith(("/api/v1/", "/docs/")):
            await api(scope, receive, send)
        else:
            await _no_such_path(send)

    return application


async def _no_such_path(send: Send) -> None:
    body = b"no such path; the OCI distribution API is below /v2/, the documentation at /docs\n"
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 404, "headers": headers})
    await send({"type": "http.response.body", "body": body})
