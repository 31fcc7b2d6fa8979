"""One line for each request that is worth it."""

import logging
import time
from collections.abc import Awaitable
from typing import Any, Literal
from urllib.parse import quote

from cypd.doors.asgi import ZEROCOPY_SEND, Application, Message, Receive, Scope, Send
from cypd.logs import FIELDS, trace_id

log = logging.getLogger("cypd.requests")

Choice = Literal["off", "errors", "sampled", "all"]

_EVERY = {"errors": 0, "sampled": 100, "all": 1}
_MAX_TEXT = 512
_SAFE = "/:@!$&'()*+,;=~"


def logged(application: Application, choice: Choice) -> Application:
    """Return the application with a log of its requests; itself if there shall be none.

    What is logged has its trace id in the answer's ``X-Request-ID``.
    """
    if choice == "off":
        return application
    every, count = _EVERY[choice], 0

    async def logging_application(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal count
        count += 1
        request = _Request(scope, send, is_due=every > 0 and count % every == 0)
        try:
            await application(scope, receive, request.send)
        except BaseException as error:
            # Clients close early as a matter of course: containerd does when it has a range.
            request.is_due |= not isinstance(error, OSError)
            raise
        finally:
            if request.is_due:
                request.write()

    return logging_application


class _Request:
    """What is noted of a request while it is answered."""

    __slots__ = ("_is_complete", "_scope", "_send", "_size", "_start", "_status", "is_due")

    def __init__(self, scope: Scope, send: Send, *, is_due: bool) -> None:
        self._scope = scope
        self._send = send
        self._start = time.perf_counter()
        self._status = 0
        self._size = 0
        self._is_complete = False
        self.is_due = is_due

    def send(self, message: Message) -> Awaitable[None]:
        """Hand on; no coroutine of its own, so that a message costs no more awaits than before."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            if self.is_due or (self._status >= 400 and not self._is_expected()):
                self.is_due = True
                message = self._named(message)
        else:
            self._size += _size(message)
            self._is_complete = not message.get("more_body")
        return self._send(message)

    def _is_expected(self) -> bool:
        """Part of every push: looking for what is not there, and trying without signing in."""
        scope = self._scope
        if self._status == 404:
            return bool(scope["method"] == "HEAD")
        return self._status == 401 and all(name != b"authorization" for name, _ in scope["headers"])

    def _named(self, message: Message) -> Message:
        headers = [it for it in message.get("headers", ()) if it[0] != b"x-request-id"]
        return {**message, "headers": [*headers, (b"x-request-id", trace_id(self._scope).encode())]}

    def write(self) -> None:
        """Write the line. Not the query: it may hold a secret."""
        scope = self._scope
        fields: dict[str, Any] = {
            "method": _word(scope["method"]),
            "path": _word(scope["path"]),
            "status": self._status,
            "bytes": self._size,
            "milliseconds": round((time.perf_counter() - self._start) * 1000, 3),
            "user": _word(scope.get("user") or "-"),
            "address": (scope.get("client") or ("-",))[0],
            "trace": trace_id(scope),
            "complete": self._is_complete,
        }
        text = "%(method)s %(path)s %(status)d %(bytes)d bytes %(milliseconds)s ms user=%(user)s "
        text += "address=%(address)s trace=%(trace)s"
        if not self._is_complete:
            text += " cut"
        log.info(text, fields, extra={FIELDS: fields})


def _word(text: str) -> str:
    """Return text without spaces, so that it can't pass for the fields behind it."""
    return quote(text[:_MAX_TEXT], _SAFE, errors="replace")


def _size(message: Message) -> int:
    if message["type"] == ZEROCOPY_SEND:
        return int(message.get("count") or 0)
    return len(message.get("body", b""))
