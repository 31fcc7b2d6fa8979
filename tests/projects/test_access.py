"""Who may do what: the table of roles, and what credentials take away from it."""

import asyncio
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cypd.access import ANONYMOUS, Action, Grant, Principal, Scope
from cypd.metadata.memory import MemoryMetadata
from cypd.oci.errors import Code, OCIError
from cypd.projects.access import Anonymous, ProjectAccess
from cypd.projects.ports import Member, Role
from tests.samples import ACT, name, project

PRIVATE, PUBLIC = project("private", owner="owner"), project("public", owner="owner")
APP, OPEN, NOWHERE = name("private/app"), name("public/app"), name("nowhere/app")
IN_PROJECT: list[Action] = [action for action in Action if action is not Action.CATALOG]
# The contract's table, word for word: what each role may do beside reading and pulling.
TABLE: dict[Role | None, set[Action]] = {
    None: set(),
    Role.GUEST: {Action.PULL},
    Role.DEVELOPER: {Action.PULL, Action.PUSH, Action.SCAN},
    Role.MAINTAINER: {*IN_PROJECT} - {Action.MEMBERS},
    Role.OWNER: set(IN_PROJECT),
}
NEEDS = {
    Action.PULL: Scope.READ,
    Action.PUSH: Scope.WRITE,
    Action.SCAN: Scope.WRITE,
    Action.SETTINGS: Scope.WRITE,
    Action.DELETE: Scope.DELETE,
    Action.MEMBERS: Scope.ADMIN,
    Action.CATALOG: Scope.READ,
}
ADMIN, STRANGER = Principal("admin", "admin", is_admin=True), Principal("stranger", "stranger")
principals = st.builds(
    Principal,
    st.sampled_from(["", "stranger", "guest", "developer", "maintainer", "owner"]),
    is_admin=st.booleans(),
    scope=st.sampled_from(Scope),
    projects=st.none() | st.frozensets(st.sampled_from([PRIVATE.id, PUBLIC.id]), max_size=2),
    grants=st.none()
    | st.lists(
        st.builds(
            Grant,
            st.sampled_from([APP, OPEN, NOWHERE, "*"]),
            st.frozensets(st.sampled_from(["pull", "push", "delete", "*"])),
        ),
        max_size=2,
    ).map(tuple),
    is_expired=st.booleans(),
)


def person(role: Role | None) -> Principal:
    """Return the user who has that role in both projects."""
    return Principal(role.word, role.word) if role else STRANGER


@pytest.fixture
def access() -> ProjectAccess:
    """Two projects, each with a user of every role."""
    return build()


def build(anonymous: Anonymous = "public", *, auto_create: bool = True) -> ProjectAccess:
    """Return the policy over two projects."""

    async def fill() -> None:
        await store.create_project(PRIVATE)
        await store.create_project(msgspec.structs.replace(PUBLIC, is_public=True))
        for role in (Role.GUEST, Role.DEVELOPER, Role.MAINTAINER):
            for each in (PRIVATE, PUBLIC):
                await store.add_member(each.id, Member(role.word, role, 2.0), act=ACT)

    store = MemoryMetadata().projects
    asyncio.run(fill())
    return ProjectAccess(store, anonymous=anonymous, auto_create=auto_create, default_quota=1000)


@pytest.mark.parametrize("role", TABLE)
@pytest.mark.parametrize("action", IN_PROJECT)
def test_roles_are_the_table(access: ProjectAccess, role: Role | None, action: Action) -> None:
    """Each role may do what its column says, in a private project and in a public one."""
    expected = action in TABLE[role]

    assert expected == access.allows(person(role), action, APP)
    assert expected == access.allows_in(person(role), action, PRIVATE)
    is_pull = action is Action.PULL
    assert (expected or is_pull) == access.allows(person(role), action, OPEN)


@pytest.mark.parametrize("action", Action)
def test_an_administrator_may_do_everything(access: ProjectAccess, action: Action) -> None:
    """In every project, without a role; in one that does not exist they hear that."""
    assert access.allows(ADMIN, action, None if action is Action.CATALOG else APP)
    assert access.allows(ADMIN, action, NOWHERE)
    assert access.allows_in(ADMIN, action, PRIVATE)


