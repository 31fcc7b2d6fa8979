"""What every answer is wrapped in, and the headers it carries."""

import re
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any, NamedTuple

import msgspec
from blacksheep import Content, Response, StreamedContent

from cypd.api.routes import Document, Stream
from cypd.audit.ports import SUCCESS
from cypd.refusals import Refusal

JSON = "application/json"
# What somebody named or described must never run in a browser.
POLICY = "default-src 'none'; frame-ancestors 'none'; sandbox"
_QUALITY = re.compile(r"q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)", re.ASCII)


class Envelope(NamedTuple):
    """How one request is answered."""

    trace_id: str
    english: bool
    always_200: bool

    def success(self, status: int, data: Any) -> Response:
        """Return the answer that carries what a handler returned."""
        if isinstance(data, Stream):
            document = Document(data.media_type, b"", POLICY)
            response = self._response(status, document, {})
            response.content = StreamedContent(data.media_type.encode(), _provider(data.pieces))
            return response
        if isinstance(data, Document):
            return self._response(status, data, {})
        return self._wrap(status, SUCCESS, "success", data, {})

    def refusal(self, refusal: Refusal) -> Response:
        """Return the answer to a request that was refused."""
        code = refusal.code
        errors = [error._asdict() for error in refusal.errors]
        data = {"errors": errors} if errors else None
        headers = dict(refusal.headers)
        if code.status == 401:  # RFC 9110 15.5.2; Basic would make browsers ask for a password
            headers["WWW-Authenticate"] = 'Bearer realm="cypd"'
        message = code.message(english=self.english)
        if refusal.advice:
            message += f"{': ' if self.english else '：'}{refusal.advice}"  # noqa: RUF001
        return self._wrap(code.status, code.number, message, data, headers)

    def _wrap(
        self, status: int, number: int, message: str, data: Any, headers: dict[str, str]
    ) -> Response:
        body = msgspec.json.encode(
            {
                "code": number,
                "message": message,
                "data": data,
                "timestamp": int(time.time()),
                "trace_id": self.trace_id,
            }
        )
        document = Document(JSON, body, POLICY)
        return self._response(200 if self.always_200 else status, document, headers)

    def _response(self, status: int, document: Document, headers: dict[str, str]) -> Response:
        fields = {
            "X-Request-ID": self.trace_id,
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Content-Security-Policy": document.policy,
            **headers,
        }
        return Response(
            status,
            [(name.lower().encode(), value.encode("latin-1")) for name, value in fields.items()],
            Content(document.media_type.encode(), document.body),
        )


def _provider(pieces: AsyncGenerator[bytes, None]) -> Callable[[], AsyncGenerator[bytes, None]]:
    async def provide() -> AsyncGenerator[bytes, None]:  # BlackSheep wants no less than this kind
        async for piece in pieces:
            yield piece

    return provide


def prefers_english(accept_language: bytes | None) -> bool:
    """Whether a header ``Accept-Language`` (RFC 9110 12.5.4) likes English better than Chinese."""
    wishes: list[tuple[float, str]] = []
    for item in (accept_language or b"").decode("latin-1").lower().split(","):
        tag, _, parameter = item.replace(" ", "").partition(";")
        language = tag.partition("-")[0]
        quality = _QUALITY.fullmatch(parameter or "q=1")
        if quality and language in {"en", "zh"}:
            wishes.append((float(quality[1]), language))
    # Of equals the first one is meant.
    weight, language = max(wishes, key=lambda wish: wish[0], default=(0.0, ""))
    return weight > 0 and language == "en"
