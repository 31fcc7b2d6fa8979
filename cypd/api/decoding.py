"""From bytes to what a route declares; what does not fit is named by its path."""

import json
import re
from typing import Any, NoReturn, TypeVar
from urllib.parse import parse_qsl

import msgspec
import orjson

from cypd.api.routes import Input
from cypd.refusals import Code, invalid

_Input = TypeVar("_Input", bound=Input)

_WHERE = re.compile(r"(?P<message>.*?)(?: - at `(?:key in )?\$(?P<path>[^`]*)`)?", re.DOTALL)
_FIELD = re.compile(r"Object (?:missing required|contains unknown) field `(?P<name>.*)`", re.DOTALL)
_TYPE = re.compile(r"Expected `[^`]*`, got `[^`]*`")
_64_BITS = 1 << 63
_MAX_FIELD = 128


def parse_body(body: bytes, shape: type[_Input]) -> _Input:
    """Return the JSON object ``body`` as ``shape``; raise Refusal naming the field."""
    try:
        # orjson is strict (UTF-8, no lone surrogates, no NaN, bounded depth) but keeps the last
        # of two equal keys, where another reader may keep the first (RFC 8259 section 4).
        orjson.loads(body)
        document = json.loads(body, object_pairs_hook=_unique, parse_int=_whole)
    except (ValueError, RecursionError):
        raise invalid("body", "is not well-formed JSON", Code.INVALID_PARAMETER) from None
    if not isinstance(document, dict):
        raise invalid("body", "must be a JSON object", Code.WRONG_TYPE)
    return _convert(document, shape, strict=True)


def parse_query(query: bytes, shape: type[_Input]) -> _Input:
    """Return the query string as ``shape``; raise Refusal naming the parameter."""
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict")
    except ValueError:
        raise invalid("query", "is not well formed", Code.INVALID_PARAMETER) from None
    return _convert(_unique(pairs), shape, strict=False)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise invalid(name[:_MAX_FIELD], "is given twice", Code.INVALID_PARAMETER)
        found[name] = value
    return found


def _whole(digits: str) -> int:
    # No store and few clients know more than 64 bits.
    number = int(digits) if len(digits) < 32 else _64_BITS
    if not -_64_BITS <= number < _64_BITS:
        raise invalid("body", "has a number past 64 bits", Code.INVALID_PARAMETER)
    return number


def _convert(document: dict[str, Any], shape: type[_Input], *, strict: bool) -> _Input:
    try:
        return msgspec.convert(document, shape, strict=strict)
    except msgspec.ValidationError as error:
        _refuse(str(error))


def _refuse(text: str) -> NoReturn:
    """Raise what msgspec found, as ``message - at `$.path` ``, in this API's words."""
    match = _WHERE.fullmatch(text)
    message, path = (match["message"], match["path"] or "") if match else (text, "")
    if field := _FIELD.fullmatch(message):
        path = f"{path}.{field['name']}"
        unknown = "unknown" in message
        code = Code.INVALID_PARAMETER if unknown else Code.MISSING_PARAMETER
        message = "is unknown" if unknown else "is required"
    else:
        code = Code.WRONG_TYPE if _TYPE.fullmatch(message) else Code.VALIDATION_FAILED
        message = message[:1].lower() + message[1:]
    raise invalid(path.lstrip(".")[:_MAX_FIELD] or "body", message, code)
