"""Events as they happen: ``/api/v1/events``, server-sent events (HTML Living Standard, 9.2)."""

from collections.abc import AsyncGenerator
from typing import Annotated, Protocol

import msgspec
from msgspec import Meta

from cypd.access import Action, Principal, Scope
from cypd.api.routes import PREFIX, Call, Input, Route, Stream, in_projects
from cypd.events.feed import Feed
from cypd.events.ports import Event
from cypd.projects.access import ProjectAccess
from cypd.projects.ports import ProjectStore
from cypd.refusals import Code, Refusal, invalid

_MOST = 500
_DIGITS = 18


class Authenticator(Protocol):
    """Tells who a request comes from."""

    async def authenticate(self, authorization: str | None, *, address: str = "") -> Principal:
        """Return who sent this header; raise ``Refusal`` once it is no credential any more."""
        ...


class EventsQuery(Input, frozen=True):
    """Which events."""

    project_id: Annotated[str, Meta(max_length=64)] = ""
    """Left away: those of all projects that one is a member of; administrators: of all."""


class EventHandlers:
    """The handler, and how many are listening to it."""

    def __init__(
        self,
        feed: Feed,
        projects: ProjectStore,
        access: ProjectAccess,
        authenticator: Authenticator,
    ) -> None:
        self._feed = feed
        self._projects = projects
        self._access = access
        self._authenticator = authenticator
        self._listening = 0

    def routes(self) -> list[Route]:
        """Return what the API serves of it."""
        return [
            Route(
                "GET", f"{PREFIX}/events", self.listen, in_projects(Scope.READ),
                query=EventsQuery, answer=Stream,
                refusals=(Code.PROJECT_NOT_FOUND, Code.TOO_MANY_REQUESTS),
                tag="events", summary="Listen to what happens; resumes after Last-Event-ID",
            ),
        ]  # fmt: skip

    async def listen(self, call: Call, query: EventsQuery) -> Stream:
        """Listen to what happens."""
        if query.project_id:
            self._access.require(call.principal, Action.PULL, query.project_id)
        if self._listening >= _MOST:
            raise Refusal(Code.TOO_MANY_REQUESTS, headers={"Retry-After": "5"})
        last = _number(call.last_event_id)
        return Stream("text/event-stream", self._pieces(call, query.project_id, last))

    async def _pieces(
        self, call: Call, project_id: str, last: int | None
    ) -> AsyncGenerator[bytes, None]:
        self._listening += 1
        try:
            after = self._feed.last_number() if last is None else last
            yield b": cypd\n\n"
            if after + 1 < self._feed.first_number():
                yield b"event: gap\ndata: {}\n\n"  # some of what was missed is kept no more
            principal = call.principal
            async for numbered in self._feed.follow(after):
                if numbered is None:
                    # What a connection was opened with may be over long before the connection is.
                    principal = await self._again(call)
                    yield b": still here\n\n"
                elif project_id in {"", numbered.event.project_id} and self._may_hear(
                    principal, numbered.event
                ):
                    data = msgspec.json.encode(numbered.event.document())
                    head = f"id: {numbered.number}\nevent: {numbered.event.kind}\ndata: "
                    yield head.encode() + data + b"\n\n"
        except Refusal:
            return  # the credential is over: whoever comes back with another one is let in
        finally:
            self._listening -= 1

    async def _again(self, call: Call) -> Principal:
        return await self._authenticator.authenticate(call.authorization, address=call.address)

    def _may_hear(self, principal: Principal, event: Event) -> bool:
        """Tell whether they may, at this moment: members leave, and projects become private."""
        project = self._projects.project(event.project_id)
        if project is None or not self._access.allows_in(principal, Action.PULL, project):
            return False
        return principal.is_admin or self._access.role(principal, project) is not None


def _number(text: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
        raise invalid("Last-Event-ID", "is no id of an event")
    return int(text)
