"""The application: routes into BlackSheep, one way in, one place where errors are answered."""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Protocol, Self, cast

from blacksheep import Application, Content, Request, Response, Router
from blacksheep.exceptions import MessageAborted
from blacksheep.server import routing
from msgspec import UNSET

from cypd.access import ANONYMOUS, Principal
from cypd.api.decoding import parse_body, parse_query
from cypd.api.docs import Docs
from cypd.api.envelope import POLICY, Envelope, prefers_english
from cypd.api.errors import RETRY_SECONDS, translate
from cypd.api.routes import PREFIX, Access, Call, Document, Route, Stream
from cypd.api.streams import until_gone
from cypd.audit.ports import SUCCESS, Record
from cypd.doors.asgi import Receive, Scope, Send
from cypd.logs import trace_id
from cypd.oci.errors import OCIError
from cypd.refusals import Code, Refusal, invalid
from cypd.registry.ports import BlobMissing, Fatal, Unavailable

log = logging.getLogger(__name__)

MAX_BODY = 1 << 20
_MAX_PATH = 4096
_RECEIVE = "cypd.receive"  # in the scope: the request's own receive()
_MAX_PARAMETER = 255
# What the audit log tells of a body: names and settings, never what proves anything.
_TOLD = (
    "username", "email", "user_id", "name", "role", "project_id", "scopes", "is_active", "is_admin",
    "reset_mfa", "is_public", "storage_quota", "url", "events",
)  # fmt: skip
# Requests that were no acts: ill-formed ones, and those of which there are too many.
_NO_ACTS = {400, 413, 429}
# How signing in ends where it does not succeed.
_PROOFS = {Code.WRONG_PASSWORD, Code.SECOND_FACTOR_WRONG, Code.ACCOUNT_DISABLED}
# HEAD is answered wherever GET is (RFC 9110 9.3.2).
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


class Authenticator(Protocol):
    """Tells who a request comes from; no password is a credential here."""

    async def authenticate(self, authorization: str | None, *, address: str = "") -> Principal:
        """Return who sent this header, ``ANONYMOUS`` for None; raise for wrong credentials."""
        ...


class _Exact(routing.Route):
    """A route that is asked for as it is written.

    BlackSheep's own ignores case and a slash at the end, which a proxy's rule for a path does not.
    """

    def __init__(self, path: str, handler: Callable[[Request], Awaitable[Response]]) -> None:
        super().__init__(path, handler)
        self._exact = re.compile(self.rx.pattern.removesuffix(b"/?$"))

    def match_by_path(self, path: bytes) -> routing.RouteMatch | None:
        """Return the match, None for any other spelling."""
        return super().match_by_path(path) if self._exact.fullmatch(path) else None


