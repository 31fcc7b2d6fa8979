"""Pulling and deleting blobs (end-2, end-10)."""

from cypd.registry.blobs import Blobs
from cypd.registry.ports import Remote
from cypd.v2.call import Call, Headers
from cypd.v2.content import IMMUTABLE, identity, is_known, requested_ranges, send_content

# Whatever was pushed: a browser must not take it for a page.
_TYPE = (b"content-type", b"application/octet-stream")
_RANGES = (b"accept-ranges", b"bytes")


class BlobHandlers:
    """The endpoints below ``/v2/<name>/blobs/<digest>``."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    async def get(self, call: Call) -> None:
        """Send a blob, the ranges asked for, or where it is; HEAD says what GET would send."""
        headers: Headers = [*identity(call.digest), _TYPE, _RANGES, IMMUTABLE]
        if call.is_head:
            size = await self._blobs.size(call.repository, call.digest)
            await call.answer_head(headers, size)
            return
        content = await self._blobs.open(call.repository, call.digest)
        try:
            if is_known(call, call.digest):
                await call.answer_empty(304, headers)
                return
            if isinstance(content, Remote) and (address := await content.address(call.address)):
                call.scope["redirected"] = content.size  # for the meter
                await _redirect(call, address)
                return
            ranges = requested_ranges(call, call.digest, content.size)
            await send_content(call, content, headers, ranges)
        finally:
            content.close()

    async def delete(self, call: Call) -> None:
        """Unlink a blob from the repository."""
        await self._blobs.delete(call.repository, call.digest)
        await call.answer(202, [])


async def _redirect(call: Call, address: str) -> None:
    # 307, so that whoever repeats the request does so with its method and its Range. The address is
    # a credential for some minutes: no cache is to keep it.
    headers = [(b"location", address.encode()), (b"cache-control", b"no-store")]
    await call.answer(307, [*headers, (b"docker-content-digest", call.digest.encode())])
