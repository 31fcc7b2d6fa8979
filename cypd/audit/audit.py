"""Keeping the audit log, and showing it to those who may see it."""

import asyncio
import logging
from collections.abc import Mapping

from cypd.access import Act, Action, Principal
from cypd.audit.ports import AuditStore, Entry, Found, Wanted
from cypd.logs import printable
from cypd.projects.access import ProjectAccess
from cypd.projects.ports import ProjectStore
from cypd.refusals import Code, Refusal
from cypd.registry.ports import Unavailable

log = logging.getLogger(__name__)

_STEP = 500
_MAX_TARGET = 255


class Audit:
    """The audit log."""

    def __init__(self, store: AuditStore, projects: ProjectStore, access: ProjectAccess) -> None:
        self._store = store
        self._projects = projects
        self._access = access

    async def record(
        self,
        act: Act,
        action: str,
        outcome: int,
        *,
        target: Mapping[str, str],
        project: str = "",
        project_id: str = "",
    ) -> None:
        """Add an entry: this is the ``Record``.

        What can't be written is logged: it has happened, whether or not there is room to say so.
        """
        if project and (standing := self._projects.standing(project, "")):
            project_id = standing.project.id
        entry = Entry(
            at=act.at,
            action=action,
            outcome=outcome,
            user_id=act.user_id,
            username=act.name,
            address=act.address,
            trace_id=act.trace_id,
            project_id=project_id,
            target={name: printable(str(text), _MAX_TARGET) for name, text in target.items()},
        )
        try:
            await self._store.append_audit(entry)
        except Unavailable as error:
            log.critical("the audit log can't be written (%s): %s", error, entry)

    async def page(
        self, principal: Principal, project_id: str, wanted: Wanted, *, offset: int, limit: int
    ) -> Found:
        """Return entries: all to administrators, those of a project to its owners.

        Raises PERMISSION_MISSING, PROJECT_NOT_FOUND.
        """
        if project_id:
            self._access.require(principal, Action.MEMBERS, project_id)
        elif not principal.is_admin or principal.projects is not None:
            raise Refusal(Code.PERMISSION_MISSING)
        page: list[Entry] = []
        total = 0
        before: int | None = None
        while some := self._store.audit_some(project_id, before=before, limit=_STEP):
            for _, entry in some:
                if wanted(entry):
                    if offset <= total < offset + limit:
                        page.append(entry)
                    total += 1
            before = some[-1][0]
            await asyncio.sleep(0)  # others have their turn, however long the log is
        return Found(page, total)