class Api:
    """``/api/v1`` and ``/docs`` as an ASGI application. ``async with api:`` starts and stops it."""

    def __init__(
        self,
        routes: Sequence[Route],
        authenticator: Authenticator,
        record: Record,
        *,
        always_200: bool,
        on_fatal: Callable[[Fatal], None],
    ) -> None:
        self.routes = (*routes, *Docs(routes).routes())
        self._authenticator = authenticator
        self._record = record
        self._always_200 = always_200
        self._on_fatal = on_fatal
        self._application = Application(router=Router())
        for route in self.routes:
            self._add(route)
        # BlackSheep calls it for what no route matches.
        self._application.router.fallback = self._answer_unknown

    async def __aenter__(self) -> Self:
        await self._application.start()  # type: ignore[no-untyped-call]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._application.stop()  # type: ignore[no-untyped-call]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, in a task of its own: a door may run applications without one."""
        scope = {**_tame(scope), _RECEIVE: receive}
        answering = asyncio.create_task(self._application(scope, receive, send))
        try:
            await answering
        finally:
            answering.cancel()  # does nothing to one that has ended

    async def refuse(self, scope: Scope, _receive: Receive, send: Send, seconds: int) -> None:
        """Answer that there were too many requests, and when to come again."""
        language = next((v for k, v in scope["headers"] if k == b"accept-language"), None)
        envelope = Envelope(trace_id(scope), prefers_english(language), self._always_200)
        headers = {"Retry-After": str(seconds)}
        response = envelope.refusal(Refusal(Code.TOO_MANY_REQUESTS, headers=headers))
        content = cast("Content", response.content)
        fields = [*response.headers, (b"content-type", content.type)]
        fields.append((b"content-length", b"%d" % len(content.body)))
        start = {"type": "http.response.start", "status": response.status, "headers": fields}
        await send(start)
        await send({"type": "http.response.body", "body": content.body})

    def _add(self, route: Route) -> None:
        async def answer(request: Request) -> Response:
            return await self._guarded(request, lambda it: self._run(route, request, it))

        methods = ("GET", "HEAD") if route.method == "GET" else (route.method,)
        for method in methods:
            self._application.router.add_route(method, _Exact(route.path, answer))

    async def _run(self, route: Route, request: Request, envelope: Envelope) -> Response:
        if route.access is None:
            raise Refusal(Code.NO_CREDENTIALS)
        call = await self._identify(request, route.access, envelope.trace_id)
        _scope(request)["user"] = call.principal.name  # for the log of requests
        inputs: dict[str, Any] = {}
        try:
            route.access.require(call.principal)
            if route.query is not None:
                inputs["query"] = parse_query(request.scope["query_string"], route.query)
            if route.body is not None:
                inputs["body"] = parse_body(await _read(request), route.body)
            data = await route.handler(call, **inputs)
        except Exception as error:
            await self._note(route, call, inputs, error)
            raise
        await self._note(route, call, inputs, None)
        if isinstance(data, Stream):
            if request.method == "HEAD":
                data = Document(data.media_type, b"", POLICY)
            else:
                receive = _scope(request)[_RECEIVE]
                data = Stream(data.media_type, until_gone(data.pieces, receive))
        return envelope.success(route.status, data)

    async def _note(
        self, route: Route, call: Call, inputs: dict[str, Any], error: Exception | None
    ) -> None:
        """Tell the audit log, if it is of interest: not who only mistyped, or is sent away."""
        if not route.is_audited or not _is_act(route, call, error):
            return
        given = {name: getattr(inputs.get("body"), name, None) for name in _TOLD}
        target = {name: str(value) for name, value in given.items() if value not in (None, UNSET)}
        target |= call.path
        facts = dict(call.facts)
        project_id = facts.pop("project_id", "") or target.get("project_id", "")
        if route.path.startswith(f"{PREFIX}/projects/"):
            project_id = call.path["id"]
        await self._record(
            call.act,
            route.action,
            _outcome(error),
            target=target | facts,
            project=call.path.get("repo", "").partition("/")[0],
            project_id=project_id,
        )

    async def _identify(self, request: Request, access: Access, trace: str) -> Call:
        # Several of one name are a list (RFC 9110 5.3), and a list is no credential.
        headers = request.get_headers(b"authorization")
        authorization = b", ".join(headers).decode("latin-1") if headers else None
        address = (request.scope.get("client") or ("", 0))[0]
        principal = ANONYMOUS
        if not access.is_open:
            principal = await self._authenticator.authenticate(authorization, address=address)
        return Call(
            principal=principal,
            path=_parameters(request),
            address=address,
            trace_id=trace,
            authorization=authorization,
            last_event_id=(request.get_first_header(b"last-event-id") or b"").decode("latin-1"),
            facts={},
        )

    async def _answer_unknown(self, request: Request) -> Response:
        async def refuse(_: Envelope) -> Response:
            allowed = [
                method
                for method in _METHODS
                if any(it.match(request) for it in self._application.router.routes[method.encode()])
            ]
            if allowed:
                raise Refusal(Code.METHOD_NOT_ALLOWED, headers={"Allow": ", ".join(allowed)})
            raise Refusal(Code.NO_SUCH_PATH)

        return await self._guarded(request, refuse)

    # --- the one error exit ---------------------------------------------------------------------

    async def _guarded(
        self, request: Request, run: Callable[[Envelope], Awaitable[Response]]
    ) -> Response:
        envelope = Envelope(
            trace_id(_scope(request)),
            prefers_english(request.get_first_header(b"accept-language")),
            self._always_200,
        )
        try:
            return await run(envelope)
        except Exception as error:  # noqa: BLE001 - whatever it is, this is where it ends
            return envelope.refusal(self._refusal(error, request, envelope.trace_id))

    def _refusal(self, error: Exception, request: Request, trace: str) -> Refusal:
        if isinstance(error, Refusal):
            return error
        if isinstance(error, OCIError) and error.status != 500:
            return translate(error)
        where = f"{request.method} {request.scope['path']!r} trace={trace}"
        if isinstance(error, Unavailable):
            log.warning("%s: %s", where, error)
            return Refusal(Code.METADATA_UNAVAILABLE, headers={"Retry-After": RETRY_SECONDS})
        if isinstance(error, BlobMissing):
            log.error("%s: a blob is damaged or missing: %s", where, error)
        else:
            log.error("%s", where, exc_info=error)
        if isinstance(error, Fatal):
            self._on_fatal(error)
        return Refusal(Code.INTERNAL)


