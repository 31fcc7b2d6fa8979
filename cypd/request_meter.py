"""Counts each request: how it ended, how soon it was answered, and what went in and out.

It stands beside the log of requests, and costs as little: the numbers lie in memory.
"""

import time
from bisect import bisect_left
from collections.abc import Awaitable, Hashable
from typing import NamedTuple

from cypd.doors.asgi import (
    REQUEST_SLABS,
    ZEROCOPY_SEND,
    Application,
    Message,
    Receive,
    Scope,
    Send,
)
from cypd.metrics import table
from cypd.metrics.named import NamedProjects
from cypd.metrics.page import Page
from cypd.oci.endpoints import Endpoint, Target

TARGET = "target"
"""The key of the scope that has the ``Target`` of a request to the OCI API, once it is known."""
REDIRECTED = "redirected"
"""The key that has how many bytes the client was sent to fetch elsewhere (307)."""

# So that counters move while a large file is sent, not only when it is.
_PIECE = 64 << 20
_LARGE = 1 << 20
_MAX_REMEMBERED = 10_000
_CLASSES = {
    Endpoint.PING: "ping",
    Endpoint.TOKEN: "token",
    Endpoint.TOKEN_EXCHANGE: "token",
    Endpoint.BLOB_GET: "blobs",
    Endpoint.BLOB_DELETE: "blobs",
    Endpoint.MANIFEST_GET: "manifests",
    Endpoint.MANIFEST_PUT: "manifests",
    Endpoint.MANIFEST_DELETE: "manifests",
    Endpoint.UPLOAD_START: "uploads",
    Endpoint.UPLOAD_STATUS: "uploads",
    Endpoint.UPLOAD_CHUNK: "uploads",
    Endpoint.UPLOAD_COMMIT: "uploads",
    Endpoint.UPLOAD_CANCEL: "uploads",
    Endpoint.TAG_LIST: "lists",
    Endpoint.REFERRERS: "lists",
    Endpoint.CATALOG: "lists",
}
_PREFIXES = {
    "/v2": "v2",
    "/api": "api",
    "/docs": "docs",
    "/healthz": "health",
    "/readyz": "health",
    "/metrics": "metrics",
}
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"))
_BODILESS = frozenset(("GET", "HEAD"))
_PULLS = frozenset(("blobs", "manifests"))
_FIRST_BYTE_BOUNDS = [round(it / table.NANOSECOND) for it in table.FIRST_BYTE.buckets]
_FIRST_BYTE_SUM = table.FIRST_BYTE.width - 1


def metered(application: Application, page: Page, named: NamedProjects) -> Application:
    """Return the application with each of its requests counted on the page."""
    for metric in (table.ACTIVE_PULLS, table.ACTIVE_UPLOADS, table.SENT, table.RECEIVED):
        page.slot(metric)

    async def metered_application(scope: Scope, receive: Receive, send: Send) -> None:
        request = _Request(scope, send, page, named)
        try:
            if scope["method"] in _BODILESS:
                await application(scope, receive, request.send)
            else:
                await _run_with_body(application, scope, receive, request)
        finally:
            request.end()

    return metered_application


async def _run_with_body(
    application: Application, scope: Scope, receive: Receive, request: "_Request"
) -> None:
    intake = _Intake(request)
    extensions = scope["extensions"]
    slabs = extensions.get(REQUEST_SLABS)
    if slabs:
        counted = {"receive": intake.counting(slabs["receive"])}
        scope["extensions"] = {**extensions, REQUEST_SLABS: counted}
    try:
        await application(scope, intake.counting(receive), request.send)
    finally:
        intake.end()


class _Places(NamedTuple):
    """Where a request that ended is counted; ``pulled`` is 0 where that has to be found out."""

    requests: int
    first_byte: int
    sent: int
    pulled: int = 0


