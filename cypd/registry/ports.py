"""What the rules need of a metadata store and of a blob storage: contracts that every engine keeps.

The contract suites in ``tests/metadata`` and ``tests/storage`` hold each engine to these words.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal, NamedTuple, Protocol

import msgspec

from cypd.access import Act
from cypd.oci.digest import Algorithm, Digest
from cypd.oci.endpoints import Reference
from cypd.oci.errors import Code, OCIError
from cypd.oci.manifest import Manifest
from cypd.oci.names import RepositoryName, Tag

INLINE_BYTES = 64 << 10
"""Up to this size a manifest lives in the metadata store and a blob is answered from memory."""

MAX_ENDING = 16
"""How many referrers go at most with the manifest that is their subject."""


class Unavailable(Exception):
    """It can't be done now and nothing was changed: full queue, full disk, full map. Try again."""


class Fatal(Exception):
    """The engine can't be trusted any more (EIO, a failed commit): the process has to end.

    After a failed fsync the kernel marks the pages clean, and a second fsync succeeds without
    having written them (fsyncgate, 2018); only a restart reads what is really there.
    """


# --- metadata -----------------------------------------------------------------------------------


class StoredManifest(NamedTuple):
    """A manifest as it is served."""

    digest: Digest
    media_type: str
    size: int
    content: bytes | None
    """``None``: larger than ``INLINE_BYTES``, the blob storage has it under ``digest``."""
    is_guarded: bool = False
    """Its project refuses some pulls: it has a ``ScanPolicy``."""


class LinkedBlob(NamedTuple):
    """A blob that a repository links."""

    size: int
    loose_since: float | None
    """Since when (unix seconds) no manifest of the repository lists it; ``None``: one does.

    Linking it again begins anew.
    """


class Upload(msgspec.Struct, frozen=True):
    """An upload session."""

    id: str
    repository: RepositoryName
    owner: str
    """The id of the user who opened it."""
    algorithm: Algorithm
    started_at: float
    """Unix seconds."""
    reserved: int = 0
    """Bytes of its project's quota that are kept for it."""


class Figures(NamedTuple):
    """What a store can tell of itself without looking into it."""

    map_size: int
    """Bytes that it may ever take."""
    map_used: int
    """Bytes that it has taken; what was freed in between is used again."""
    oldest_reader: int
    """How many transactions ago the longest running reader began."""
    uploads: int
    """Upload sessions that are open."""


def require_few(uploads: int, limit: int | None) -> None:
    """Raise TOOMANYREQUESTS where ``limit`` sessions or more are open; ``None``: any number."""
    if limit is not None and uploads >= limit:
        raise OCIError(Code.TOOMANYREQUESTS, f"{limit} uploads are open; finish or cancel some")


def still_listed(digest: Digest) -> OCIError:
    """Return the refusal to delete what a manifest lists.

    Deleting it would leave an image that can't be pulled. The spec knows 400 and 405 for a delete
    that is not allowed; zot answers 405 here as well.
    """
    return OCIError(
        Code.DENIED,
        "a manifest of this repository lists it; delete that manifest first",
        status=405,
        detail={"digest": digest},
    )


def immutable_tag(tag: str) -> OCIError:
    """Return the refusal to move or delete a tag that its project's rules protect.

    The spec has no word for it; 409 says that it is not who asks, but what is there.
    """
    return OCIError(
        Code.DENIED, "the tag is immutable in this project", status=409, detail={"tag": tag}
    )


def over_quota(quota: int, used: int, requested: int, left: int) -> OCIError:
    """Return the refusal of content that the quota of its project has no room for, in bytes."""
    return OCIError(
        Code.DENIED,
        "the project's storage quota is exceeded",
        detail={"quota": quota, "used": used, "requested": requested, "left": left},
    )


def no_project(repository: RepositoryName) -> OCIError:
    """Return the refusal to put something into a project that does not exist."""
    return OCIError(Code.NAME_UNKNOWN, detail={"name": repository})


