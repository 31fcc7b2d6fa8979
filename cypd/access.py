"""Who asks, what they want to do, and who decides: default deny."""

from collections.abc import Awaitable, Callable
from enum import Enum, IntEnum
from typing import NamedTuple, Protocol

from cypd.oci.names import RepositoryName


class Scope(IntEnum):
    """How far a credential reaches; each scope includes those before it."""

    READ = 1
    WRITE = 2
    DELETE = 3
    ADMIN = 4


class Grant(NamedTuple):
    """What a token of the token server was issued for."""

    repository: str
    """A repository's name, or ``*`` for the catalog."""
    actions: frozenset[str]
    """Of ``pull``, ``push``, ``delete``; ``*`` for the catalog."""


class Principal(NamedTuple):
    """Who a request comes from, and how far the credential that says so reaches.

    Rights are decided at each request from the user's roles of that moment; ``scope``,
    ``projects`` and ``grants`` only take away from them.
    """

    user_id: str = ""
    name: str = ""
    is_admin: bool = False
    scope: Scope = Scope.ADMIN
    projects: frozenset[str] | None = None
    """Ids of the projects that a personal access token is restricted to; ``None``: unbounded."""
    grants: tuple[Grant, ...] | None = None
    """For a token of the token server; ``None`` for every other credential."""
    credential: str = ""
    """What proved it, for a token that is to end with it; ``""`` for nobody."""
    session: str = ""
    """The id of the session, if that is what proved it."""
    is_expired: bool = False
    """A token of the token server past its time: good for its user's own upload alone."""


ANONYMOUS = Principal(scope=Scope.READ)

SCAN_CREDENTIAL = "scan:"
"""What begins the credential of a scan, before the id of it."""


def is_scanner(principal: Principal) -> bool:
    """Tell whether somebody is a scan: it pulls for the registry itself."""
    return principal.credential.startswith(SCAN_CREDENTIAL)


class Act(NamedTuple):
    """Who does something, when and from where: what events and the audit log tell of it."""

    at: float
    """Unix seconds."""
    user_id: str = ""
    """Empty for the registry itself."""
    name: str = ""
    address: str = ""
    """The client's, as an IP address."""
    trace_id: str = ""
    """What the request goes by in the log."""


class Action(Enum):
    """What can be allowed on a repository or its project, or without one on the registry."""

    PULL = "pull"
    PUSH = "push"
    DELETE = "delete"
    SCAN = "scan"
    SETTINGS = "settings"
    """Settings and webhooks of a project."""
    MEMBERS = "members"
    """Members of a project, and its end."""
    CATALOG = "catalog"


class Token(NamedTuple):
    """What stands for a principal for a while."""

    text: str
    lifetime: int
    """In seconds."""


class Authenticator(Protocol):
    """Tells who a request comes from."""

    async def authenticate(
        self,
        authorization: str | None,
        *,
        address: str = "",
        password: bool = False,
        registry: bool = False,
        grace: float = 0.0,
    ) -> Principal:
        """Return who sent this ``Authorization`` header, ``ANONYMOUS`` for ``None``.

        Takes sessions' access tokens and personal access tokens, as Bearer and as the password of
        Basic; with ``password`` also passwords, with ``registry`` also tokens of the token server,
        as Bearer, and those up to ``grace`` seconds past their time as ``is_expired``. ``address``
        is the client's, for which wrong passwords are counted.

        Raises ``Refusal`` for everything else: wrong credentials are never anonymous.
        """
        ...

    def issue_token(self, principal: Principal, grants: tuple[Grant, ...]) -> Token:
        """Return a token of the token server: good for ``grants`` at most."""
        ...

    def issue_identity(self, principal: Principal) -> str:
        """Return a token with which ``authenticate_identity`` knows the principal again."""
        ...

    def authenticate_identity(self, token: str) -> Principal:
        """Return whom an identity token names; raise ``Refusal``."""
        ...


Policy = Callable[[Principal, Action, RepositoryName | None], bool]
"""Whether a principal may do this to that repository; ``None``: to the registry as a whole."""


Admission = Callable[[Principal, RepositoryName], Awaitable[None]]
"""Lets an allowed push into a repository, whatever that takes; raises OCIError if it can't."""
