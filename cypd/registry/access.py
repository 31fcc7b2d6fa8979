"""Who asks, what they want to do, and who decides: default deny."""

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple, Protocol

from cypd.oci.names import RepositoryName


class Principal(NamedTuple):
    """Who a request comes from."""

    name: str
    is_admin: bool = False


ANONYMOUS = Principal("")


class Action(Enum):
    """What can be allowed on a repository, or without one on the registry."""

    PULL = "pull"
    PUSH = "push"
    DELETE = "delete"
    CATALOG = "catalog"


class Token(NamedTuple):
    """What stands for a principal for a while."""

    text: str
    lifetime: int
    """In seconds."""


class Authenticator(Protocol):
    """Tells who a request comes from."""

    async def authenticate(self, authorization: str | None) -> Principal:
        """Return who sent this ``Authorization`` header, ``ANONYMOUS`` for ``None``.

        Raises UNAUTHORIZED for credentials that are wrong, malformed or of an unknown scheme: wrong
        credentials are never anonymous.
        """
        ...

    def issue_token(self, principal: Principal) -> Token:
        """Return a token that ``authenticate`` takes, as Bearer, for this principal."""
        ...


Policy = Callable[[Principal, Action, RepositoryName | None], bool]
"""Whether a principal may do this to that repository; ``None``: to the registry as a whole."""


def administrator_only(*, anonymous_pull: bool) -> Policy:
    """Return the policy before projects: all for administrators; for others pull, or nothing."""

    def allows(principal: Principal, action: Action, repository: RepositoryName | None) -> bool:
        if principal.is_admin:
            return True
        return anonymous_pull and action is Action.PULL and repository is not None

    return allows