class _Request:
    """What is counted of a request while it is answered."""

    __slots__ = (
        "_first_byte",
        "_is_active",
        "_memory",
        "_named",
        "_pulled",
        "_scope",
        "_send",
        "_start",
        "_status",
        "page",
    )

    def __init__(self, scope: Scope, send: Send, page: Page, named: NamedProjects) -> None:
        self._scope = scope
        self._send = send
        self.page = page
        self._named = named
        self._status = 0
        self._memory = 0  # bytes that are not counted yet
        self._pulled = 0  # bytes that are, of a file
        self._first_byte = 0
        self._is_active = False  # a pull that has begun to send
        self._start = time.perf_counter_ns()

    @property
    def pushed_source(self) -> str:
        """What the request's body is."""
        target: Target | None = self._scope.get(TARGET)
        return "manifest" if target and _CLASSES[target.endpoint] == "manifests" else "upload"

    def send(self, message: Message) -> Awaitable[None]:
        """Hand on; a body that is sent whole costs no more awaits than before."""
        kind = message["type"]
        if kind == "http.response.start":
            return self._begin(message)
        if kind == "http.response.body":
            self._memory += len(message.get("body", b""))
            if message.get("more_body"):
                self._begin_pull()
                if self._memory > _LARGE:
                    self._count_memory()
        elif kind == ZEROCOPY_SEND and message.get("count") is not None:
            return self._send_file(message)
        return self._send(message)

    async def _begin(self, message: Message) -> None:
        await self._send(message)  # raises where nobody is there to be answered
        self._first_byte = time.perf_counter_ns()
        self._status = message["status"]

    async def _send_file(self, message: Message) -> None:
        self._begin_pull()
        # By TLS a file's bytes are read, and encrypted in memory.
        source = "memory" if self._scope["scheme"] == "https" else "sendfile"
        left = message["count"]
        while left > _PIECE:
            await self._send({**message, "count": _PIECE, "more_body": True})
            self._count(_PIECE, source)
            left -= _PIECE
            message = {**message, "offset": message["offset"] + _PIECE, "count": left}
        await self._send(message)
        self._count(left, source)

    def _begin_pull(self) -> None:
        """Count a pull as active, until its request ends."""
        target: Target | None = self._scope.get(TARGET)
        if not self._is_active and target and self._is_pull(target):
            self._is_active = True
            self.page.add(table.ACTIVE_PULLS, 1)

    def _count_memory(self) -> None:
        size, self._memory = self._memory, 0
        self._count(size, "memory")

    def _count(self, size: int, source: str) -> None:
        """Count bytes of the answer."""
        self.page.add(table.SENT, size)
        target: Target | None = self._scope.get(TARGET)
        if target and self._is_pull(target):
            self._pulled += size
            self.count_of_project(table.PULLED, size, source)

    def count_of_project(self, metric: table.Metric, size: int, source: str) -> None:
        """Count bytes of a project."""
        target: Target | None = self._scope.get(TARGET)
        if not size or target is None or target.repository is None:
            return
        label = self._named.label(target.repository.project, size)
        self.page.add(metric, size, label, source)

    def end(self) -> None:
        """Count how it ended. What most requests need is remembered in one place."""
        scope, page, status = self._scope, self.page, self._status
        target: Target | None = scope.get(TARGET)
        method = scope["method"]
        if target is not None:
            # Not the endpoint itself: the hash of an enum's member is no cheap one.
            key = (target.repository, target.endpoint._value_, method, status)
            places = page.slots.get(key) or self._remember(key, target, method)
        else:
            places = self._places(_class_of(scope["path"]), method)
        numbers = page.numbers
        numbers[places.requests] += 1
        if self._first_byte:
            elapsed = self._first_byte - self._start
            numbers[places.first_byte + bisect_left(_FIRST_BYTE_BOUNDS, elapsed)] += 1
            numbers[places.first_byte + _FIRST_BYTE_SUM] += elapsed
        if self._memory:
            if places.pulled:
                numbers[places.sent] += self._memory
                numbers[places.pulled] += self._memory
                self._pulled += self._memory
            else:
                self._count_memory()
        if self._is_active:
            page.add(table.ACTIVE_PULLS, -1)
        if self._pulled >= _LARGE:
            self.count_rate(table.PULL_RATE, self._pulled, since=self._first_byte)
        if status == 307 and REDIRECTED in scope:
            self.count_of_project(table.PULLED, scope[REDIRECTED], "redirect")

    def _remember(self, key: Hashable, target: Target, method: str) -> "_Places":
        slots = self.page.slots
        places = self._places(_CLASSES[target.endpoint], method)
        if target.repository and self._is_pull(target):
            project = target.repository.project
            if self._named.label(project, 0) == project:
                pulled = self.page.slot(table.PULLED, project, "memory")
                places = places._replace(pulled=pulled)
        if len(slots) >= _MAX_REMEMBERED:
            slots.clear()
        slots[key] = places
        return places

    def _places(self, endpoint: str, method: str) -> "_Places":
        word = method if method in _METHODS else table.OTHER
        status = str(self._status or "none")
        return _Places(
            self.page.slot(table.REQUESTS, endpoint, word, status),
            self.page.slot(table.FIRST_BYTE, endpoint),
            self.page.slot(table.SENT),
        )

    def _is_pull(self, target: Target) -> bool:
        return 200 <= self._status < 300 and _CLASSES[target.endpoint] in _PULLS

    def count_rate(self, metric: table.Metric, size: int, *, since: int) -> None:
        """Count how fast something large went."""
        elapsed = max(1, time.perf_counter_ns() - since)
        self.page.observe(metric, round(size / (elapsed * table.NANOSECOND)))


class _Intake:
    """What is counted of a request's body."""

    __slots__ = ("_begun", "_request", "_size")

    def __init__(self, request: _Request) -> None:
        self._request = request
        self._size = 0
        self._begun = 0

    def counting(self, receive: Receive) -> Receive:
        """Return ``receive`` with what comes in counted."""

        async def counting_receive() -> Message:
            message = await receive()
            if body := message.get("body"):
                self._take(len(body))
            return message

        return counting_receive

    def _take(self, size: int) -> None:
        request = self._request
        if not self._begun:
            self._begun = time.perf_counter_ns()
            request.page.add(table.ACTIVE_UPLOADS, 1)
        self._size += size
        request.page.add(table.RECEIVED, size)
        request.count_of_project(table.PUSHED, size, request.pushed_source)

    def end(self) -> None:
        """Count how fast it came."""
        if self._begun:
            self._request.page.add(table.ACTIVE_UPLOADS, -1)
            if self._size >= _LARGE:
                self._request.count_rate(table.PUSH_RATE, self._size, since=self._begun)


def _class_of(path: str) -> str:
    """Return what kind of endpoint a path is that the OCI API knows no more of."""
    first = path.split("/", 2)
    return _PREFIXES.get(f"/{first[1]}" if len(first) > 1 else path, table.OTHER)
