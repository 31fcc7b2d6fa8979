"""Upload sessions: bytes arrive in any number of requests, and end as a blob under its digest.

Order of one blob, never changed: bytes complete and digest right, bytes durable, name durable, link
committed, answer. A crash between two of these leaves an orphan file at most, never a link without
bytes.
"""

import time
import uuid
from collections.abc import AsyncIterator

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
    Upload,
    UploadBusy,
)

Body = AsyncIterator[bytes | memoryview]
"""A request's body. Each piece stays as it is until the second next one was asked for."""


class Uploads:
    """Starting, feeding, finishing and cancelling uploads."""

    def __init__(
        self, metadata: MetadataStore, storage: BlobStorage, *, max_sessions_per_user: int
    ) -> None:
        self._metadata = metadata
        self._storage = storage
        self._max_sessions_per_user = max_sessions_per_user

    async def start(
        self, repository: RepositoryName, principal: Principal, algorithm: Algorithm
    ) -> Upload:
        """Open a session; raise TOOMANYREQUESTS when the principal has too many open ones."""
        upload = _new(repository, principal, algorithm)
        await self._metadata.open_upload(upload, limit=self._max_sessions_per_user)
        return upload

    def find(self, repository: RepositoryName, upload_id: str, principal: Principal) -> Upload:
        """Return a session to the one who opened it; to all others it does not exist."""
        upload = self._metadata.upload(upload_id)
        if upload is None or (upload.repository, upload.owner) != (repository, principal.name):
            raise OCIError(Code.BLOB_UPLOAD_UNKNOWN)
        return upload

    async def size(self, upload: Upload) -> int:
        """Return how many bytes the session has."""
        return await self._storage.staged_size(upload.id)

    async def append(self, upload: Upload, body: Body, window: ByteRange | None) -> int:
        """Append a chunk and return the session's size.

        With ``window`` the chunk has to start where the session ends, else BLOB_UPLOAD_INVALID
        (416), and to be as long as it says, else SIZE_INVALID; a refused chunk changes nothing.
        A body that breaks off leaves what arrived.
        """
        try:
            async with self._storage.stage(upload.id, upload.algorithm) as staged:
                await _feed(staged, body, window)
                await staged.flush()
                return staged.size
        except UploadBusy:
            raise _out_of_order(await self.size(upload), "another request is writing") from None

    async def commit(
        self, upload: Upload, body: Body, window: ByteRange | None, digest: Digest
    ) -> None:
        """Append the last bytes, if any, and make the blob ``digest`` of the session.

        Raises DIGEST_INVALID where the bytes have another digest; the session is then as it was
        before this call.
        """
        try:
            async with self._storage.stage(upload.id, digest.algorithm) as staged:
                await _feed(staged, body, window)
                await self._place(upload.repository, staged, digest, upload.id)
        except UploadBusy:
            raise _out_of_order(await self.size(upload), "another request is writing") from None

    async def push(
        self, repository: RepositoryName, principal: Principal, body: Body, digest: Digest
    ) -> None:
        """Store a whole blob without a session; nothing is left of one that fails."""
        upload = _new(repository, principal, digest.algorithm)
        try:
            async with self._storage.stage(upload.id, digest.algorithm) as staged:
                await _feed(staged, body, None)
                await self._place(repository, staged, digest, None)
        except BaseException:
            await self._storage.discard(upload.id)
            raise

    async def _place(
        self, repository: RepositoryName, staged: StagedBlob, digest: Digest, upload_id: str | None
    ) -> None:
        try:
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
        owner=principal.name,
        algorithm=algorithm,
        started_at=time.time(),
    )


async def _feed(staged: StagedBlob, body: Body, window: ByteRange | None) -> None:
    if window is not None and window.start != staged.size:
        raise _out_of_order(staged.size, "the chunk does not start where the upload ends")
    try:
        async for piece in body:
            await staged.write(piece)
            if window is not None and staged.size > window.stop:
                break
    except OCIError:  # the body is not what its own headers say
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
