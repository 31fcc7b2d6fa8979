"""The catalog: complete for each reader, and silent about the rest."""

from hypothesis import given
from hypothesis import strategies as st

from cypd.access import Action, Grant, Principal
from cypd.metadata.memory import MemoryMetadata
from cypd.oci.digest import Digest
from cypd.oci.names import RepositoryName
from cypd.registry.catalog import Catalog
from tests.samples import name, project

READER = Principal("reader")
DIGEST = Digest.of(b"x")
PROJECTS = ["lib", "lib-x", "lib.y", "lib0", "zz"]
repositories = st.sets(
    st.builds(lambda project, rest: name(project + rest), st.sampled_from(PROJECTS),
              st.sampled_from(["", "/a", "/a/b", "/b-c", "/zzz"])), min_size=1,
)  # fmt: skip


@given(repositories, st.sets(st.sampled_from(PROJECTS)), st.integers(1, 5))
async def test_pages_hold_what_the_reader_may_pull(
    there: set[RepositoryName], readable: set[str], limit: int
) -> None:
    """Every readable repository once, in order, whatever the page's size, and no other."""

    def allows(principal: Principal, action: Action, repository: RepositoryName | None) -> bool:
        assert (principal, action) == (READER, Action.PULL)
        return repository is not None and repository.project in readable

    store = MemoryMetadata()
    for each in PROJECTS:
        await store.projects.create_project(project(each))
    for repository in there:
        await store.registry.link_blob(repository, DIGEST, 1, upload_id=None)
    catalog = Catalog(store.registry, allows)
    granted = READER._replace(grants=(Grant("*", frozenset("*")),))
    found: list[RepositoryName] = []
    while page := await catalog.page(granted, after=found[-1] if found else "", limit=limit):
        assert len(page) <= limit
        found += page

    assert found == sorted(it for it in there if it.project in readable)