class MetadataStore(Protocol):
    """Repositories, what they hold, and upload sessions.

    A repository belongs to the project that its name begins with. Content counts against the quota
    of that project once a digest, however many repositories of it hold it, as blob or as manifest:
    from the very commit that makes it readable to the one that takes the last of them. What needs
    room raises DENIED with ``quota``, ``used``, ``requested`` and ``left`` where there is none, and
    NAME_UNKNOWN where there is no such project; nothing changes then. Content that the project has
    already needs none.

    Reads are plain calls: they answer from memory within microseconds and see every write that
    was awaited before, by whichever process. Writes are whole intentions: each happens completely
    or not at all, is durable when its await returns, and happens even if the waiting task is
    cancelled. Every write may raise ``Unavailable`` (nothing changed) or ``Fatal``.
    """

    def repository_exists(self, repository: RepositoryName) -> bool:
        """Tell whether anything was ever pushed to the repository."""
        ...

    def repositories(self, *, after: str, limit: int) -> Sequence[RepositoryName]:
        """Return at most ``limit`` names greater than ``after``, ascending by bytes."""
        ...

    def manifest(self, repository: RepositoryName, reference: Reference) -> StoredManifest | None:
        """Return the manifest a tag or digest names in the repository."""
        ...

    def tags(self, repository: RepositoryName, *, after: str, limit: int) -> Sequence[Tag]:
        """Return at most ``limit`` tags greater than ``after``, ascending by bytes."""
        ...

    def referrers(
        self, repository: RepositoryName, subject: Digest, *, after: str, limit: int
    ) -> Sequence[bytes]:
        """Return the descriptors, as JSON, of at most ``limit`` manifests with that subject.

        Ascending by digest, and of digests greater than ``after`` (a digest, or ``""``).
        """
        ...

    def blob(self, repository: RepositoryName, digest: Digest) -> LinkedBlob | None:
        """Return a blob that the repository links, else ``None``."""
        ...

    def repositories_with(self, digest: Digest) -> Sequence[RepositoryName]:
        """Return the repositories that link the blob."""
        ...

    def is_held(self, digest: Digest) -> bool:
        """Tell whether any repository has a use for the file ``digest``. Callable in any thread."""
        ...

    def held(self, *, after: str, limit: int) -> Sequence[tuple[Digest, int]]:
        """Return at most ``limit`` digests that are held, and their sizes.

        Ascending, and greater than ``after`` (a digest, or ``""``).
        """
        ...

    def held_size(self, repository: RepositoryName, digest: Digest) -> int | None:
        """Return the size of content that the repository's project holds anywhere."""
        ...

    def require_room(
        self, repository: RepositoryName, size: int, *, upload_id: str | None = None
    ) -> None:
        """Raise DENIED unless the quota has room for ``size`` bytes at this moment.

        The session's own reservation counts as room.
        """
        ...

    def upload(self, upload_id: str) -> Upload | None:
        """Return an open session."""
        ...

    def uploads(self, *, started_before: float) -> Sequence[Upload]:
        """Return the open sessions that were started before that time (unix seconds)."""
        ...

    async def open_upload(
        self, upload: Upload, *, limit: int, project_limit: int | None = None
    ) -> None:
        """Open a session, with its reservation.

        Raises TOOMANYREQUESTS if its owner has ``limit`` open ones already, or its project
        ``project_limit``.
        """
        ...

    async def reserve(self, upload_id: str, *, least: int, wanted: int) -> int:
        """Make ``wanted`` bytes, or ``least`` where there is no more room, a session's reservation.

        Returns which. Raises BLOB_UPLOAD_UNKNOWN if it is closed. Lowering always succeeds.
        """
        ...

    async def close_upload(self, upload_id: str) -> None:
        """Forget a session and its reservation. Repeating it changes nothing."""
        ...

    async def link_blob(
        self, repository: RepositoryName, digest: Digest, size: int, *, upload_id: str | None
    ) -> None:
        """Make a stored blob readable through the repository, and close the session it came by.

        The session's reservation is room for it. Repeating it changes nothing. The repository comes
        into being with its first link.
        """
        ...

    async def mount_blob(
        self, repository: RepositoryName, digest: Digest, *, source: RepositoryName
    ) -> bool:
        """Link a blob that ``source`` links; return ``False`` if it does not."""
        ...

    async def unlink_blob(self, repository: RepositoryName, digest: Digest) -> None:
        """Remove a link. Raises BLOB_UNKNOWN if there is none, DENIED if a manifest lists it."""
        ...

    async def unlink_loose(self, *, before: float, limit: int) -> int:
        """Remove the links that have been loose since before that time; return how many.

        Those of longest standing first, and at most ``limit``.
        """
        ...

    async def put_manifest(
        self,
        repository: RepositoryName,
        manifest: Manifest,
        tags: Sequence[Tag],
        *,
        inline: bool,
        allow_sparse: bool,
        act: Act,
    ) -> None:
        """Store a manifest and point the tags at it.

        Raises MANIFEST_BLOB_UNKNOWN, with the digests that lack, if the repository does not hold
        what the manifest references, unless ``allow_sparse``. A subject need not exist. With
        ``inline`` the content is kept here, else the blob storage has it. Repeating it
        is a push again, and changes nothing else. Raises DENIED (409) with the ``tag`` if an
        immutable one points elsewhere.
        """
        ...

    async def delete_manifest(
        self, repository: RepositoryName, digest: Digest, *, act: Act
    ) -> None:
        """Remove a manifest, its tags, and its place among referrers.

        With it go those of its referrers that say so (``ENDS_WITH_SUBJECT``), the first
        ``MAX_ENDING`` by digest, but none that has a tag or is listed.

        Raises MANIFEST_UNKNOWN if it is not there, DENIED if an index lists it (405) or one of its
        tags is immutable (409, with the ``tag``).
        """
        ...

    async def delete_tag(self, repository: RepositoryName, tag: Tag, *, act: Act) -> None:
        """Remove a tag alone.

        Raises MANIFEST_UNKNOWN if it is not there, DENIED (409) if it is immutable.
        """
        ...

    async def expire_tag(
        self, repository: RepositoryName, tag: Tag, *, pushed_at: float, act: Act
    ) -> bool:
        """Remove a tag that was last pushed at that time, and what nobody needs after it.

        That is its manifest, if it has no other tag, no index lists it and it has no subject.
        Returns ``False``, and nothing changes, if the tag is not there, was pushed since, or is
        immutable.
        """
        ...


