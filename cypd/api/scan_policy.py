"""Which pulls a project refuses: ``/api/v1/projects/{id}/scan-policy``."""

import time
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from cypd.access import Scope
from cypd.api.people import moment
from cypd.api.routes import PREFIX, Call, Input, Route, in_projects
from cypd.projects import scan_policy as rules
from cypd.projects.projects import Projects
from cypd.projects.scan_policy import MAX_EXCEPTIONS, MAX_REASON
from cypd.refusals import Code

_Id = Annotated[str, Meta(min_length=1, max_length=128)]
_Reason = Annotated[str, Meta(min_length=1, max_length=MAX_REASON)]
_Moment = Annotated[datetime, Meta(tz=True)]


class ScanException(Input, frozen=True):
    """A vulnerability that keeps nobody from pulling, for a while."""

    vulnerability: _Id
    """Its id, as findings have it."""
    reason: _Reason
    expires_at: _Moment
    """It counts again from then on."""


class ScanPolicy(Input, frozen=True):
    """Which pulls are refused, to everybody."""

    block_at: rules.Threshold | None
    """Of images with a vulnerability of this severity or a worse one; null: none for that."""
    block_unscanned: bool = False
    """Of images that were never scanned."""
    exceptions: Annotated[list[ScanException], Meta(max_length=MAX_EXCEPTIONS)] = msgspec.field(
        default_factory=list
    )


_HIDDEN = (Code.PROJECT_NOT_FOUND, Code.PERMISSION_MISSING)


class ScanPolicyHandlers:
    """The handlers."""

    def __init__(self, projects: Projects) -> None:
        self._projects = projects

    def routes(self) -> list[Route]:
        """Return what the API serves of it."""
        one = f"{PREFIX}/projects/{{id}}/scan-policy"
        return [
            Route(
                "GET", one, self.get, in_projects(Scope.READ),
                answer=ScanPolicy, refusals=_HIDDEN,
                tag="projects", summary="Show which pulls are refused for what scans found",
            ),
            Route(
                "PUT", one, self.set_scan_policy, in_projects(Scope.ADMIN),
                body=ScanPolicy, answer=ScanPolicy, refusals=_HIDDEN,
                tag="projects", summary="Refuse pulls of vulnerable images",
            ),
        ]  # fmt: skip

    async def get(self, call: Call) -> ScanPolicy:
        """Show the policy."""
        return _answer(self._projects.get(call.principal, call.path["id"]).project.scan_policy)

    async def set_scan_policy(self, call: Call, body: ScanPolicy) -> ScanPolicy:
        """Replace the policy."""
        policy = rules.ScanPolicy(
            block_at=body.block_at,
            block_unscanned=body.block_unscanned,
            exceptions=tuple(
                rules.ScanException(it.vulnerability, it.reason, it.expires_at.timestamp())
                for it in body.exceptions
            ),
        )
        project = await self._projects.set_scan_policy(
            call.principal, call.path["id"], policy, at=time.time()
        )
        return _answer(project.scan_policy)


def _answer(found: rules.ScanPolicy) -> ScanPolicy:
    return ScanPolicy(
        block_at=found.block_at,
        block_unscanned=found.block_unscanned,
        exceptions=[
            ScanException(
                vulnerability=it.vulnerability,
                reason=it.reason,
                expires_at=moment(it.expires_at),
            )
            for it in found.exceptions
        ],
    )
