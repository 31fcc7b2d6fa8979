"""Events, and what those who pass them on need of a metadata store.

A store writes an event in the very transaction that does what it tells of: nothing is told that
did not happen, and nothing that happened is left out.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, get_args

import msgspec

Kind = Literal["push", "pull", "delete", "scan", "scan_fail", "quota", "member"]
KINDS: tuple[Kind, ...] = get_args(Kind)
LEVELS = (80, 95, 100)
"""Percent of a quota: reaching one of them is an event."""


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that happened in a project."""

    id: str
    """UUIDv4: the same however often it is told."""
    kind: Kind
    at: float
    """Unix seconds."""
    project_id: str
    project: str
    user_id: str = ""
    """Empty: the registry itself."""
    username: str = ""
    repository: str = ""
    """Empty for what is the whole project's: ``quota`` and ``member``."""
    tag: str = ""
    digest: str = ""
    media_type: str = ""
    size: int = 0
    details: Mapping[str, Any] = msgspec.field(default_factory=dict)
    """``quota``: percent, used, quota; ``member``: change, user_id, role; ``pull``: count;
    ``scan``: id, summary, scanner; ``scan_fail``: id, error."""

    def document(self) -> dict[str, Any]:
        """Return what is sent to webhooks and event streams; the contract names its fields."""
        return {
            "event": self.kind,
            "event_id": self.id,
            "timestamp": int(self.at),
            "actor": {"user_id": self.user_id, "username": self.username},
            "project": self.project,
            "repository": self.repository,
            "tag": self.tag,
            "digest": self.digest,
            "media_type": self.media_type,
            "size": self.size,
            **({self.kind: self.details} if self.details else {}),
        }


class Numbered(NamedTuple):
    """An event and its place among all."""

    number: int
    """Greater than those of all events that were committed before it; from 1."""
    event: Event


class EventStore(Protocol):
    """The events that were committed and are still kept."""

    def last_number(self) -> int:
        """Return the number of the last event ever committed; 0 before the first."""
        ...

    def events(self, *, after: int, limit: int) -> Sequence[Numbered]:
        """Return at most ``limit`` events with numbers greater than ``after``, ascending."""
        ...
