"""The rules of projects over the model, and the people who use them."""

from dataclasses import dataclass

import pytest

from cypd.access import Principal
from cypd.metadata.memory import MemoryMetadata
from cypd.projects.access import ProjectAccess
from cypd.projects.members import Members
from cypd.projects.projects import Details, Projects
from cypd.refusals import Code, Refusal

OWNER, OTHER = Principal("owner-id", "owner"), Principal("other-id", "other")
ADMIN = Principal("admin-id", "admin", is_admin=True)
GIB = 1 << 30


class _Users:
    """Users called as their ids without the last part."""

    ids = ("owner-id", "other-id", "admin-id", "third-id")

    def name_of(self, user_id: str) -> str | None:
        return user_id.removesuffix("-id") if user_id in self.ids else None

    def id_of(self, name: str) -> str | None:
        return f"{name}-id" if f"{name}-id" in self.ids else None


@dataclass
class House:
    """All rules, and the store below them."""

    metadata: MemoryMetadata
    access: ProjectAccess
    projects: Projects
    members: Members

    async def create(self, name: str = "library", *, is_public: bool = False) -> Details:
        """Create a project of ``OWNER``."""
        return await self.projects.create(OWNER, name=name, is_public=is_public)


@pytest.fixture
def house() -> House:
    """An empty house, where a project gets 1 GiB, and its owner may give it 2."""
    metadata = MemoryMetadata()
    store = metadata.projects
    access = ProjectAccess(store, anonymous="public", auto_create=True, default_quota=GIB)
    projects = Projects(store, access, default_quota=GIB, max_quota=2 * GIB)
    return House(metadata, access, projects, Members(store, access, _Users()))


async def refused(code: Code, call: object, field: str = "") -> None:
    """Assert that a call is refused with that code, and for that field."""
    with pytest.raises(Refusal) as refusal:
        await call  # type: ignore[misc]
    assert code is refusal.value.code
    assert ([field] if field else []) == [error.field for error in refusal.value.errors]
