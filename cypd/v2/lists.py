"""Tags, the catalog and referrers (end-8, end-12), a page at a time."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

import orjson

from cypd.oci.digest import Digest
from cypd.oci.endpoints import referrers_path, tags_path
from cypd.oci.errors import Code, OCIError
from cypd.oci.manifest import MAX_MANIFEST_BYTES
from cypd.oci.media_types import OCI_INDEX
from cypd.registry.catalog import Catalog
from cypd.registry.manifests import MAX_PAGE, Manifests
from cypd.v2.call import Call, Headers

# Referrers carry the annotations of their manifests. Spec, section Listing Referrers: a response is
# paged that would be larger than a manifest may be.
_PAGE_BYTES = MAX_MANIFEST_BYTES
_STEP = 4  # read at a time, so that few are read in vain


class ListHandlers:
    """The endpoints that list what is there."""

    def __init__(self, manifests: Manifests, catalog: Catalog) -> None:
        self._manifests = manifests
        self._catalog = catalog

    async def tags(self, call: Call) -> None:
        """List a repository's tags in ASCII order."""
        limit, after = _page(call)
        tags = self._manifests.tags(call.repository, after=after, limit=limit)
        headers = _next(tags_path(call.repository), tags, limit, more=len(tags) == limit)
        await call.answer_json({"name": call.repository, "tags": tags}, headers)

    async def catalog(self, call: Call) -> None:
        """List the repositories that the caller may pull, in ASCII order."""
        limit, after = _page(call)
        names = await self._catalog.page(call.principal, after=after, limit=limit)
        headers = _next("/v2/_catalog", names, limit, more=len(names) == limit)
        await call.answer_json({"repositories": names}, headers)

    async def referrers(self, call: Call) -> None:
        """List the manifests whose subject this digest is; none is an empty list, never 404."""
        limit, after = _page(call)
        if after:
            Digest.parse(after)
        descriptors, more = self._referrers(call, after, limit)
        query = call.query()
        kept = {"artifactType": query["artifactType"][0]} if "artifactType" in query else {}
        digests = [descriptor["digest"] for descriptor in descriptors]
        path = referrers_path(call.repository, call.digest)
        headers = _next(path, digests, limit, more=more, kept=kept)
        headers.append((b"content-type", OCI_INDEX.encode()))
        if kept:
            descriptors = [it for it in descriptors if it.get("artifactType") in kept.values()]
            headers.append((b"oci-filters-applied", b"artifactType"))
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": descriptors}
        await call.answer(200, headers, orjson.dumps(index))

    def _referrers(self, call: Call, after: str, limit: int) -> tuple[list[dict[str, Any]], bool]:
        """Return a page of descriptors, and whether there may be more."""
        page: list[dict[str, Any]] = []
        size = 0
        while len(page) < limit:
            step = min(_STEP, limit - len(page))
            found = self._manifests.referrers(call.repository, call.digest, after=after, limit=step)
            for descriptor in found:
                size += len(descriptor)
                if page and size > _PAGE_BYTES:
                    return page, True
                page.append(orjson.loads(descriptor))
            if len(found) < step:
                return page, False
            after = page[-1]["digest"]
        return page, True


def _page(call: Call) -> tuple[int, str]:
    """Return how many the client wants at most, and after which."""
    query = call.query()
    text = query.get("n", [str(MAX_PAGE)])[0]
    if not (text.isascii() and text.isdigit()):
        raise OCIError(Code.PAGINATION_NUMBER_INVALID)
    limit = min(int(text[:19]), MAX_PAGE)
    return limit, query.get("last", [""])[0]


def _next(
    path: str, page: Sequence[str], limit: int, *, more: bool, kept: dict[str, str] | None = None
) -> Headers:
    # Spec, section Listing Tags: Link (RFC 8288) for the next page, none for n=0.
    if not page or not more:
        return []
    query = urlencode({"n": limit, "last": page[-1], **(kept or {})})
    return [(b"link", f'<{path}?{query}>; rel="next"'.encode())]