@pytest.mark.parametrize(
    ("anonymous", "public", "private", "catalog"),
    [("none", False, False, False), ("public", True, False, True), ("pull", True, True, True)],
)
def test_nobody_may_pull_what_the_configuration_says(
    anonymous: Anonymous, public: bool, private: bool, catalog: bool
) -> None:
    """Without signing in: nothing, public projects, or all; pulling alone, whatever it is."""
    access = build(anonymous)

    assert public == access.allows(ANONYMOUS, Action.PULL, OPEN)
    assert private == access.allows(ANONYMOUS, Action.PULL, APP)
    assert private == access.allows(ANONYMOUS, Action.PULL, NOWHERE)
    assert private == access.allows(STRANGER, Action.PULL, APP)
    assert access.allows(STRANGER, Action.PULL, OPEN)
    assert catalog == access.allows(ANONYMOUS, Action.CATALOG, None)
    assert access.allows(STRANGER, Action.CATALOG, None)
    for action in set(IN_PROJECT) - {Action.PULL}:
        for repository in (APP, OPEN, NOWHERE, None):
            assert not access.allows(ANONYMOUS, action, repository)


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("scope", Scope)
@pytest.mark.parametrize("user", [Principal("owner", "owner"), ADMIN])
def test_a_scope_bounds_its_credential(
    access: ProjectAccess, user: Principal, action: Action, scope: Scope
) -> None:
    """Pulling needs read, pushing write, deleting delete, members admin; administrators too."""
    repository = None if action is Action.CATALOG else APP

    assert (scope >= NEEDS[action]) == access.allows(user._replace(scope=scope), action, repository)


@pytest.mark.parametrize("user", [Principal("owner", "owner"), ADMIN])
def test_a_token_for_projects_opens_no_others(access: ProjectAccess, user: Principal) -> None:
    """Not even public ones, and it creates none."""
    bound = user._replace(projects=frozenset([PRIVATE.id]))

    assert access.allows(bound, Action.PUSH, APP)
    assert not access.allows(bound, Action.PULL, OPEN)
    assert not access.allows_in(bound, Action.SETTINGS, PUBLIC)
    assert not access.allows(bound, Action.PUSH, NOWHERE)


def test_a_granted_token_does_what_it_was_issued_for(access: ProjectAccess) -> None:
    """On that repository, those actions, while its user still may; and nothing in the API."""
    grants = (Grant(APP, frozenset(["pull", "push"])), Grant("*", frozenset("*")))
    owner = Principal("owner", "owner", grants=grants)

    assert access.allows(owner, Action.PULL, APP)
    assert access.allows(owner, Action.PUSH, APP)
    assert not access.allows(owner, Action.DELETE, APP)
    assert not access.allows(owner, Action.PULL, OPEN)
    assert access.allows(owner, Action.CATALOG, None)
    assert not access.allows(owner._replace(grants=grants[:1]), Action.CATALOG, None)
    assert not access.allows(owner._replace(user_id="guest"), Action.PUSH, APP)
    for action in IN_PROJECT:
        assert not access.allows_in(owner, action, PRIVATE)


@given(principals, st.sampled_from(Action), st.sampled_from([APP, OPEN, NOWHERE, None]))
def test_a_credential_only_takes_away(
    principal: Principal, action: Action, repository: object
) -> None:
    """Whatever one bounds, it allows nothing that its user may not do with the password."""
    access = build()
    unbounded = Principal(principal.user_id, principal.name, principal.is_admin)
    if access.allows(principal, action, repository):  # type: ignore[arg-type]
        assert access.allows(unbounded, action, repository)  # type: ignore[arg-type]


async def create(access: ProjectAccess, *pushers: Principal, repository: str = NOWHERE) -> None:
    """Push as several users at once, up to the point where bytes would come."""
    await asyncio.gather(*(access.admit(it, name(repository)) for it in pushers))


