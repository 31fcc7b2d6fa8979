"""Tags, the catalog and referrers (end-8, end-12), a page at a time."""

from collections.abc import Sequence
from urllib.parse import urlencode

import orjson

from cypd.oci.digest import Digest
from cypd.oci.endpoints import referrers_path, tags_path
from cypd.oci.errors import Code, OCIError
from cypd.oci.media_types import OCI_INDEX
from cypd.registry.manifests import MAX_PAGE, Manifests
from cypd.v2.call import Call, Headers


class ListHandlers:
    """The endpoints that list what is there."""

    def __init__(self, manifests: Manifests) -> None:
        self._manifests = manifests

    async def tags(self, call: Call) -> None:
        """List a repository's tags in ASCII order."""
        limit, after = _page(call)
        tags = self._manifests.tags(call.repository, after=after, limit=limit)
        headers = _next(tags_path(call.repository), tags, limit)
        await call.answer_json({"name": call.repository, "tags": tags}, headers)

    async def catalog(self, call: Call) -> None:
        """List the repositories in ASCII order."""
        limit, after = _page(call)
        names = self._manifests.repositories(after=after, limit=limit)
        await call.answer_json({"repositories": names}, _next("/v2/_catalog", names, limit))

    async def referrers(self, call: Call) -> None:
        """List the manifests whose subject this digest is; none is an empty list, never 404."""
        limit, after = _page(call)
        if after:
            Digest.parse(after)
        descriptors = [
            orjson.loads(descriptor)
            for descriptor in self._manifests.referrers(
                call.repository, call.digest, after=after, limit=limit
            )
        ]
        query = call.query()
        kept = {"artifactType": query["artifactType"][0]} if "artifactType" in query else {}
        digests = [descriptor["digest"] for descriptor in descriptors]
        headers = _next(referrers_path(call.repository, call.digest), digests, limit, kept)
        headers.append((b"content-type", OCI_INDEX.encode()))
        if kept:
            descriptors = [it for it in descriptors if it.get("artifactType") in kept.values()]
            headers.append((b"oci-filters-applied", b"artifactType"))
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": descriptors}
        await call.answer(200, headers, orjson.dumps(index))


def _page(call: Call) -> tuple[int, str]:
    """Return how many the client wants at most, and after which."""
    query = call.query()
    text = query.get("n", [str(MAX_PAGE)])[0]
    if not (text.isascii() and text.isdigit()):
        raise OCIError(Code.PAGINATION_NUMBER_INVALID)
    limit = min(int(text[:19]), MAX_PAGE)
    return limit, query.get("last", [""])[0]


def _next(
    path: str, page: Sequence[str], limit: int, kept: dict[str, str] | None = None
) -> Headers:
    # Spec, section Listing Tags: Link (RFC 8288) for the next page, none for n=0.
    if not page or len(page) < limit:
        return []
    query = urlencode({"n": limit, "last": page[-1], **(kept or {})})
    return [(b"link", f'<{path}?{query}>; rel="next"'.encode())]
