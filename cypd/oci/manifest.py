"""Manifests: what a document references, and whether it is one meaning only.

A registry reads a manifest to know what it references; clients read it to run it. An attack lives
where the two would read it differently (CVE-2021-41190), so a document that could be read in two
ways is refused: a second key of the same name or of another case (also inside a descriptor: to Go,
``URLs`` are ``urls``), ``layers`` beside ``manifests``, a ``mediaType`` other than the
``Content-Type``.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Annotated

import msgspec

from cypd.oci import media_types
from cypd.oci.digest import Digest
from cypd.oci.errors import Code, OCIError

# Spec, section Pushing Manifests: a registry should accept at least 4 megabytes.
MAX_MANIFEST_BYTES = 4 << 20
# Real manifests nest 6 deep (annotations of a descriptor's platform); parsers recurse.
MAX_DEPTH = 32
# Brackets, commas and strings. A descriptor has one in 12 bytes; documents of nothing but tiny
# elements would take twenty times their size in memory, and seconds to read.
MAX_TOKENS = MAX_MANIFEST_BYTES // 10
# Annotations are the one object with names of the pusher's choice; real ones have dozens.
MAX_NAMES = 4096
ENDS_WITH_SUBJECT = "cypd.ends-with-subject"
"""An annotation: a referrer that says ``true`` here goes when its subject does."""
# Docker's official images have a dozen; what an index claims beyond that is not listed.
MAX_PLATFORMS = 64
_PLATFORM_PART = re.compile(r"[A-Za-z0-9._-]{1,32}", re.ASCII)

_FIELDS = {
    "schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "blobs",
    "subject", "annotations",
}  # fmt: skip
_DESCRIPTOR_FIELDS = {
    "mediaType", "digest", "size", "urls", "annotations", "data", "artifactType", "platform",
}  # fmt: skip
_FOLDED = {name.casefold(): name for name in _FIELDS}
_DESCRIPTOR_FOLDED = {name.casefold(): name for name in _DESCRIPTOR_FIELDS}


class _Platform(msgspec.Struct, frozen=True):
    os: str = ""
    architecture: str = ""
    variant: str = ""


class Descriptor(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """image-spec descriptor.md, as far as a registry needs it."""

    media_type: str
    digest: str
    size: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
    urls: list[str] | None = None
    artifact_type: str | None = None
    annotations: dict[str, str] | None = None
    platform: _Platform | None = None


class _Document(msgspec.Struct, frozen=True, rename="camel"):
    schema_version: int = 0
    media_type: str | None = None
    artifact_type: str | None = None
    config: Descriptor | None = None
    layers: list[Descriptor] | None = None
    manifests: list[Descriptor] | None = None
    blobs: list[Descriptor] | None = None
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None


class Manifest(msgspec.Struct, frozen=True):
    """A parsed manifest with the bytes it was parsed from."""

    digest: Digest
    media_type: str
    content: bytes
    artifact_type: str | None
    annotations: dict[str, str] | None
    config: Digest | None
    """An image's; its platform stands there."""
    platforms: tuple[str, ...]
    """Those that an index has images for, as ``os/architecture`` or with ``/variant``."""
    blobs: tuple[Digest, ...]
    """The config and the layers that the repository has to hold."""
    manifests: tuple[Digest, ...]
    """The children of an index."""
    subject: Digest | None
    urls: tuple[str, ...]
    """Where the document says that content can be had elsewhere."""

    def descriptor(self) -> Descriptor:
        """Return how a referrers list names this manifest (spec, section Listing Referrers)."""
        return Descriptor(
            media_type=self.media_type,
            digest=str(self.digest),
            size=len(self.content),
            artifact_type=self.artifact_type,
            annotations=self.annotations,
        )


def parse(content: bytes, content_type: str, digest: Digest) -> Manifest:
    """Return the manifest that ``content`` is.

    ``content_type`` is the request's, ``""`` where it has none. Raises MANIFEST_INVALID where the
    document is not a manifest of that type, or not of one meaning.
    """
    _require_one_meaning(content)
    try:
        document = _decoder.decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _invalid(str(error)) from None
    media_type = _media_type(document, media_types.essence(content_type))
    _require_shape(document, media_type)
    required, urls = _blobs(document)
    return Manifest(
        digest=digest,
        media_type=media_type,
        content=content,
        artifact_type=document.artifact_type or _config_type(document, media_type),
        annotations=document.annotations,
        config=_digest(document.config) if document.config else None,
        platforms=_platforms(document.manifests or ()),
        blobs=required,
        manifests=tuple(_digest(child) for child in document.manifests or ()),
        subject=_digest(document.subject) if document.subject else None,
        urls=urls,
    )


def ends_with_subject(descriptor: bytes) -> bool:
    """Tell whether a descriptor (JSON), as a referrers list has it, bears that annotation."""
    if ENDS_WITH_SUBJECT.encode() not in descriptor:
        return False
    annotations = msgspec.json.decode(descriptor, type=Descriptor).annotations or {}
    return annotations.get(ENDS_WITH_SUBJECT) == "true"


def platform_of(config: bytes) -> str | None:
    """Return the platform that an image's config names, if it is one that names any."""
    try:
        return _named(_config_decoder.decode(config))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


_decoder = msgspec.json.Decoder(_Document)
_config_decoder = msgspec.json.Decoder(_Platform)


def _platforms(children: Iterable[Descriptor]) -> tuple[str, ...]:
    named = (_named(child.platform) for child in children if child.platform)
    return tuple(sorted({it for it in named if it})[:MAX_PLATFORMS])


