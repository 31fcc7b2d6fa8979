"""Room in a project's quota, taken for an upload before its bytes are read."""

from typing import NamedTuple

import msgspec

from cypd.oci.errors import OCIError
from cypd.registry.ports import MetadataStore, Upload

UNRESERVED_BYTES = 1 << 20
"""Up to this size nothing is reserved, which would cost a commit: there is room, or there is not,
when the blob is linked."""
# A stream of unknown length reserves as much ahead as it has, up to this.
_AHEAD_BYTES = 64 << 20


class Limits(NamedTuple):
    """How many sessions may be open."""

    per_user: int
    per_project: int | None


class Room:
    """What one upload may write, while one request writes to it.

    ``is_open`` tells whether the upload is a session in the metadata; one that is not becomes a
    session when it has to reserve. ``free`` bytes need no room: those of content that the project
    has already.
    """

    def __init__(
        self, metadata: MetadataStore, upload: Upload, *, is_open: bool, limits: Limits, free: int
    ) -> None:
        self._metadata = metadata
        self._upload = upload
        self._limits = limits
        self.is_open = is_open
        self._reserved = upload.reserved
        self._covered = max(upload.reserved, free)

    async def cover(self, size: int, ahead: int = 0) -> None:
        """Make sure that the upload may have ``size`` bytes, if possible ``ahead`` more; or DENIED.

        Also raises BLOB_UPLOAD_UNKNOWN if its session was closed meanwhile, TOOMANYREQUESTS if it
        would be one too many.
        """
        if size <= self._covered:
            return
        if size <= UNRESERVED_BYTES:
            self._metadata.require_room(self._upload.repository, size, upload_id=self._upload.id)
            self._covered = size
        else:
            self._reserved = await self._reserve(size, size + min(ahead, _AHEAD_BYTES))
            self._covered = self._reserved

    async def _reserve(self, least: int, wanted: int) -> int:
        if self.is_open:
            return await self._metadata.reserve(self._upload.id, least=least, wanted=wanted)
        upload = msgspec.structs.replace(self._upload, reserved=least)
        self.is_open = True  # it happens although the wait for it may be cancelled
        try:
            await self._metadata.open_upload(
                upload, limit=self._limits.per_user, project_limit=self._limits.per_project
            )
        except OCIError:
            self.is_open = False
            raise
        return least

    async def trim(self, size: int) -> None:
        """Give back what an upload of ``size`` bytes does not need."""
        needed = size if size > UNRESERVED_BYTES else 0
        if needed < self._reserved:
            self._reserved = await self._metadata.reserve(
                self._upload.id, least=needed, wanted=needed
            )

    async def leave(self) -> None:
        """End the session, if it is one."""
        if self.is_open:
            await self._metadata.close_upload(self._upload.id)
