"""Upload sessions: bytes arrive in any number of requests, and end as a blob under its digest.

Order of one blob, never changed: bytes complete and digest right, bytes durable, name durable, link
committed, answer. A crash between two of these leaves an orphan file at most, never a link without
bytes.
"""

import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

from cypd.access import Principal
from cypd.oci.digest import Algorithm, Digest
from cypd.oci.errors import Code, OCIError
from cypd.oci.names import RepositoryName
from cypd.oci.ranges import ByteRange
from cypd.registry.ports import (
    BlobStorage,
    DigestMismatch,
    MetadataStore,
    StagedBlob,
    Unavailable,
    Upload,
    UploadBusy,
)
from cypd.registry.room import Limits, Room


class Body(NamedTuple):
    """The bytes of one request, and what its headers say of them."""

    pieces: AsyncIterator[bytes | memoryview]
    """Each piece stays as it is until the second next one was asked for."""
    length: int | None = None
    """Content-Length; ``None`` for a stream."""
    window: ByteRange | None = None
    """Content-Range."""


class Uploads:
    """Starting, feeding, finishing and cancelling uploads.

    Every byte is covered by the quota of its project before it is taken, where a length is told
    before the first is read; else DENIED, and the upload is as it was before the request.
    """

    def __init__(
        self,
        metadata: MetadataStore,
        storage: BlobStorage,
        *,
        max_sessions_per_user: int,
        max_sessions_per_project: int | None = None,
    ) -> None:
        self._metadata = metadata
        self._storage = storage
        self._limits = Limits(max_sessions_per_user, max_sessions_per_project)

    async def start(
        self, repository: RepositoryName, principal: Principal, algorithm: Algorithm
    ) -> Upload:
        """Open a session; raise TOOMANYREQUESTS where the user or project has too many open."""
        upload = _new(repository, principal, algorithm)
        await self._metadata.open_upload(
            upload, limit=self._limits.per_user, project_limit=self._limits.per_project
        )
        return upload

    def find(self, repository: RepositoryName, upload_id: str, principal: Principal) -> Upload:
        """Return a session to the one who opened it; to all others it does not exist."""
        upload = self._metadata.upload(upload_id)
        if upload is None or (upload.repository, upload.owner) != (repository, principal.user_id):
            raise OCIError(Code.BLOB_UPLOAD_UNKNOWN)
        return upload

    async def size(self, upload: Upload) -> int:
        """Return how many bytes the session has."""
        return await self._storage.staged_size(upload.id)

    async def append(self, upload: Upload, body: Body) -> int:
        """Append a chunk and return the session's size.

        With a window the chunk has to start where the session ends, else BLOB_UPLOAD_INVALID
        (416), and to be as long as it says, else SIZE_INVALID; a refused chunk changes nothing.
        A body that breaks off leaves what arrived.
        """
        async with self._writing(upload, upload.algorithm) as (staged, room):
            await _feed(staged, body, room)
            await staged.flush()
            await room.trim(staged.size)
            return staged.size

    async def commit(self, upload: Upload, body: Body, digest: Digest) -> None:
        """Append the last bytes, if any, and make the blob ``digest`` of the session.

        Raises DIGEST_INVALID where the bytes have another digest; the session is then as it was
        before this call.
        """
        free = self._metadata.held_size(upload.repository, digest) or 0
        async with self._writing(upload, digest.algorithm, free) as (staged, room):
            await _feed(staged, body, room)
            await self._place(upload.repository, staged, digest, upload.id)

    @asynccontextmanager
    async def _writing(
        self, upload: Upload, algorithm: Algorithm, free: int = 0
    ) -> AsyncIterator[tuple[StagedBlob, Room]]:
        """Open a session's bytes, and the room that they have."""
        try:
            async with self._storage.stage(upload.id, algorithm) as staged:
                current = self._metadata.upload(upload.id)  # as the request before this left it
                if current is None:
                    raise OCIError(Code.BLOB_UPLOAD_UNKNOWN)
                room = self._room(current, is_open=True, free=free)
                try:
                    yield staged, room
                except BaseException:
                    with suppress(OCIError, Unavailable):  # what is kept too much goes with it
                        await room.trim(staged.size)
                    raise
        except UploadBusy:
            raise _out_of_order(await self.size(upload), "another request is writing") from None

    async def push(
        self, repository: RepositoryName, principal: Principal, body: Body, digest: Digest
    ) -> None:
        """Store a whole blob without a session; nothing is left of one that fails."""
        upload = _new(repository, principal, digest.algorithm)
        free = self._metadata.held_size(repository, digest) or 0
        room = self._room(upload, is_open=False, free=free)
        try:
            async with self._storage.stage(upload.id, digest.algorithm) as staged:
                await _feed(staged, body, room)
                await self._place(repository, staged, digest, upload.id if room.is_open else None)
        except BaseException:
            await self._storage.discard(upload.id)
            await room.leave()
            raise

    def _room(self, upload: Upload, *, is_open: bool, free: int) -> Room:
        return Room(self._metadata, upload, is_open=is_open, limits=self._limits, free=free)

    async def _place(
        self, repository: RepositoryName, staged: StagedBlob, digest: Digest, upload_id: str | None
    ) -> None:
        try:
            # Asked before the bytes become a blob, while there is a way back; the link asks again.
            if self._metadata.held_size(repository, digest) is None:
                self._metadata.require_room(repository, staged.size, upload_id=upload_id)
            async with self._storage.place(staged, digest):
                await self._metadata.link_blob(repository, digest, staged.size, upload_id=upload_id)
        except DigestMismatch:
            await staged.rollback()
            raise OCIError(Code.DIGEST_INVALID, detail={"digest": digest}) from None

    async def cancel(self, upload: Upload) -> None:
        """End a session and drop its bytes."""
        await self._metadata.close_upload(upload.id)
        await self._storage.discard(upload.id)


def _new(repository: RepositoryName, principal: Principal, algorithm: Algorithm) -> Upload:
    return Upload(
        id=str(uuid.uuid4()),
        repository=repository,
        owner=principal.user_id,
        algorithm=algorithm,
        started_at=time.time(),
    )


async def _feed(staged: StagedBlob, body: Body, room: Room) -> None:
    window = body.window
    if window is not None and window.start != staged.size:
        raise _out_of_order(staged.size, "the chunk does not start where the upload ends")
    length = window.size if window else body.length
    if length is not None:
        await room.cover(staged.size + length)
    try:
        async for piece in body.pieces:
            await room.cover(staged.size + len(piece), ahead=staged.size)
            await staged.write(piece)
            if window is not None and staged.size > window.stop:
                break
    except OCIError:  # too much, or not what its own headers say
        await staged.rollback()
        raise
    if window is not None and staged.size != window.stop:
        await staged.rollback()
        raise OCIError(Code.SIZE_INVALID, "the chunk is not as long as its Content-Range says")


def _out_of_order(size: int, message: str) -> OCIError:
    # Spec, section Pushing a blob in chunks: an out-of-order chunk is 416, and the client asks
    # for the upload's status; the Range here spares it the question.
    headers = {b"range": b"0-%d" % max(0, size - 1)}
    return OCIError(Code.BLOB_UPLOAD_INVALID, message, status=416, headers=headers)
