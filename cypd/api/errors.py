"""The refusals of the rules that the OCI API shares with this one, in this API's words."""

from cypd.oci import errors as oci
from cypd.refusals import Code, FieldError, Refusal

RETRY_SECONDS = "5"

_BY_CODE = {oci.Code.BLOB_UNKNOWN: Code.BLOB_NOT_FOUND}
_BY_STATUS = {
    400: Code.VALIDATION_FAILED,
    401: Code.TOKEN_INVALID,
    403: Code.ACCESS_DENIED,
    404: Code.IMAGE_NOT_FOUND,
    405: Code.NOT_IN_THIS_STATE,
    409: Code.NOT_IN_THIS_STATE,
    413: Code.BODY_TOO_LARGE,
    416: Code.VALIDATION_FAILED,
    429: Code.TOO_MANY_REQUESTS,
    503: Code.METADATA_UNAVAILABLE,
}
_FIELDS = {
    oci.Code.NAME_INVALID: "repository",
    oci.Code.TAG_INVALID: "tag",
    oci.Code.DIGEST_INVALID: "digest",
}


def translate(error: oci.OCIError) -> Refusal:
    """Return the refusal that says the same."""
    code = _BY_CODE.get(error.code) or _BY_STATUS.get(error.status, Code.INTERNAL)
    if error.code is oci.Code.DENIED and isinstance(error.detail, dict) and "quota" in error.detail:
        code = Code.QUOTA_EXCEEDED
    errors = []
    if code is Code.VALIDATION_FAILED:
        errors = [FieldError(_FIELDS.get(error.code, "request"), error.message)]
    headers = {name.decode(): value.decode() for name, value in error.headers.items()}
    if code is Code.METADATA_UNAVAILABLE:
        headers.setdefault("Retry-After", RETRY_SECONDS)
    return Refusal(code, errors=errors, headers=headers)
