"""LMDB against the model: whatever is done to both, they answer the same."""

import asyncio
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cypd.access import Act
from cypd.metadata.lmdb import LmdbMetadata
from cypd.metadata.memory import MemoryMetadata
from cypd.oci.digest import Digest
from cypd.oci.errors import OCIError
from cypd.oci.names import Tag
from cypd.projects.ports import UNLIMITED, Changes, Member, Role
from cypd.projects.tag_rules import TagRules
from cypd.refusals import Refusal
from cypd.registry.inventory_ports import Pulls, Window
from cypd.registry.ports import Upload
from tests.samples import ACT, EMPTY, image, index, name, parsed, project

pytestmark = pytest.mark.timeout(300)

REPOSITORIES = [name("a"), name("a/b"), name("b"), name("a-c/d")]
repositories = st.sampled_from(REPOSITORIES)
tags = st.sampled_from([Tag("x"), Tag("y"), Tag("Z")])
BLOBS = [Digest.of(EMPTY), Digest.of(b"layer"), Digest.of(b"layer", "sha512")]
IMAGES = [image(), image(b"layer"), image(b"layer", subject=Digest.of(image()), note="s")]
DOCUMENTS = [*IMAGES, index(IMAGES[0], IMAGES[1]), index()]
MANIFESTS = [parsed(content, "") for content in DOCUMENTS]
# The same bytes may be a blob here and a manifest there: a digest has one size.
SIZES = dict(zip(BLOBS, (2, 5, 5), strict=True)) | {m.digest: len(m.content) for m in MANIFESTS}
digests = st.sampled_from(list(SIZES))
PROJECTS = [project("a"), project("b"), project("a-c")]
projects = st.sampled_from([it.id for it in PROJECTS])
quotas = st.sampled_from([UNLIMITED, 0, 300, 700, 1500])
users = st.sampled_from(["one", "two"])
roles = st.sampled_from(Role)
sizes = st.sampled_from([0, 5, 300, 700])
acts = st.builds(Act, st.sampled_from([1.0, 2.5, 3.25]), name=st.sampled_from(["ada", "bob"]))
pulls = st.builds(Pulls, repositories, digests, st.one_of(st.none(), tags), st.integers(1, 9), acts)
windows = [
    Window(0, 9),
    Window(1, 2, reverse=True),
    Window(0, 9, "A"),
    Window(1, 1, "z", reverse=True),
    Window(0, 9, "é"),
]
uploads = st.builds(
    Upload,
    st.sampled_from(["u1", "u2", "u3"]),
    repositories,
    st.sampled_from(["one", "two"]),
    st.just("sha256"),
    st.sampled_from([1.0, 2.0]),
    sizes,
)


