"""The audit log: ``/api/v1/audit-logs``."""

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from cypd.access import Scope
from cypd.api.paging import Listing, Page
from cypd.api.people import moment
from cypd.api.routes import PREFIX, Answer, Call, Route, Time, in_projects
from cypd.audit import ports
from cypd.audit.audit import Audit
from cypd.refusals import Code

_Text = Annotated[str, Meta(max_length=255)]
_Moment = Annotated[datetime, Meta(tz=True)]


class AuditQuery(Page, frozen=True):
    """Which entries; ``keyword`` is looked for in what was acted on."""

    project_id: _Text = ""
    """Owners have to name their project."""
    username: _Text = ""
    action: _Text = ""
    """A whole action (``member.add``), or a noun (``member``)."""
    address: _Text = ""
    since: _Moment | None = None
    until: _Moment | None = None


class Entry(Answer, frozen=True):
    """One act."""

    at: Time
    action: str
    outcome: int
    """The code it was answered with: 20000, if it was done."""
    user_id: str
    username: str
    """Empty for who was nobody; of a login the name that was tried is in ``target``."""
    address: str
    trace_id: str
    project_id: str
    target: dict[str, str]


class EntryList(Listing, frozen=True):
    """A page of entries, the newest first."""

    entries: list[Entry]


class AuditHandlers:
    """The handlers."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit

    def routes(self) -> list[Route]:
        """Return what the API serves of it."""
        return [
            Route(
                "GET", f"{PREFIX}/audit-logs", self.list, in_projects(Scope.ADMIN),
                query=AuditQuery, answer=EntryList,
                refusals=(Code.PROJECT_NOT_FOUND, Code.PERMISSION_MISSING),
                tag="audit", summary="Show who did what",
            ),
        ]  # fmt: skip

    async def list(self, call: Call, query: AuditQuery) -> EntryList:
        """Show who did what."""
        found = await self._audit.page(
            call.principal,
            query.project_id,
            _wanted(query),
            offset=query.offset,
            limit=query.page_size,
        )
        entries = [_entry(it) for it in found.entries]
        return EntryList(entries=entries, **query.place(found.total))


def _wanted(query: AuditQuery) -> ports.Wanted:
    since = query.since.timestamp() if query.since else 0.0
    until = query.until.timestamp() if query.until else float("inf")
    keyword = query.keyword.casefold()

    def wanted(entry: ports.Entry) -> bool:
        return (
            since <= entry.at < until
            and query.username in {"", entry.username}
            and query.address in {"", entry.address}
            and query.action in {"", entry.action, entry.action.partition(".")[0]}
            and (not keyword or any(keyword in it.casefold() for it in entry.target.values()))
        )

    return wanted


def _entry(entry: ports.Entry) -> Entry:
    return Entry(
        at=moment(entry.at),
        action=entry.action,
        outcome=entry.outcome,
        user_id=entry.user_id,
        username=entry.username,
        address=entry.address,
        trace_id=entry.trace_id,
        project_id=entry.project_id,
        target=dict(entry.target),
    )
