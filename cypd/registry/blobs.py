"""Blobs: readable through a repository that links them, and through no other way."""

import logging
import time

from cypd.access import Action, Policy, Principal
from cypd.oci.digest import Digest
from cypd.oci.errors import Code, OCIError
from cypd.oci.names import RepositoryName
from cypd.registry.ports import BlobStorage, Content, LinkedBlob, MetadataStore

log = logging.getLogger(__name__)


class Blobs:
    """Reading, mounting and deleting blobs."""

    def __init__(
        self,
        metadata: MetadataStore,
        storage: BlobStorage,
        allows: Policy,
        *,
        loose_grace: float,
    ) -> None:
        self._metadata = metadata
        self._storage = storage
        self._allows = allows
        self._loose_grace = loose_grace

    async def size(self, repository: RepositoryName, digest: Digest) -> int:
        """Return the size of a blob of the repository; raise BLOB_UNKNOWN.

        Also for one whose file is missing or cut short: who asks before a push then pushes it
        again, which heals it. And for one that no manifest has listed for half the time after which
        the janitor takes it: who then pushes or mounts it again has all that time for the manifest.
        """
        size, loose_since = self._linked(repository, digest)
        if loose_since is not None and loose_since < time.time() - self._loose_grace / 2:
            raise _unknown(digest)
        if not await self._storage.has(digest, size):
            log.error("blob %s is damaged or missing: push it again to heal it", digest)
            raise _unknown(digest)
        return size

    async def open(self, repository: RepositoryName, digest: Digest) -> Content:
        """Return a blob of the repository; raise BLOB_UNKNOWN. The caller closes it."""
        return await self._storage.open(digest, self._linked(repository, digest).size)

    def _linked(self, repository: RepositoryName, digest: Digest) -> LinkedBlob:
        blob = self._metadata.blob(repository, digest)
        if blob is None:
            raise _unknown(digest)
        return blob

    async def mount(
        self,
        repository: RepositoryName,
        digest: Digest,
        source: RepositoryName | None,
        principal: Principal,
    ) -> bool:
        """Link a blob that the principal may pull from ``source``, or from anywhere if ``None``.

        ``False`` says only that there is nothing to mount: an absent and a forbidden source are
        told apart by nothing (CVE-2026-32589 and others of its kind).
        """
        sources = self._metadata.repositories_with(digest)
        if source is not None:
            sources = [source] if source in sources else []
        for candidate in sources:
            asking = principal
            if candidate.project == repository.project:
                # Rights are the project's, and not every client asks for a token for the source
                # too (one that names none can't): here its role decides.
                asking = principal._replace(grants=None)
            if self._allows(asking, Action.PULL, candidate) and await self._metadata.mount_blob(
                repository, digest, source=candidate
            ):
                return True
        return False

    async def delete(self, repository: RepositoryName, digest: Digest) -> None:
        """Unlink a blob; its bytes go when no repository holds them any more."""
        await self._metadata.unlink_blob(repository, digest)


def _unknown(digest: Digest) -> OCIError:
    return OCIError(Code.BLOB_UNKNOWN, detail={"digest": digest})