class StoreAgainstModel(RuleBasedStateMachine):
    """Every write goes to both stores; outcome and all reads have to agree."""

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        self.model = MemoryMetadata(clock=lambda: 1.0)
        self.store = self.opened()
        for each in PROJECTS[:2]:
            self.both("create_project", each)

    def both(self, method: str, *arguments: Any, **keywords: Any) -> None:
        """Run a write on both stores and compare what it returns or refuses."""
        outcomes = []
        for store in (self.model, self.store):
            nouns = (store.registry, store.projects, store.inventory)
            noun = next(noun for noun in nouns if hasattr(noun, method))
            outcomes.append(self.outcome(getattr(noun, method)(*arguments, **keywords)))
        assert outcomes[0] == outcomes[1]

    def outcome(self, write: Coroutine[Any, Any, Any]) -> tuple[Any, Any, Any]:
        """Return (result, refusal's code, refusal's detail)."""
        try:
            return self.loop.run_until_complete(write), None, None
        except OCIError as refusal:
            return None, refusal.code, refusal.detail
        except Refusal as refusal:
            return None, refusal.code, None

    @rule(repository=repositories, digest=digests, upload=st.sampled_from(["u1", "u2", None]))
    def link(self, repository: Any, digest: Digest, upload: str | None) -> None:
        self.both("link_blob", repository, digest, SIZES[digest], upload_id=upload)

    @rule(repository=repositories, source=repositories, digest=digests)
    def mount(self, repository: Any, source: Any, digest: Digest) -> None:
        self.both("mount_blob", repository, digest, source=source)

    @rule(repository=repositories, digest=digests)
    def unlink(self, repository: Any, digest: Digest) -> None:
        self.both("unlink_blob", repository, digest)

    @rule(before=st.sampled_from([1.0, 2.0]), limit=st.sampled_from([1, 9]))
    def tidy(self, before: float, limit: int) -> None:
        if limit == 9 or self.loose() < 2:  # of several, equally old ones, either may go first
            self.both("unlink_loose", before=before, limit=limit)

    def loose(self) -> int:
        """Return how many links no manifest needs."""
        return sum(len(it.loose) for it in self.model.registry._repositories.values())

    @rule(
        repository=repositories,
        manifest=st.sampled_from(MANIFESTS),
        names=st.lists(tags, max_size=2),
        sparse=st.booleans(),
        act=acts,
    )
    def put(self, repository: Any, manifest: Any, names: list[Tag], sparse: bool, act: Act) -> None:
        inline = manifest is not MANIFESTS[-1]
        self.both(
            "put_manifest", repository, manifest, names, inline=inline, allow_sparse=sparse, act=act
        )

    @rule(repository=repositories, digest=digests, act=acts)
    def delete(self, repository: Any, digest: Digest, act: Act) -> None:
        self.both("delete_manifest", repository, digest, act=act)

    @rule(repository=repositories, tag=tags, act=acts)
    def untag(self, repository: Any, tag: Tag, act: Act) -> None:
        self.both("delete_tag", repository, tag, act=act)

    @rule(repository=repositories, tag=tags, act=acts)
    def expire(self, repository: Any, tag: Tag, act: Act) -> None:
        self.both("expire_tag", repository, tag, pushed_at=2.5, act=act)

    @rule(project_id=projects, immutable=st.sampled_from([(), ("x",), ("?",)]))
    def protect(self, project_id: str, immutable: tuple[str, ...]) -> None:
        changes = Changes(updated_at=3.0, tag_rules=TagRules(immutable))
        self.both("change_project", project_id, changes)

    @rule(pulls=st.lists(pulls, max_size=3))
    def pull(self, pulls: list[Pulls]) -> None:
        self.both("note_pulls", pulls)

    @rule(upload=uploads)
    def start(self, upload: Upload) -> None:
        if (
            self.model.registry.upload(upload.id) is None
        ):  # ids are random: one is never given twice
            self.both("open_upload", upload, limit=2)

    @rule(upload=st.sampled_from(["u1", "u2", "u3"]))
    def close(self, upload: str) -> None:
        self.both("close_upload", upload)

    @rule(upload=st.sampled_from(["u1", "u2", "u3"]), least=sizes, more=sizes)
    def reserve(self, upload: str, least: int, more: int) -> None:
        self.both("reserve", upload, least=least, wanted=least + more)

    @rule(each=st.sampled_from(PROJECTS), quota=quotas)
    def create(self, each: Any, quota: int) -> None:
        if self.model.projects.project(each.id) is None:  # as for uploads
            self.both("create_project", msgspec.structs.replace(each, storage_quota=quota))

    @rule(each=st.sampled_from(PROJECTS), quota=quotas, rename=st.sampled_from("aaabc"))
    def change(self, each: Any, quota: int, rename: str) -> None:
        name = None if rename == "a" else rename
        changes = Changes(updated_at=2.0, storage_quota=quota, name=name)
        self.both("change_project", each.id, changes)

    @rule(project_id=projects, force=st.booleans())
    def end(self, project_id: str, force: bool) -> None:
        self.both("delete_project", project_id, force=force, limit=100)

    @rule(project_id=projects, user=users, role=roles, at=st.sampled_from([1.0, 2.0]))
    def join(self, project_id: str, user: str, role: Role, at: float) -> None:
        self.both("add_member", project_id, Member(user, role, at), act=ACT)

    @rule(project_id=projects, user=st.sampled_from(["one", "admin"]), role=roles)
    def promote(self, project_id: str, user: str, role: Role) -> None:
        self.both("set_role", project_id, user, role, act=ACT)

    @rule(project_id=projects, user=st.sampled_from(["one", "admin"]))
    def leave(self, project_id: str, user: str) -> None:
        self.both("remove_member", project_id, user, act=ACT)

    @rule()
    def reopen(self) -> None:
        """A restart changes nothing."""
        self.store.close()
        self.store = self.opened()

    def opened(self) -> LmdbMetadata:
        """Return the store on what is in the folder."""
        return LmdbMetadata(Path(self.folder.name), 16 << 20, clock=lambda: 1.0)

    @invariant()
    def all_reads_agree(self) -> None:
        """There is no question that the two answer differently."""
        for look in (self.look_at_repositories, self.look_at_projects, self.look_at_lists):
            assert look(self.model) == look(self.store)

    def look_at_repositories(self, metadata: MemoryMetadata | LmdbMetadata) -> list[Any]:
        """Return all answers about repositories and uploads."""
        store = metadata.registry
        view: list[Any] = [list(store.repositories(after="", limit=9))]
        for repository in REPOSITORIES:
            view.append(store.repository_exists(repository))
            view.append(list(store.tags(repository, after="", limit=9)))
            for digest in SIZES:
                view.append(store.blob(repository, digest))
                view.append(store.held_size(repository, digest))
                view.append(store.manifest(repository, digest))
                view.append(list(store.referrers(repository, digest, after="", limit=9)))
            view += [store.manifest(repository, tag) for tag in (Tag("x"), Tag("Z"))]
        for digest in BLOBS:
            view.append(list(store.repositories_with(digest)))
            view.append(store.is_held(digest))
        view.append(list(store.held(after="", limit=9)))
        return view + [store.upload(upload) for upload in ("u1", "u2", "u3")]

    def look_at_lists(self, metadata: MemoryMetadata | LmdbMetadata) -> list[Any]:
        """Return all lists; the model sorts and counts them anew each time."""
        store = metadata.inventory
        some = [it.id for it in (PROJECTS[2], PROJECTS[0])]
        found: list[Any] = []
        for window in windows:
            found += [store.list_repositories(which, window) for which in (None, some, [])]
            for repository in REPOSITORIES:
                found.append(store.list_tags(repository, window))
                found.append(store.list_tags(repository, window, by_time=True))
                found.append(store.list_manifests(repository, window))
        return found

    def look_at_projects(self, metadata: MemoryMetadata | LmdbMetadata) -> list[Any]:
        """Return all answers about projects; the model counts what they take anew each time."""
        store = metadata.projects
        view: list[Any] = [list(store.projects(after="", limit=9)), store.totals()]
        for each in PROJECTS:
            view.append(store.project(each.id))
            view.append(store.usage(each.id))
            view.append(list(store.members(each.id)))
            view += [store.standing(each.name, user) for user in ("one", "admin", "")]
        return view

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.loop.close()
            self.folder.cleanup()


TestStoreAgainstModel = StoreAgainstModel.TestCase
TestStoreAgainstModel.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
