"""Images, as opposed to all else that manifests describe: charts, signatures, SBOMs.

An image is what runtimes take for one: by the types of its config and layers, whatever else its
manifest says that it is (``artifactType``).
"""

from typing import NamedTuple

import msgspec

from cypd.oci.manifest import Descriptor

_CONFIGS = {
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
}
# Docker runs what has these, too: distribution once left the right one out (its issue 1621).
_TAKEN_FOR_CONFIGS = {"application/octet-stream", "application/json", "text/html", ""}
# Also what must not be distributed (".nondistributable.", ".foreign."), and encrypted layers.
_LAYERS = (
    "application/vnd.oci.image.layer.",
    "application/vnd.docker.image.rootfs.",
    "application/vnd.docker.container.image.rootfs.",
)


class ImageContent(NamedTuple):
    """What a manifest or an index lists."""

    is_image: bool
    """It is an image's, or an index of images."""
    kind: str
    """What it is, for people: a media type that names it."""
    config: Descriptor | None
    layers: tuple[Descriptor, ...]
    """The bottom one first."""
    manifests: tuple[Descriptor, ...]
    """Those of an index."""


class _Document(msgspec.Struct, frozen=True, rename="camel"):
    artifact_type: str | None = None
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()
    manifests: tuple[Descriptor, ...] | None = None


_decode = msgspec.json.Decoder(_Document).decode


def read(content: bytes) -> ImageContent:
    """Return what the content of a manifest that was pushed lists."""
    document = _decode(content)
    config = document.config
    children = document.manifests
    config_type = config.media_type if config else None
    has_files = any(it.media_type.startswith(_LAYERS) for it in document.layers)
    is_image = (
        children is not None
        or (config_type in _CONFIGS and (has_files or not document.layers))
        or (config_type in _TAKEN_FOR_CONFIGS and has_files)
    )
    layer = document.layers[0].media_type if document.layers else ""
    named = None if config_type in _CONFIGS else config_type
    return ImageContent(
        is_image=is_image,
        kind=document.artifact_type or named or layer,
        config=config,
        layers=document.layers,
        manifests=children or (),
    )