async def test_a_push_creates_its_project() -> None:
    """Private, of the default quota, the first pusher its owner; a second push changes nothing."""
    store = MemoryMetadata().projects
    access = ProjectAccess(store, anonymous="public", auto_create=True, default_quota=1000)
    assert access.allows(STRANGER, Action.PUSH, NOWHERE)
    assert not access.allows(STRANGER, Action.PULL, NOWHERE)
    assert not access.allows(STRANGER, Action.DELETE, NOWHERE)
    await create(access, STRANGER, ADMIN)
    [made] = store.projects(after="", limit=9)

    assert ("nowhere", "stranger", 1000, False) == (
        made.name, made.owner_id, made.storage_quota, made.is_public,
    )  # fmt: skip
    assert access.allows(STRANGER, Action.MEMBERS, NOWHERE)
    assert not access.allows(Principal("other"), Action.PUSH, NOWHERE)


async def test_a_push_that_comes_second_is_asked_again() -> None:
    """Allowed while there was no project, it is no way into somebody else's new one."""
    store = MemoryMetadata().projects
    access = ProjectAccess(store, anonymous="public", auto_create=True, default_quota=1000)
    other = Principal("other")
    missing = store.standing
    await access.admit(STRANGER, NOWHERE)
    seen: list[Callable[..., object]] = [lambda *_: None]
    store.standing = lambda *who: seen.pop()(*who) if seen else missing(*who)  # type: ignore[method-assign,assignment]
    with pytest.raises(OCIError) as refusal:
        await access.admit(other, NOWHERE)

    assert refusal.value.code is Code.DENIED


async def test_pushes_may_have_to_find_a_project() -> None:
    """With projects.auto_create = false a user may not push, an administrator hears why."""
    store = MemoryMetadata().projects
    access = ProjectAccess(store, anonymous="public", auto_create=False, default_quota=1000)
    assert not access.allows(STRANGER, Action.PUSH, NOWHERE)
    with pytest.raises(OCIError) as refusal:
        await create(access, ADMIN)

    assert refusal.value.code is Code.NAME_UNKNOWN
    assert not store.projects(after="", limit=9)


@pytest.mark.parametrize("repository", ["a/app", "a", "x" * 64 + "/app"])
async def test_a_push_does_not_create_what_has_no_name(repository: str) -> None:
    """A project's name has 2 to 63 characters; the refusal says so."""
    store = MemoryMetadata().projects
    access = ProjectAccess(store, anonymous="public", auto_create=True, default_quota=1000)
    with pytest.raises(OCIError, match="2 to 63") as refusal:
        await create(access, STRANGER, repository=repository)

    assert refusal.value.code is Code.NAME_INVALID


@given(principals, st.sampled_from(["none", "public", "pull"]))
def test_a_list_has_what_may_be_read(principal: Principal, anonymous: Anonymous) -> None:
    """All readable projects are those that may be read one by one, by whatever credential."""
    access = build(anonymous)
    both = (PRIVATE, msgspec.structs.replace(PUBLIC, is_public=True))
    readable = [it.id for it in both if access.allows_in(principal, Action.PULL, it)]
    listed = asyncio.run(access.all_readable(principal))
    found = [access.readable(principal, it) for it in ("private", "public", "nowhere", "")]

    assert readable == ([PRIVATE.id, PUBLIC.id] if listed is None else listed)
    assert [*(it.id if it.id in readable else None for it in both), None, None] == found


def test_a_list_is_in_the_order_of_repositories() -> None:
    """``lib-x/app`` comes before ``lib/app``, however many projects there are."""

    async def look() -> None:
        metadata = MemoryMetadata()
        names = ["lib", "lib-x", *(f"p{i:03}" for i in range(300))]
        for it in names:
            await metadata.projects.create_project(project(it, owner="ada"))
        access = ProjectAccess(
            metadata.projects, anonymous="none", auto_create=True, default_quota=0
        )
        ids = await access.all_readable(Principal("ada", "ada"))

        assert ids == [project(it).id for it in ("lib-x", "lib", *names[2:])]
        assert await access.all_readable(ADMIN) is None

    asyncio.run(look())
