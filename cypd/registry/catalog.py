"""The catalog: the repositories that somebody may pull from."""

import asyncio
from collections.abc import Sequence

from cypd.access import Action, Policy, Principal
from cypd.oci.names import RepositoryName
from cypd.registry.ports import MetadataStore

_STEP = 64  # read at a time, so that no caller holds up the others


class Catalog:
    """Lists repositories, each caller theirs."""

    def __init__(self, metadata: MetadataStore, allows: Policy) -> None:
        self._metadata = metadata
        self._allows = allows

    async def page(self, principal: Principal, *, after: str, limit: int) -> list[RepositoryName]:
        """Return at most ``limit`` names greater than ``after`` that the principal may pull.

        Rights are a project's, so one look at a project is enough, and one seek past it.
        """
        # A token for the catalog names no repositories: what its user may pull decides.
        viewer = principal._replace(grants=None)
        found: list[RepositoryName] = []
        while len(found) < limit:
            step = min(_STEP, limit - len(found))
            names = self._metadata.repositories(after=after, limit=step)
            readable = self._readable(viewer, names)
            found += readable
            if len(readable) == len(names) < step:
                break
            after = readable[-1] if len(readable) == len(names) else _end(names[len(readable)])
            await asyncio.sleep(0)
        return found

    def _readable(self, viewer: Principal, names: Sequence[RepositoryName]) -> list[RepositoryName]:
        """Return the names before the first that the viewer may not pull."""
        readable: list[RepositoryName] = []
        for name in names:
            is_known = bool(readable) and readable[-1].project == name.project
            if not is_known and not self._allows(viewer, Action.PULL, name):
                break
            readable.append(name)
        return readable


def _end(name: RepositoryName) -> str:
    """Return where the names of the same project end that follow a name.

    ``lib`` is followed by those of ``lib-x``, and then only by ``lib/x``: "-" and "." sort before
    "/".
    """
    return f"{name.project}/\x7f" if "/" in name else name
