"""LMDB against the model: whatever is done to both, they answer the same."""

import asyncio
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cypd.metadata.lmdb import LmdbMetadata
from cypd.metadata.memory import MemoryMetadata
from cypd.oci.digest import Digest
from cypd.oci.errors import Code, OCIError
from cypd.oci.names import Tag
from cypd.registry.ports import Upload
from tests.samples import EMPTY, image, index, name, parsed

repositories = st.sampled_from([name("a"), name("a/b"), name("b")])
tags = st.sampled_from([Tag("x"), Tag("y"), Tag("Z")])
BLOBS = [Digest.of(EMPTY), Digest.of(b"layer"), Digest.of(b"layer", "sha512")]
IMAGES = [image(), image(b"layer"), image(b"layer", subject=Digest.of(image()), note="s")]
DOCUMENTS = [*IMAGES, index(IMAGES[0], IMAGES[1]), index()]
MANIFESTS = [parsed(content, "") for content in DOCUMENTS]
digests = st.sampled_from([*BLOBS, *(manifest.digest for manifest in MANIFESTS)])
uploads = st.builds(
    Upload,
    st.sampled_from(["u1", "u2", "u3"]),
    repositories,
    st.sampled_from(["one", "two"]),
    st.just("sha256"),
    st.sampled_from([1.0, 2.0]),
)


class StoreAgainstModel(RuleBasedStateMachine):
    """Every write goes to both stores; outcome and all reads have to agree."""

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        self.model = MemoryMetadata().registry
        self.metadata = LmdbMetadata(Path(self.folder.name), 16 << 20)
        self.store = self.metadata.registry

    def both(self, method: str, *arguments: Any, **keywords: Any) -> None:
        """Run a write on both stores and compare what it returns or refuses."""
        outcomes = [
            self.outcome(getattr(store, method)(*arguments, **keywords))
            for store in (self.model, self.store)
        ]
        assert outcomes[0] == outcomes[1]

    def outcome(self, write: Coroutine[Any, Any, Any]) -> tuple[Any, Code | None, Any]:
        """Return (result, refusal's code, refusal's detail)."""
        try:
            return self.loop.run_until_complete(write), None, None
        except OCIError as refusal:
            return None, refusal.code, refusal.detail

    @rule(repository=repositories, digest=digests, upload=st.sampled_from(["u1", "u2", None]))
    def link(self, repository: Any, digest: Digest, upload: str | None) -> None:
        self.both("link_blob", repository, digest, 7, upload_id=upload)

    @rule(repository=repositories, source=repositories, digest=digests)
    def mount(self, repository: Any, source: Any, digest: Digest) -> None:
        self.both("mount_blob", repository, digest, source=source)

    @rule(repository=repositories, digest=digests)
    def unlink(self, repository: Any, digest: Digest) -> None:
        self.both("unlink_blob", repository, digest)

    @rule(
        repository=repositories,
        manifest=st.sampled_from(MANIFESTS),
        names=st.lists(tags, max_size=2),
        sparse=st.booleans(),
    )
    def put(self, repository: Any, manifest: Any, names: list[Tag], sparse: bool) -> None:
        inline = manifest is not MANIFESTS[-1]
        self.both("put_manifest", repository, manifest, names, inline=inline, allow_sparse=sparse)

    @rule(repository=repositories, digest=digests)
    def delete(self, repository: Any, digest: Digest) -> None:
        self.both("delete_manifest", repository, digest)

    @rule(repository=repositories, tag=tags)
    def untag(self, repository: Any, tag: Tag) -> None:
        self.both("delete_tag", repository, tag)

    @rule(upload=uploads)
    def start(self, upload: Upload) -> None:
        if self.model.upload(upload.id) is None:  # ids are random: one is never given twice
            self.both("open_upload", upload, limit=2)

    @rule(upload=st.sampled_from(["u1", "u2", "u3"]))
    def close(self, upload: str) -> None:
        self.both("close_upload", upload)

    @rule()
    def reopen(self) -> None:
        """A restart changes nothing."""
        self.metadata.close()
        self.metadata = LmdbMetadata(Path(self.folder.name), 16 << 20)
        self.store = self.metadata.registry

    @invariant()
    def all_reads_agree(self) -> None:
        """There is no question that the two answer differently."""
        views = []
        for store in (self.model, self.store):
            view: list[Any] = [list(store.repositories(after="", limit=9))]
            for repository in (name("a"), name("a/b"), name("b")):
                view.append(store.repository_exists(repository))
                view.append(list(store.tags(repository, after="", limit=9)))
                for digest in (*BLOBS, *(manifest.digest for manifest in MANIFESTS)):
                    view.append(store.blob_size(repository, digest))
                    view.append(store.manifest(repository, digest))
                    view.append(list(store.referrers(repository, digest, after="", limit=9)))
                view += [store.manifest(repository, tag) for tag in (Tag("x"), Tag("Z"))]
            for digest in BLOBS:
                view.append(list(store.repositories_with(digest)))
                view.append(store.is_held(digest))
            view += [store.upload(upload) for upload in ("u1", "u2", "u3")]
            views.append(view)
        assert views[0] == views[1]

    def teardown(self) -> None:
        if hasattr(self, "metadata"):
            self.metadata.close()
            self.loop.close()
            self.folder.cleanup()


TestStoreAgainstModel = StoreAgainstModel.TestCase
TestStoreAgainstModel.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
