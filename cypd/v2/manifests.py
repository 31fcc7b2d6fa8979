"""Pulling, pushing and deleting manifests and tags (end-3, end-7, end-9)."""

import time
from collections.abc import Callable

from cypd.access import Act, Principal, is_scanner
from cypd.oci.digest import Digest
from cypd.oci.endpoints import manifest_path
from cypd.oci.errors import Code, OCIError
from cypd.oci.manifest import MAX_MANIFEST_BYTES
from cypd.oci.names import RepositoryName, Tag
from cypd.registry.manifests import Manifests
from cypd.registry.ports import StoredManifest
from cypd.registry.pulls import PullCounter
from cypd.v2.call import Call, Headers
from cypd.v2.content import IMMUTABLE, identity, is_known, send_content

# Spec 1.2-dev, ?tag=: a registry may bound the number of tags, at not less than 10.
_MAX_TAGS = 100

Guard = Callable[[Principal, RepositoryName, StoredManifest], None]
"""Raises OCIError for what a project wants nobody to pull; asked only where projects do so."""


class ManifestHandlers:
    """The endpoints below ``/v2/<name>/manifests/<reference>``."""

    def __init__(self, manifests: Manifests, pulls: PullCounter, guard: Guard) -> None:
        self._manifests = manifests
        self._pulls = pulls
        self._guard = guard

    async def get(self, call: Call) -> None:
        """Send a manifest's exact bytes; HEAD only says what they are."""
        manifest = self._manifests.find(call.repository, call.reference)
        if manifest.is_guarded:
            self._guard(call.principal, call.repository, manifest)
        media_type = (b"content-type", manifest.media_type.encode())
        headers: Headers = [*identity(manifest.digest), media_type]
        if isinstance(call.reference, Digest):
            headers.append(IMMUTABLE)
        # Clients ask with HEAD whether there is anything new, and a scan uses nothing.
        if not call.is_head and not is_scanner(call.principal):
            self._note(call, manifest.digest)
        if is_known(call, manifest.digest):
            await call.answer_empty(304, headers)
        elif call.is_head:
            await call.answer_head(headers, manifest.size)
        else:
            content = await self._manifests.open(manifest)
            try:
                await send_content(call, content, headers, None)
            finally:
                content.close()

    def _note(self, call: Call, digest: Digest) -> None:
        tag = call.reference if isinstance(call.reference, Tag) else None
        # Without a trace id, which would cost as much as all the rest: pulls are told of in sums.
        who = call.principal
        act = Act(time.time(), who.user_id, who.name, call.address)
        self._pulls.note(call.repository, digest, tag, act)

    async def put(self, call: Call) -> None:
        """Store a manifest by tag or digest, and with ``?tag=`` under more tags."""
        tags = [Tag.parse(tag) for tag in call.query().get("tag", ())]
        if len(tags) > _MAX_TAGS:
            raise OCIError(Code.TAG_INVALID, f"at most {_MAX_TAGS} tags at a time", status=414)
        content = await _read(call)
        content_type = call.header(b"content-type") or ""
        manifest = await self._manifests.put(
            call.repository, content, content_type, call.reference, tags, act=call.act
        )
        location = manifest_path(call.repository, manifest.digest).encode()
        headers: Headers = [
            (b"location", location),
            (b"docker-content-digest", manifest.digest.encode()),
        ]
        if manifest.subject:
            headers.append((b"oci-subject", manifest.subject.encode()))
        headers += [(b"oci-tag", tag.encode()) for tag in tags]
        await call.answer(201, headers)

    async def delete(self, call: Call) -> None:
        """Delete a manifest by digest, or a tag alone."""
        await self._manifests.delete(call.repository, call.reference, act=call.act)
        await call.answer(202, [])


async def _read(call: Call) -> bytes:
    if (call.content_length() or 0) > MAX_MANIFEST_BYTES:
        raise _too_large()
    content = bytearray()
    async for piece in call.body():
        content += piece
        if len(content) > MAX_MANIFEST_BYTES:
            raise _too_large()
    return bytes(content)


def _too_large() -> OCIError:
    # Spec, section Pushing Manifests: 413 for a manifest that is too large.
    message = f"a manifest has at most {MAX_MANIFEST_BYTES} bytes"
    return OCIError(Code.MANIFEST_INVALID, message, status=413)
