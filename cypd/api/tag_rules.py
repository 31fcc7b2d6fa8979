"""Immutable tags and retention of a project: ``/api/v1/projects/{id}/tag-rules``."""

import time
from typing import Annotated

import msgspec
from msgspec import Meta

from cypd.access import Scope
from cypd.api.people import moment
from cypd.api.routes import PREFIX, Answer, Call, Input, Route, Time, in_projects
from cypd.oci.names import RepositoryName
from cypd.projects import tag_rules as rules
from cypd.projects.ports import Changes
from cypd.projects.projects import Projects
from cypd.projects.tag_rules import MAX_PATTERN, MAX_RULES
from cypd.refusals import Code
from cypd.retention.plan import Doomed
from cypd.retention.retention import Retention

_Pattern = Annotated[str, Meta(min_length=1, max_length=MAX_PATTERN)]
_Count = Annotated[int, Meta(ge=1, le=1_000_000)]
_Days = Annotated[int, Meta(ge=1, le=36_500)]


class RetentionRule(Input, frozen=True):
    """Of the tags that it matches: to keep one, any of the bounds is enough, and one is needed."""

    repositories: _Pattern = "*"
    """For a repository's name without the project's. ``*`` is any run of characters, ``?`` one."""
    tags: _Pattern = "*"
    keep_last: _Count | None = None
    """How many of a repository's tags, those that were pushed last."""
    keep_days: _Days | None = None
    """Since the push."""
    keep_pulled_days: _Days | None = None
    """Since the last pull; of what was pushed later, or never pulled, since the push."""


class TagRules(Input, frozen=True):
    """All rules of a project."""

    immutable: Annotated[list[_Pattern], Meta(max_length=MAX_RULES)]
    """Tags that are neither pointed elsewhere nor deleted once they are there."""
    retention: Annotated[list[RetentionRule], Meta(max_length=MAX_RULES)]
    """The first that matches a tag decides about it; what none matches is kept."""


class DoomedTag(Answer, frozen=True):
    """A tag that would go."""

    repository: str
    tag: str
    digest: str
    pushed_at: Time
    last_pulled_at: Time | None
    reason: str


class Trial(Answer, frozen=True):
    """What would go."""

    tags: list[DoomedTag]
    """The first thousand."""
    total: int
    """How many would go."""
    kept: int
    """How many would stay."""


_HIDDEN = (Code.PROJECT_NOT_FOUND, Code.PERMISSION_MISSING)


class TagRulesHandlers:
    """The handlers."""

    def __init__(self, projects: Projects, retention: Retention) -> None:
        self._projects = projects
        self._retention = retention

    def routes(self) -> list[Route]:
        """Return what the API serves of it."""
        one = f"{PREFIX}/projects/{{id}}/tag-rules"
        return [
            Route(
                "GET", one, self.get, in_projects(Scope.READ),
                answer=TagRules, refusals=_HIDDEN,
                tag="projects", summary="Show which tags are immutable, and which are kept",
            ),
            Route(
                "PUT", one, self.set_tag_rules, in_projects(Scope.WRITE),
                body=TagRules, answer=TagRules, refusals=_HIDDEN,
                tag="projects", summary="Replace the rules of a project's tags",
            ),
            Route(
                "POST", f"{one}/dry-run", self.dry_run, in_projects(Scope.WRITE),
                body=TagRules, answer=Trial, refusals=_HIDDEN, is_routine=True,
                tag="projects", summary="Tell which tags would go by such rules",
            ),
        ]  # fmt: skip

    async def get(self, call: Call) -> TagRules:
        """Show the rules."""
        return _answer(self._projects.get(call.principal, call.path["id"]).project.tag_rules)

    async def set_tag_rules(self, call: Call, body: TagRules) -> TagRules:
        """Replace the rules."""
        changes = Changes(updated_at=time.time(), tag_rules=_rules(body))
        details = await self._projects.update(call.principal, call.path["id"], changes)
        return _answer(details.project.tag_rules)

    async def dry_run(self, call: Call, body: TagRules) -> Trial:
        """Tell what would go."""
        trial = await self._retention.dry_run(call.principal, call.path["id"], _rules(body))
        tags = [_doomed(repository, doomed) for repository, doomed in trial.doomed]
        return Trial(tags=tags, total=trial.total, kept=trial.kept)


def _rules(body: TagRules) -> rules.TagRules:
    retention = [rules.RetentionRule(**msgspec.structs.asdict(it)) for it in body.retention]
    return rules.TagRules(tuple(body.immutable), tuple(retention))


def _answer(found: rules.TagRules) -> TagRules:
    retention = [RetentionRule(**msgspec.structs.asdict(it)) for it in found.retention]
    return TagRules(immutable=list(found.immutable), retention=retention)


def _doomed(repository: RepositoryName, doomed: Doomed) -> DoomedTag:
    tag = doomed.tag
    return DoomedTag(
        repository=str(repository),
        tag=str(tag.name),
        digest=str(tag.digest),
        pushed_at=moment(tag.pushed_at),
        last_pulled_at=None if tag.last_pulled_at is None else moment(tag.last_pulled_at),
        reason=doomed.reason,
    )