def _outcome(error: Exception | None) -> int:
    """Return the code that a call is answered with."""
    if error is None:
        return SUCCESS
    return error.code.number if isinstance(error, Refusal) else Code.INTERNAL.number


def _is_act(route: Route, call: Call, error: Exception | None) -> bool:
    """Tell whether what was asked for is an act that somebody answers for.

    Nobody is somebody who proves it here, or fails to: the throttle bounds how often. All else
    that nobody asks for could fill the log.
    """
    code = error.code if isinstance(error, Refusal) else None
    if code is not None and code.status in _NO_ACTS:
        return False
    if call.principal != ANONYMOUS:
        return True
    is_open = route.access is not None and route.access.is_open
    return is_open and (error is None or code in _PROOFS)


def _tame(scope: Scope) -> Scope:
    """Return what is safe to look up: BlackSheep remembers methods and paths that it was asked for.

    What is not can't be a route's; it is asked for as something that no route is either.
    """
    raw_path: bytes = scope.get("raw_path") or scope["path"].encode()
    if len(raw_path) > _MAX_PATH or not raw_path.isascii():
        scope = {**scope, "raw_path": b"/"}
    if scope["method"] not in _METHODS:
        scope = {**scope, "method": "OPTIONS"}
    return scope


def _scope(request: Request) -> Scope:
    """Return the scope as the door made it: BlackSheep's type knows ASGI's own keys alone."""
    return cast("Scope", request.scope)


def _parameters(request: Request) -> dict[str, str]:
    values = {name: value or "" for name, value in (request.route_values or {}).items()}
    if any(not 1 <= len(value) <= _MAX_PARAMETER for value in values.values()):
        raise Refusal(Code.NO_SUCH_PATH)
    return values


async def _read(request: Request) -> bytes:
    """Return the body of a request for JSON, at most ``MAX_BODY`` bytes."""
    length = request.get_first_header(b"content-length")
    if length is not None and length.isdigit() and int(length) > MAX_BODY:
        raise Refusal(Code.BODY_TOO_LARGE)
    media_type = (request.get_first_header(b"content-type") or b"").partition(b";")[0]
    if media_type.strip().lower() != b"application/json":
        raise invalid("Content-Type", "must be application/json", Code.INVALID_PARAMETER)
    body = bytearray()
    try:
        async for piece in request.stream():  # type: ignore[attr-defined]
            body += piece
            if len(body) > MAX_BODY:
                raise Refusal(Code.BODY_TOO_LARGE)
    except MessageAborted:
        raise invalid("body", "broke off", Code.INVALID_PARAMETER) from None
    return bytes(body)