# --- blobs --------------------------------------------------------------------------------------


class UploadBusy(Exception):
    """Another request is writing to this upload session, in this process or another."""


class DigestMismatch(Exception):
    """The staged bytes have another digest than the client says."""


class BlobMissing(Exception):
    """The storage has no such blob, or not those bytes, although a link says so."""


class Inline(NamedTuple):
    """Content that is in memory."""

    data: bytes

    @property
    def size(self) -> int:
        """Length in bytes."""
        return len(self.data)

    def close(self) -> None:
        """Release nothing."""


class LocalFile(Protocol):
    """Content that is an open file of this machine: what ``sendfile(2)`` can send."""

    @property
    def size(self) -> int:
        """Length in bytes."""
        ...

    def fileno(self) -> int:
        """Return the file descriptor, open until ``close``."""
        ...

    def close(self) -> None:
        """Close the file. Repeating it changes nothing."""
        ...


class Remote(ABC):
    """Content that another machine has: read from there, or by the client itself."""

    size: int
    """Length in bytes."""

    @abstractmethod
    async def address(self, client: str) -> str | None:
        """Return where the client, at that IP address, is to fetch it; ``None``: it is read."""

    @abstractmethod
    def read(self, start: int, count: int) -> AsyncGenerator[bytes, None]:
        """Yield ``count`` bytes, in pieces; raise ``BlobMissing`` or ``Unavailable``."""

    @abstractmethod
    def close(self) -> None:
        """Release it. Repeating it changes nothing."""


Content = Inline | LocalFile | Remote


class StagedBlob(Protocol):
    """The bytes of one upload session, while one request writes to them."""

    @property
    def size(self) -> int:
        """All bytes so far, those of earlier requests included."""
        ...

    async def write(self, data: bytes | memoryview) -> None:
        """Append. ``data`` must stay as it is until the second next call; it is not copied."""
        ...

    async def flush(self) -> None:
        """Return when all written bytes are in the file, so that they survive the process."""
        ...

    async def rollback(self) -> None:
        """Forget what was written since this blob was opened."""
        ...


def no_matter(size: int) -> None:
    """Be told a size, and do nothing."""


Condition = Literal["good", "damaged", "missing"]


class BlobStorage(Protocol):
    """Content by digest, shared by all repositories, and the staged bytes of uploads.

    Nothing here knows who may read what. Every method may raise ``Unavailable`` or ``Fatal``.
    """

    async def has(self, digest: Digest, size: int) -> bool:
        """Tell whether the content is there and of that size, without reading it."""
        ...

    async def open(self, digest: Digest, size: int) -> Content:
        """Return the content; the caller closes it. Raises ``BlobMissing``."""
        ...

    def stage(
        self, upload_id: str, algorithm: Algorithm
    ) -> AbstractAsyncContextManager[StagedBlob]:
        """Open an upload's bytes for appending, from wherever they end: a restart loses none.

        One writer at a time, over all processes: raises ``UploadBusy``. What was written is
        flushed when the context ends, however it ends.
        """
        ...

    async def staged_size(self, upload_id: str) -> int:
        """Return how many bytes an upload has; 0 if it has none."""
        ...

    def place(self, staged: StagedBlob, digest: Digest) -> AbstractAsyncContextManager[None]:
        """Make staged bytes durable under ``digest``, replacing what stood there.

        Raises ``DigestMismatch``, and the staged bytes stay. While the context is open, ``collect``
        does not touch the digest: the caller links it within.
        """
        ...

    async def discard(self, upload_id: str) -> None:
        """Remove an upload's bytes. Repeating it changes nothing."""
        ...

    async def staged_uploads(self, *, idle_since: float) -> Sequence[str]:
        """Return the uploads whose bytes were last written before that time (unix seconds)."""
        ...

    async def collect(
        self,
        is_held: Callable[[Digest], bool],
        *,
        placed_before: float,
        spared: Callable[[int], None] = no_matter,
    ) -> int:
        """Remove blobs that were placed before that time and are not held; return how many.

        ``spared`` is told the size of each that is not held either, but was placed later. Both may
        be called in any thread.
        """
        ...

    async def verify(
        self, digest: Digest, size: int, spend: Callable[[int], Awaitable[None]]
    ) -> Condition:
        """Read a blob where it is kept, past all caches, and tell its condition.

        ``spend`` is awaited before each piece, with its length. What is damaged is set aside for
        whoever wants to look at it: it counts as missing from then on, so that a push heals it.
        """
        ...
