"""The application: one table from endpoint to handler, one place where errors are answered."""

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NamedTuple

from cypd.access import Action, Admission, Authenticator, Policy, Principal
from cypd.audit.ports import SUCCESS, Record
from cypd.doors.asgi import Receive, Scope, Send
from cypd.logs import trace_id
from cypd.oci.endpoints import Endpoint, parse
from cypd.oci.errors import Code, OCIError
from cypd.oci.names import RepositoryName
from cypd.refusals import Refusal
from cypd.registry.blobs import Blobs
from cypd.registry.catalog import Catalog
from cypd.registry.manifests import Manifests
from cypd.registry.ports import BlobMissing, Fatal, Unavailable
from cypd.registry.pulls import PullCounter
from cypd.registry.uploads import Uploads
from cypd.v2.blobs import BlobHandlers
from cypd.v2.call import JSON, Call, ClientGone
from cypd.v2.lists import ListHandlers
from cypd.v2.manifests import Guard, ManifestHandlers
from cypd.v2.tokens import TokenHandlers, challenge
from cypd.v2.uploads import UploadHandlers

log = logging.getLogger(__name__)

_RETRY_SECONDS = b"5"
_WORDS = {
    401: Code.UNAUTHORIZED,
    403: Code.DENIED,
    404: Code.NAME_UNKNOWN,
    429: Code.TOOMANYREQUESTS,
}


class Route(NamedTuple):
    """What an endpoint does, and what one has to be allowed for it."""

    action: Action | None
    """``None``: it is enough to be somebody."""
    handler: Callable[[Call], Awaitable[None]]
    is_open: bool = False
    """Also to nobody."""
    begins: bool = False
    """It may be the first that a project hears of."""
    outlives: bool = False
    """Who opened an upload may finish it although their token is over meanwhile."""
    takes_space: bool = False
    """Refused on a disk that is almost full."""
    audited: str = ""
    """What the audit log calls it; empty: it is not told. Of pushes those of administrators are."""


