"""Repository names and tags: parsed once at the edge, into types that can't be wrong."""

import re
from functools import lru_cache
from typing import Self

from cypd.oci.errors import Code, OCIError

# Spec, section Pulling manifests: <name> must match
# [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*
_COMPONENT = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
# Spec, same section: <reference> as a tag must match [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")

# The spec lets a registry bound host + name at 255; distribution and zot bound the name itself.
MAX_NAME_LENGTH = 255


class RepositoryName(str):
    """A repository's name, valid by construction."""

    __slots__ = ()

    @classmethod
    @lru_cache(maxsize=4096)
    def parse(cls, text: str) -> Self:
        """Return ``text`` as a name; raise NAME_INVALID where the grammar refuses it."""
        if len(text) > MAX_NAME_LENGTH or not _NAME.fullmatch(text):
            raise OCIError(Code.NAME_INVALID)
        return cls(text)

    @property
    def project(self) -> str:
        """The name of the project that the repository belongs to: its first component."""
        return str(self.partition("/")[0])  # else a name without "/" would be its own type


class Tag(str):
    """A tag, valid by construction."""

    __slots__ = ()

    @classmethod
    @lru_cache(maxsize=4096)
    def parse(cls, text: str) -> Self:
        """Return ``text`` as a tag; raise TAG_INVALID where the grammar refuses it."""
        if not _TAG.fullmatch(text):
            raise OCIError(Code.TAG_INVALID)
        return cls(text)
