"""All that is held, for those who read every blob there is."""

from collections.abc import Iterator

from cypd.oci.digest import Digest
from cypd.registry.ports import MetadataStore

_PAGE = 256  # a read on the loop: others have their turn between two


def every_held(metadata: MetadataStore, after: str = "") -> Iterator[tuple[Digest, int]]:
    """Yield the digests that are held and their sizes, ascending, from past ``after``."""
    while page := metadata.held(after=after, limit=_PAGE):
        yield from page
        after = page[-1][0]