class V2:
    """The OCI Distribution API as an ASGI application."""

    def __init__(
        self,
        blobs: Blobs,
        uploads: Uploads,
        manifests: Manifests,
        catalog: Catalog,
        pulls: PullCounter,
        *,
        authenticator: Authenticator,
        allows: Policy,
        admit: Admission,
        external_url: str,
        delete_enabled: bool,
        session_ttl: float,
        on_fatal: Callable[[Fatal], None],
        require_space: Callable[[], None],
        record: Record,
        is_set_aside: Callable[[Principal, RepositoryName], bool],
        guard: Guard,
        admit_to_project: Callable[[Scope, str], None] | None = None,
    ) -> None:
        self._authenticator = authenticator
        self._allows = allows
        self._admit = admit
        self._external_url = external_url
        self._delete_enabled = delete_enabled
        self._session_ttl = session_ttl
        self._on_fatal = on_fatal
        self._require_space = require_space
        self._record = record
        self._is_set_aside = is_set_aside
        self._admit_to_project = admit_to_project
        blob = BlobHandlers(blobs)
        upload = UploadHandlers(uploads, blobs)
        manifest = ManifestHandlers(manifests, pulls, guard)
        lists = ListHandlers(manifests, catalog)
        token = TokenHandlers(authenticator, allows)
        self.routes = {
            Endpoint.PING: Route(None, _ping),
            Endpoint.TOKEN: Route(None, token.get, is_open=True),
            Endpoint.TOKEN_EXCHANGE: Route(None, token.exchange, is_open=True),
            Endpoint.BLOB_GET: Route(Action.PULL, blob.get),
            Endpoint.BLOB_DELETE: Route(Action.DELETE, blob.delete, audited="blobs.delete"),
            Endpoint.MANIFEST_GET: Route(Action.PULL, manifest.get),
            Endpoint.MANIFEST_PUT: Route(
                Action.PUSH,
                manifest.put,
                begins=True,
                takes_space=True,
                audited="manifests.push",
            ),
            Endpoint.MANIFEST_DELETE: Route(
                Action.DELETE, manifest.delete, audited="manifests.delete"
            ),
            Endpoint.UPLOAD_START: Route(Action.PUSH, upload.start, begins=True, takes_space=True),
            Endpoint.UPLOAD_STATUS: Route(Action.PUSH, upload.status, outlives=True),
            Endpoint.UPLOAD_CHUNK: Route(
                Action.PUSH, upload.append, outlives=True, takes_space=True
            ),
            Endpoint.UPLOAD_COMMIT: Route(
                Action.PUSH, upload.commit, outlives=True, takes_space=True
            ),
            Endpoint.UPLOAD_CANCEL: Route(Action.PUSH, upload.cancel, outlives=True),
            Endpoint.TAG_LIST: Route(Action.PULL, lists.tags),
            Endpoint.REFERRERS: Route(Action.PULL, lists.referrers),
            Endpoint.CATALOG: Route(Action.CATALOG, lists.catalog),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        call = Call(scope, receive, send)
        try:
            await self._route(call)
        except ClientGone:
            log.debug("the client went away while it sent %r", scope["path"])
            await self._answer_cut(call)
        except Exception as error:
            if call.has_started:
                raise  # too late for another answer: the door cuts the connection
            await self._answer_error(call, error)

    async def refuse(self, scope: Scope, receive: Receive, send: Send, seconds: int) -> None:
        """Answer that there were too many requests, and when to come again."""
        headers = {b"retry-after": b"%d" % seconds}
        refusal = OCIError(Code.TOOMANYREQUESTS, headers=headers)
        await self._answer_error(Call(scope, receive, send), refusal)

    async def _route(self, call: Call) -> None:
        scope = call.scope
        call.target = scope["target"] = parse(scope["method"], scope["path"])  # for the meter
        route = self.routes[call.target.endpoint]
        call.principal = await self._authenticator.authenticate(
            call.header(b"authorization"),
            address=call.address,
            password=True,
            registry=True,
            grace=self._session_ttl if route.outlives else 0.0,
        )
        scope["user"] = call.principal.name  # for the log of requests
        if not route.is_open:
            self._require_allowed(call, route.action)
        if self._admit_to_project is not None and call.target.repository is not None:
            self._admit_to_project(scope, call.target.repository.project)
        if route.takes_space:
            self._require_space()
        if route.begins:
            await self._admit(call.principal, call.repository)
        await route.handler(call)
        if route.audited and (route.action is Action.DELETE or self._is_foreign(call)):
            target = {"repository": call.repository, "reference": str(call.reference)}
            project = call.repository.project
            await self._record(call.act, route.audited, SUCCESS, target=target, project=project)

    def _is_foreign(self, call: Call) -> bool:
        """Tell whether it is an administrator's act, which a member's would not be told of."""
        return self._is_set_aside(call.principal, call.repository)

    def _require_allowed(self, call: Call, action: Action | None) -> None:
        principal, repository = call.principal, call.target.repository
        if action is None:
            allowed = bool(principal.user_id)
        else:
            allowed = self._allows(principal, action, repository)
        if not allowed:
            if not principal.user_id or principal.grants is not None:
                raise OCIError(Code.UNAUTHORIZED)  # the challenge says which token would do
            if repository and not self._allows(principal, Action.PULL, repository):
                # What one may not read does not exist.
                raise OCIError(Code.NAME_UNKNOWN, detail={"name": repository})
            raise OCIError(Code.DENIED)
        if action is Action.DELETE and not self._delete_enabled:
            raise OCIError(Code.UNSUPPORTED, "deleting is switched off (access.delete)")

    async def _answer_cut(self, call: Call) -> None:
        # It may have closed its sending side alone, and still read: RFC 9112 section 8.
        with suppress(OSError):  # it has really gone
            await self._answer_error(call, OCIError(Code.SIZE_INVALID, "the body broke off"))

    async def _answer_error(self, call: Call, error: Exception) -> None:
        if isinstance(error, OCIError):
            refusal = error
        elif isinstance(error, Refusal):
            refusal = _worded(error)
        elif isinstance(error, Unavailable):
            log.warning("%s %r: %s", call.scope["method"], call.scope["path"], error)
            refusal = OCIError(Code.UNAVAILABLE, headers={b"retry-after": _RETRY_SECONDS})
        else:
            refusal = self._fault(call, error)
        if refusal.status == 401:
            self._add_challenge(call, refusal)
        headers = [(b"content-type", JSON), *refusal.headers.items()]
        await call.answer(refusal.status, headers, refusal.body())

    def _add_challenge(self, call: Call, refusal: OCIError) -> None:
        action = self.routes[call.target.endpoint].action
        refusal.headers |= {
            b"www-authenticate": challenge(call, action, self._external_url),
            b"cache-control": b"no-store",
        }

    def _fault(self, call: Call, error: Exception) -> OCIError:
        trace = trace_id(call.scope)
        where = f"{call.scope['method']} {call.scope['path']!r}"
        if isinstance(error, BlobMissing):
            log.error("%s trace=%s: a blob is damaged or missing: %s", where, trace, error)
        else:
            log.error("%s trace=%s", where, trace, exc_info=error)
        if isinstance(error, Fatal):
            self._on_fatal(error)
        return OCIError(
            Code.UNKNOWN,
            detail={"trace_id": trace},
            headers={b"x-request-id": trace.encode()},
        )


def _worded(refusal: Refusal) -> OCIError:
    """Return a refusal as the specification words it."""
    code = _WORDS.get(refusal.code.status, Code.UNSUPPORTED)
    headers = {name.lower().encode(): value.encode() for name, value in refusal.headers.items()}
    return OCIError(code, str(refusal), status=refusal.code.status, headers=headers)


async def _ping(call: Call) -> None:
    await call.answer_json({})
