"""Lists in pages: what is asked for, and how it is answered.

class ProjectsQuery(Page, frozen=True):
    sort: Literal["name", "-name", "created_at", "-created_at"] = "name"

class ProjectList(Listing, frozen=True):
    projects: list[ProjectAnswer]

return ProjectList(projects=found, **query.place(total))
"""

from typing import Annotated, Any

from msgspec import Meta

from cypd.api.routes import Answer, Input

_LARGEST = 100


class Page(Input, frozen=True):
    """Which page of a list. A route that sorts adds ``sort``, a Literal of what it can."""

    page: Annotated[int, Meta(ge=1, le=10**9 // _LARGEST)] = 1
    page_size: Annotated[int, Meta(ge=1, le=_LARGEST)] = 20
    keyword: Annotated[str, Meta(max_length=128)] = ""

    @property
    def offset(self) -> int:
        """How many items come before this page."""
        return (self.page - 1) * self.page_size

    def place(self, total: int) -> dict[str, Any]:
        """Return the fields of ``Listing`` for a list of ``total`` items."""
        return {"total": total, "page": self.page, "page_size": self.page_size}


class Listing(Answer, frozen=True):
    """The answer to a ``Page``; a subclass adds the items under their plural."""

    total: int
    """Items on all pages."""
    page: int
    page_size: int
