"""Entries of the audit log, and what it needs of a metadata store."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from cypd.access import Act

SUCCESS = 20000
"""The outcome of what was done."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One act."""

    at: float
    """Unix seconds."""
    action: str
    """``<noun>.<verb>``."""
    outcome: int
    """The API's code: 20000, if it was done."""
    user_id: str = ""
    username: str = ""
    address: str = ""
    trace_id: str = ""
    project_id: str = ""
    """Empty for what concerns no project."""
    target: Mapping[str, str] = msgspec.field(default_factory=dict)
    """What it was done to: names and ids, never a secret."""


class Found(NamedTuple):
    """A page of entries, the newest first, and how many there are."""

    entries: Sequence[Entry]
    total: int


class Record(Protocol):
    """Adds an entry to the audit log; never raises for what keeps it from it."""

    async def __call__(
        self,
        act: Act,
        action: str,
        outcome: int,
        *,
        target: Mapping[str, str],
        project: str = "",
        project_id: str = "",
    ) -> None:
        """Add an entry; ``project``: a project's name, for those who do not know its id."""
        ...


class AuditStore(Protocol):
    """An append-only log, limited in age."""

    async def append_audit(self, entry: Entry) -> None:
        """Add an entry, durably."""
        ...

    def audit_some(
        self, project_id: str, *, before: int | None, limit: int
    ) -> Sequence[tuple[int, Entry]]:
        """Return at most ``limit`` entries with numbers below ``before``, the newest first.

        Of one project, or of all with ``""``.
        """
        ...

    async def trim_audit(self, *, before: float, keep: int) -> None:
        """Forget entries older than ``before`` (unix seconds), and all but the last ``keep``."""
        ...


Wanted = Callable[[Entry], bool]
"""Whether somebody who looks is interested in an entry."""
