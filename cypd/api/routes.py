"""What a route is: declared in one place, so that it is served and documented from one source.

A handler is an async method that takes a ``Call``, and by their names the ``body`` and ``query``
that its route declares; what it returns becomes the envelope's ``data``. It raises ``Refusal``
for what it does not do::

    async def create(self, call: Call, body: NewProject) -> ProjectAnswer: ...

    Route(
        "POST", "/api/v1/projects", handlers.create, signed_in(Scope.WRITE),
        body=NewProject, answer=ProjectAnswer, status=201,
        refusals=(Code.PROJECT_EXISTS,), tag="projects", summary="Create a project",
    )
"""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import NoneType
from typing import Annotated, Any, Literal, NamedTuple, get_type_hints

import msgspec
from msgspec import Meta

from cypd.access import ANONYMOUS, Act, Principal, Scope
from cypd.refusals import Code, Refusal

PREFIX = "/api/v1"

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]

Time = Annotated[datetime, Meta(tz=True)]
"""A moment in an answer, aware of its zone: RFC 3339 in UTC."""

_LACKS = {
    Scope.READ: Code.LACKS_READ,
    Scope.WRITE: Code.LACKS_WRITE,
    Scope.DELETE: Code.LACKS_DELETE,
    Scope.ADMIN: Code.LACKS_ADMIN,
}


class Input(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The base of bodies and queries: what is not declared is refused by name."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The base of what handlers return."""


class Document(NamedTuple):
    """An answer without envelope: the OpenAPI document, a page, a style sheet."""

    media_type: str
    body: bytes
    policy: str
    """Its Content-Security-Policy."""


class Stream(NamedTuple):
    """An answer without envelope and without an end that is known before."""

    media_type: str
    pieces: AsyncGenerator[bytes, None]


class Call(NamedTuple):
    """A request that was let in, as handlers see it."""

    principal: Principal
    """``ANONYMOUS`` on every ``OPEN`` route: credentials are not looked at there."""
    path: Mapping[str, str]
    """The path's parameters by name, percent-decoded, each 1 to 255 characters."""
    address: str
    """Where the client is, as an IP address; empty if the door does not know."""
    trace_id: str
    authorization: str | None
    """The header itself, for the one route whose token is no credential: the second factor."""
    last_event_id: str
    """What a stream of events is to be continued after; empty for one that begins."""
    facts: dict[str, str]
    """What a handler found out that the audit log is to tell: ``project_id``."""

    @property
    def act(self) -> Act:
        """Who asks, now and from where."""
        principal = self.principal
        return Act(time.time(), principal.user_id, principal.name, self.address, self.trace_id)


class Access(NamedTuple):
    """Who is let in to a route."""

    scope: Scope
    is_open: bool = False
    """Everyone; credentials are not even looked at."""
    administrator: bool = False
    in_projects: bool = False
    """Also a token that is bound to projects: the handler asks for a right in one of them."""

    def require(self, principal: Principal) -> None:
        """Raise Refusal unless ``principal`` is let in."""
        if self.is_open:
            return
        if principal == ANONYMOUS:
            raise Refusal(Code.NO_CREDENTIALS)
        if principal.grants is not None or principal.is_expired:
            raise Refusal(Code.TOKEN_INVALID)  # the token server's tokens are for the OCI API
        if self.administrator and not principal.is_admin:
            raise Refusal(Code.PERMISSION_MISSING)
        if principal.scope < self.scope:
            raise Refusal(_LACKS[self.scope])
        if principal.projects is not None and not self.in_projects and self.scope > Scope.READ:
            # It could make a token that is bound to nothing, or change the password.
            raise Refusal(Code.PERMISSION_MISSING)

    def refusals(self) -> tuple[Code, ...]:
        """Return what ``require`` can refuse, and the authenticator before it."""
        if self.is_open:
            return ()
        credentials = (Code.NO_CREDENTIALS, Code.TOKEN_EXPIRED, Code.TOKEN_INVALID)
        unbound = not self.in_projects and self.scope > Scope.READ
        missing = (Code.PERMISSION_MISSING,) if self.administrator or unbound else ()
        return (*credentials, Code.PAT_INVALID, *missing, _LACKS[self.scope])


OPEN = Access(Scope.READ, is_open=True)


def signed_in(scope: Scope) -> Access:
    """Let in everyone who is somebody, with a credential that reaches as far as ``scope``."""
    return Access(scope)


def in_projects(scope: Scope) -> Access:
    """Let in as ``signed_in``, tokens that are bound to projects included."""
    return Access(scope, in_projects=True)


def administrator(scope: Scope = Scope.ADMIN) -> Access:
    """Let in administrators, with a credential that reaches as far as ``scope``."""
    return Access(scope, administrator=True)


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path. Without ``access`` nobody is let in: it answers 401."""

    method: Method
    path: str
    """With ``{name}`` for one segment, ``{path:name}`` for one or more with slashes."""
    handler: Callable[..., Awaitable[Any]]
    access: Access | None = None
    body: type[Input] | None = None
    query: type[Input] | None = None
    answer: Any = None
    """The type of ``data``; None: ``data`` is null. Document and Stream have no envelope."""
    status: Literal[200, 201, 202] = 200
    refusals: tuple[Code, ...] = ()
    """What the handler refuses, beside what every route does (credentials, input, 5xx)."""
    tag: str = "system"
    summary: str = ""
    is_routine: bool = False
    """It changes something, but nothing that anybody would look up: the audit log leaves it out."""

    @property
    def action(self) -> str:
        """What the audit log calls it."""
        return f"{self.tag}.{self.handler.__name__}"

    @property
    def is_audited(self) -> bool:
        """Whether the audit log tells of it: what changes something always is, unless routine."""
        return self.method != "GET" and not self.is_routine

    def __post_init__(self) -> None:
        """Raise TypeError where the handler's annotations say something else than the route."""
        hints = get_type_hints(self.handler)
        declared = {"body": self.body, "query": self.query, "return": self.answer or NoneType}
        for name, shape in declared.items():
            if hints.get(name) != shape:
                raise TypeError(f"{self.method} {self.path}: {name} is {hints.get(name)}")
