"""Errors as the specification words them; raised where found, answered in one place."""

from collections.abc import Mapping
from enum import Enum
from typing import Any

import orjson


class Code(Enum):
    """An error code with its usual HTTP status and message (spec, section Error Codes)."""

    BLOB_UNKNOWN = 404, "blob unknown to the repository"
    BLOB_UPLOAD_INVALID = 400, "blob upload invalid"
    BLOB_UPLOAD_UNKNOWN = 404, "blob upload unknown to the registry"
    DIGEST_INVALID = 400, "digest does not match the content, or is not well formed"
    MANIFEST_BLOB_UNKNOWN = 404, "manifest references content unknown to the repository"
    MANIFEST_INVALID = 400, "manifest invalid"
    MANIFEST_UNKNOWN = 404, "manifest unknown to the repository"
    NAME_INVALID = 400, "invalid repository name"
    NAME_UNKNOWN = 404, "repository name not known to the registry"
    PAGINATION_NUMBER_INVALID = 400, "n must be a whole number, 0 or more"
    RANGE_INVALID = 416, "range does not fit the content"
    SIZE_INVALID = 400, "length does not match the content"
    TAG_INVALID = 400, "invalid tag"
    UNAUTHORIZED = 401, "authentication required"
    DENIED = 403, "access to the resource is denied"
    UNSUPPORTED = 405, "the operation is not supported"
    TOOMANYREQUESTS = 429, "too many requests"
    UNKNOWN = 500, "internal error"
    UNAVAILABLE = 503, "the registry can't do this now, try again"

    @property
    def status(self) -> int:
        """The HTTP status this code is usually answered with."""
        return self.value[0]

    @property
    def message(self) -> str:
        """What the code means, for a person."""
        return self.value[1]


class OCIError(Exception):
    """A request that is refused: the answer the client shall get.

    ``status`` overrides the code's usual one; ``headers`` are added to the answer.
    """

    def __init__(
        self,
        code: Code,
        message: str | None = None,
        *,
        detail: Any = None,
        status: int | None = None,
        headers: Mapping[bytes, bytes] | None = None,
    ) -> None:
        super().__init__(message or code.message)
        self.code = code
        self.message = message or code.message
        self.detail = detail
        self.status = status or code.status
        self.headers = dict(headers or {})

    def body(self) -> bytes:
        """Return the JSON document ``{"errors": [{code, message, detail}]}``."""
        error = {"code": self.code.name, "message": self.message, "detail": self.detail}
        return orjson.dumps({"errors": [error]})
