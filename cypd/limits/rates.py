"""Who is counted, and what happens past a limit.

Requests past a limit are refused, with the time after which the next one is not. Bytes are held to
a pace instead: a pull that is refused fails, one that takes longer does not.
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from math import ceil

from cypd.config import Limits
from cypd.doors.asgi import Application, Receive, Scope, Send
from cypd.limits.buckets import Buckets
from cypd.limits.pace import paced
from cypd.oci.errors import Code, OCIError
from cypd.sources import source

_PROJECT = "cypd.project"  # in the scope
_BUSY_SECONDS = 1  # after which a client with too much under way may try again

Refuse = Callable[[Scope, Receive, Send, int], Awaitable[None]]
"""Answers 429 in an API's words; the last argument is for Retry-After, in seconds."""


class Rates:
    """What each client and each project has had of late, in this process.

    ``processes`` of them share what ``settings`` allow, each having its part.
    """

    def __init__(self, settings: Limits, processes: int = 1) -> None:
        def buckets(rate: float) -> Buckets | None:
            return Buckets(rate / processes, settings.burst) if rate else None

        self._requests = buckets(settings.requests_per_client)
        self._bytes = buckets(settings.bytes_per_client)
        self._project_requests = buckets(settings.requests_per_project)
        self._project_bytes = buckets(settings.bytes_per_project)
        self._most = ceil(settings.connections_per_client / processes)
        self._under_way: Counter[str] = Counter()  # by clients of the TLS door

    def limited(self, application: Application, refuse: Refuse) -> Application:
        """Return the application within its clients' limits; itself if there are none.

        A client is an address that a door tells, never a header's word. A project's bytes are
        counted for those whom the application has let in (``admit_to_project``): nobody else can
        use up a project's limit.
        """
        if not (self._requests or self._most or self._bytes or self._project_bytes):
            return application
        requests, is_paced = self._requests, bool(self._bytes or self._project_bytes)
        if self._most:
            application = self._few_at_once(application, refuse)

        async def limited_application(scope: Scope, receive: Receive, send: Send) -> None:
            client = _client(scope)
            wait = requests.try_take(client) if requests else 0.0
            if wait:
                await refuse(scope, receive, send, ceil(wait))
                return
            if is_paced:
                receive, send = self._paced(scope, receive, send, client)
            await application(scope, receive, send)

        return limited_application

    def _few_at_once(self, application: Application, refuse: Refuse) -> Application:
        """Bound what one client has under way by TLS, where a connection carries many requests."""
        under_way = self._under_way

        async def bounded_application(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["scheme"] != "https":  # the plaintext door bounds connections
                await application(scope, receive, send)
                return
            client = _client(scope)
            if under_way[client] >= self._most:
                await refuse(scope, receive, send, _BUSY_SECONDS)
                return
            under_way[client] += 1
            try:
                await application(scope, receive, send)
            finally:
                under_way[client] -= 1
                if not under_way[client]:
                    del under_way[client]

        return bounded_application

    def _paced(
        self, scope: Scope, receive: Receive, send: Send, client: str
    ) -> tuple[Receive, Send]:
        by_client, by_project = self._bytes, self._project_bytes
        rate = min(it.rate for it in (by_client, by_project) if it)

        def pay(size: int) -> float:
            wait = by_client.take(client, size) if by_client and size else 0.0
            project = scope.get(_PROJECT)
            if by_project and project and size:
                wait = max(wait, by_project.take(project, size))
            return wait

        return paced(scope, receive, send, rate, pay)

    @property
    def admit_to_project(self) -> Callable[[Scope, str], None] | None:
        """What counts a request for a project, and names it in the scope; None without a limit.

        It raises TOOMANYREQUESTS where the project has had too many.
        """
        requests = self._project_requests
        if not (requests or self._project_bytes):
            return None

        def admit(scope: Scope, project: str) -> None:
            scope[_PROJECT] = project
            wait = requests.try_take(project) if requests else 0.0
            if wait:
                headers = {b"retry-after": b"%d" % ceil(wait)}
                raise OCIError(Code.TOOMANYREQUESTS, headers=headers)

        return admit


def _client(scope: Scope) -> str:
    address = scope.get("client")
    return source(address[0]) if address else ""