def _named(platform: _Platform) -> str | None:
    """Return a platform in one word; BuildKit's attestations are for ``unknown/unknown``."""
    parts = [platform.os, platform.architecture]
    if platform.variant:
        parts.append(platform.variant)
    is_known = "unknown" not in parts and all(map(_PLATFORM_PART.fullmatch, parts))
    return "/".join(parts) if is_known else None


def _invalid(message: str) -> OCIError:
    return OCIError(Code.MANIFEST_INVALID, f"manifest invalid: {message}")


def _media_type(document: _Document, content_type: str) -> str:
    declared = document.media_type
    if declared and content_type and declared != content_type:
        raise _invalid(f"mediaType is {declared}, but Content-Type is {content_type}")
    media_type = content_type or declared or ""
    if media_type not in media_types.MANIFESTS:
        known = ", ".join(sorted(media_types.MANIFESTS))
        raise _invalid(f"media type {media_type or '(none)'} is none of {known}")
    return media_type


def _require_shape(document: _Document, media_type: str) -> None:
    # image-spec manifest.md and image-index.md: which property makes a document what it claims
    # to be, and which would make it something else as well.
    is_image = document.config is not None and document.layers is not None
    if media_type == media_types.OCI_ARTIFACT:
        if document.manifests is not None or document.layers is not None:
            raise _invalid("an artifact manifest has neither layers nor manifests")
        return
    if document.schema_version != 2:
        raise _invalid("schemaVersion must be 2")
    if document.blobs is not None:
        raise _invalid("blobs belongs to artifact manifests only")
    if media_type in media_types.INDEXES:
        if document.manifests is None or document.layers is not None or document.config is not None:
            raise _invalid("an index has manifests, and neither config nor layers")
    elif not is_image or document.manifests is not None:
        raise _invalid("an image manifest has config and layers, and no manifests")


def _config_type(document: _Document, media_type: str) -> str | None:
    # Spec, section Listing Referrers: without artifactType, the config's media type stands in.
    if document.config is not None and media_type == media_types.OCI_MANIFEST:
        return document.config.media_type
    return None


def _blobs(document: _Document) -> tuple[tuple[Digest, ...], tuple[str, ...]]:
    """Return the blobs that must be here, and the addresses of those that may be elsewhere."""
    described = [*(document.layers or ()), *(document.blobs or ())]
    if document.config is not None:
        described.append(document.config)
    # image-spec layer.md, Non-Distributable Layers: content with urls need not be pushed.
    required = tuple(_digest(blob) for blob in described if not blob.urls)
    children = [*described, *(document.manifests or ())]
    return required, tuple(url for blob in children for url in blob.urls or ())


def _digest(descriptor: Descriptor) -> Digest:
    try:
        return Digest.parse(descriptor.digest)
    except OCIError as error:
        raise _invalid(error.message) from None


# RFC 8259 tokens that matter for nesting and names; everything between them is skipped.
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"|[{}\[\],]', re.DOTALL)


def _require_one_meaning(content: bytes) -> None:
    """Refuse duplicate keys, look-alikes of the known fields, and deep nesting, in little memory.

    A parser would build the whole tree to tell; this walks the tokens with one set of names for
    each object that is open.
    """
    open_objects: list[set[bytes] | None] = []
    expects_name = False
    section = ""  # the top-level name whose value is being read
    for token in _tokens(content):
        if token == b"{":
            open_objects.append(set())
        elif token == b"[":
            open_objects.append(None)
        elif token in (b"}", b"]"):
            if open_objects:
                open_objects.pop()
        elif token != b"," and expects_name:
            section = _take_name(token, open_objects, section)
        if len(open_objects) > MAX_DEPTH:
            raise _invalid(f"nested more than {MAX_DEPTH} deep")
        expects_name = token in (b"{", b",") and bool(open_objects and open_objects[-1] is not None)


def _tokens(content: bytes) -> Iterator[bytes]:
    for count, match in enumerate(_TOKEN.finditer(content)):
        if count == MAX_TOKENS:
            raise _invalid(f"more than {MAX_TOKENS} brackets, commas and strings")
        yield match[0]


def _take_name(token: bytes, open_objects: list[set[bytes] | None], section: str) -> str:
    """Check a name of the innermost object; return the top-level name that is being read."""
    if b"\\" in token:  # an escape can spell any name a second time
        try:
            token = msgspec.json.encode(msgspec.json.decode(token, type=str))
        except (msgspec.MsgspecError, UnicodeError) as error:
            raise _invalid(str(error)) from None
    names = open_objects[-1]
    if names is not None:
        if token in names:
            raise _invalid(f"the name {token.decode(errors='replace')} stands twice in one object")
        names.add(token)
        if len(names) > MAX_NAMES:
            raise _invalid(f"more than {MAX_NAMES} names in one object")
    if len(open_objects) == 1:
        return _exact(token, _FOLDED)
    if _is_descriptor(section, open_objects):
        _exact(token, _DESCRIPTOR_FOLDED)
    return section


def _is_descriptor(section: str, open_objects: list[set[bytes] | None]) -> bool:
    if section in ("config", "subject"):
        return len(open_objects) == 2
    in_list = len(open_objects) == 3 and open_objects[1] is None
    return in_list and section in ("layers", "manifests", "blobs")


def _exact(token: bytes, folded: dict[str, str]) -> str:
    # Go's encoding/json matches names by Unicode's simple folding: to it, "Layers" is "layers", and
    # a long s (U+017F) is an s.
    name = token[1:-1].decode(errors="replace")
    canonical = folded.get(name.casefold())
    if canonical is not None and name != canonical:
        raise _invalid(f"{name} is not {canonical}")
    return name
