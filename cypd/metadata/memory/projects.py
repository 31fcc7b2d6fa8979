"""Projects in dictionaries."""

from collections.abc import Sequence
from typing import Any

import msgspec

from cypd.access import Act
from cypd.metadata.memory.state import Repository, State
from cypd.projects.ports import Changes, Holding, Member, Project, Role, Standing, Totals, Usage
from cypd.refusals import Code, Refusal


class MemoryProjects:
    """The contract of ``ProjectStore``."""

    def __init__(self, state: State) -> None:
        self._state = state

    def project(self, project_id: str) -> Project | None:
        return self._state.projects.get(project_id)

    def standing(self, name: str, user_id: str) -> Standing | None:
        project = self._state.project(name)
        if project is None:
            return None
        member = self.member(project.id, user_id)
        return Standing(project, member.role if member else None)

    def projects(self, *, after: str, limit: int) -> Sequence[Project]:
        found = [it for it in self._state.projects.values() if it.name > after]
        return sorted(found, key=lambda it: it.name)[:limit]

    def member(self, project_id: str, user_id: str) -> Member | None:
        return self._state.members.get(project_id, {}).get(user_id)

    def members(self, project_id: str) -> Sequence[Member]:
        return sorted(self._state.members.get(project_id, {}).values(), key=lambda it: it.user_id)

    def usage(self, project_id: str) -> Usage:
        project = self.project(project_id)
        return self._state.usage(project) if project else Usage(0, 0, 0, 0)

    def totals(self) -> Totals:
        return self._state.totals()

    def holdings(self, *, after: str, limit: int) -> Sequence[Holding]:
        ids = sorted(it for it in self._state.projects if it > after)[:limit]
        found = [(self._state.projects[it], self.usage(it)) for it in ids]
        return [
            Holding(it.id, it.name, it.storage_quota, use.used, use.reserved) for it, use in found
        ]

    async def create_project(self, project: Project) -> None:
        self._require_free(project.name)
        self._state.projects[project.id] = project
        owner = Member(project.owner_id, Role.OWNER, project.created_at)
        self._state.members[project.id] = {owner.user_id: owner}

    async def change_project(self, project_id: str, changes: Changes) -> Project:
        before = self._require(project_id)
        project = changes.applied_to(before)
        if project.name != before.name:
            self._require_free(project.name)
            if self._things(before.name):
                raise Refusal(Code.NOT_IN_THIS_STATE)
            self._forget_names(before.name)
        self._state.projects[project_id] = project
        return project

    async def delete_project(self, project_id: str, *, force: bool, limit: int) -> bool:
        project = self._require(project_id)
        if not force and self._state.usage(project).image_count:
            raise Refusal(Code.NOT_IN_THIS_STATE)
        things = self._things(project.name)
        for home, key in things[:limit]:
            del home[key]
        for repository in self._repositories(project.name):
            tags = repository.tags.items()
            repository.tags = {tag: it for tag, it in tags if it in repository.manifests}
        if len(things) >= limit:
            return False
        self._forget_names(project.name)
        del self._state.projects[project_id], self._state.members[project_id]
        return True

    async def add_member(self, project_id: str, member: Member, *, act: Act) -> None:
        self._require(project_id)
        if self.member(project_id, member.user_id):
            raise Refusal(Code.NOT_IN_THIS_STATE)
        self._state.members[project_id][member.user_id] = member

    async def set_role(self, project_id: str, user_id: str, role: Role, *, act: Act) -> Member:
        member = self._require_member(project_id, user_id)
        if role is not Role.OWNER:
            self._replace_owner(project_id, user_id)
        changed = msgspec.structs.replace(member, role=role)
        self._state.members[project_id][user_id] = changed
        return changed

    async def remove_member(self, project_id: str, user_id: str, *, act: Act) -> None:
        self._require_member(project_id, user_id)
        self._replace_owner(project_id, user_id)
        del self._state.members[project_id][user_id]

    def _require(self, project_id: str) -> Project:
        project = self.project(project_id)
        if project is None:
            raise Refusal(Code.PROJECT_NOT_FOUND)
        return project

    def _require_free(self, name: str) -> None:
        if self._state.project(name):
            raise Refusal(Code.PROJECT_EXISTS)

    def _require_member(self, project_id: str, user_id: str) -> Member:
        self._require(project_id)
        member = self.member(project_id, user_id)
        if member is None:
            raise Refusal(Code.MEMBER_NOT_FOUND)
        return member

    def _replace_owner(self, project_id: str, leaving: str) -> None:
        owners = [it for it in self.members(project_id) if it.role is Role.OWNER]
        others = [it for it in owners if it.user_id != leaving]
        if owners and not others:
            raise Refusal(Code.NOT_IN_THIS_STATE)
        project = self._require(project_id)
        if project.owner_id == leaving:
            first = min(others, key=lambda it: (it.added_at, it.user_id))
            changed = msgspec.structs.replace(project, owner_id=first.user_id)
            self._state.projects[project_id] = changed

    def _repositories(self, name: str) -> list[Repository]:
        return [it for key, it in self._state.repositories.items() if key.project == name]

    def _things(self, name: str) -> list[tuple[dict[Any, Any], Any]]:
        """Return all that a project holds, as (where it is, its key there)."""
        uploads = self._state.uploads
        found: list[tuple[dict[Any, Any], Any]] = [
            (uploads, key) for key, it in uploads.items() if it.repository.project == name
        ]
        repositories = self._repositories(name)
        found += [(it.manifests, key) for it in repositories for key in it.manifests]
        return found + [(it.blobs, key) for it in repositories for key in it.blobs]

    def _forget_names(self, name: str) -> None:
        for key in [key for key in self._state.repositories if key.project == name]:
            del self._state.repositories[key]
