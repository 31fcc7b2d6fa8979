"""Requests drawn from the API's grammar: mostly valid pieces, some of them mutated."""

import json
import random
from collections import deque
from typing import NamedTuple

from cypd.oci.digest import Digest
from tests.attacks.hostile import traversals
from tests.attacks.wire import AUTHORIZATION, chunked
from tests.samples import EMPTY, image, index

_NAMES = ["aa", "fuzz/one", "fuzz/two", "aa/blobs/uploads", "aa/manifests", "library/app"]
_TAGS = ["latest", "1.0", "v2", "A_b-c.d", "uploads", "list"]
_METHODS = ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"]
_ODD_METHODS = ["OPTIONS", "TRACE", "get", "CONNECT", "PROPFIND", "M-SEARCH", "FOO", "PRI", ""]
_QUERIES = ["digest", "mount", "from", "tag", "n", "last", "artifactType", "digest-algorithm", "x"]
_NUMBERS = ["0", "1", "-1", "+1", "1e9", "0x10", "4294967296", "9223372036854775808", "9" * 40, " "]
_ODD = [
    "", " ", "\t", ",", ";", "=", '"', "*", "%00", "%0d%0a", "%", "\xff", "\xe2\x82\xac", "..",
    "a" * 300, "9" * 5000, "null", "[]", "{}", "$(id)",
]  # fmt: skip
_FIELDS = [
    "Range", "If-Range", "If-None-Match", "Content-Range", "Content-Type", "Accept", "Expect",
    "X-Request-ID", "Connection", "Upgrade", "Transfer-Encoding", "Content-Length", "Host",
    "Authorization", "Content-Encoding", "X-Forwarded-Host", "Cookie", "Trailer", "Via",
]  # fmt: skip
_FITTING = {"GET": ["Range"], "PATCH": ["Content-Range"], "PUT": ["Content-Range", "Content-Type"]}
_FRAMING = {"Expect", "Connection", "Transfer-Encoding", "Content-Length", "Host"}
_VALUES = {
    "Range": ["bytes=0-0", "bytes=0-", "bytes=-1", "bytes=5-1", "bytes=0-1,1-2,9-", "lines=0-1"],
    "Content-Range": ["0-1", "0-65535", "1-0", "bytes 0-1/2", "9-10"],
    "Expect": ["100-continue", "100-Continue", "200-ok", "100-continue, 100-continue"],
    "Connection": ["close", "keep-alive", "upgrade", "close, keep-alive", "content-length"],
    "Transfer-Encoding": ["chunked", "gzip, chunked", "chunked, chunked", "identity", "xchunked"],
    "Content-Length": ["0", "1", "5", "+5", "5, 5", "1000000", "-1"],
    "Host": ["x", "", "a b", "a:b", "[::1]:80", "x\r\nX: y"],
    "Content-Type": ["application/vnd.oci.image.manifest.v1+json", "text/html; charset=x"],
    "X-Request-ID": ["abc", "a\x7fb", "a" * 100],
    "Authorization": ["Bearer x", "Basic", "Basic \xff", "Digest x", AUTHORIZATION.upper()],
}
_MANIFESTS = [image(), image(EMPTY), image(EMPTY, note="x"), index(image()), b"", b"{}", b"[", b"0"]


class Attempt(NamedTuple):
    """A request."""

    method: str
    data: bytes
    is_framed: bool
    """Exactly one answer is due; else it may be none, several, or one that the door refuses."""


class Grammar:
    """Draws requests; what the daemon handed out goes back in through ``learn``."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._hostile = traversals()
        self._sessions: deque[str] = deque(maxlen=20)
        self._contents = [EMPTY, image(), *(self._random.randbytes(n) for n in (0, 1, 70_000))]

    def learn(self, location: str) -> None:
        """Take note of an upload session."""
        if "/blobs/uploads/" in location:
            self._sessions.append(location)

    def draw(self) -> Attempt:
        """Return the next request."""
        draw = self._random
        method = draw.choice(_ODD_METHODS if self._rarely(0.02) else _METHODS)
        target, body = self._pieces(method)
        if self._rarely(0.3):
            target = self._with_query(target)
        fields = [("Host", "registry"), ("Authorization", AUTHORIZATION)]
        is_framed = method in _METHODS and _is_plain(target)
        if self._rarely(0.05):
            fields.pop()
        if body is not None and self._rarely(0.2):
            fields.append(("Transfer-Encoding", "chunked"))
            body = chunked(body, draw.choice([1000, 65536]))
        elif body is not None:
            fields.append(("Content-Length", str(len(body))))
        while self._rarely(0.35):
            name = draw.choice(_FIELDS if self._rarely(0.6) else _FITTING.get(method, _FIELDS))
            fields.append((name, self._value(name)))
            is_framed = is_framed and name not in _FRAMING
        data = _bytes(method, target, fields, body or b"")
        if self._rarely(0.03):
            data, is_framed = self._mutated(data), False
        return Attempt(method, data, is_framed)

    def _rarely(self, chance: float) -> bool:
        return self._random.random() < chance

    def _pieces(self, method: str) -> tuple[str, bytes | None]:
        """Return a target and a body that often fit the method."""
        kinds = ["manifests", "blobs", "uploads", "session", "tags", "referrers", "catalog", "odd"]
        weights = {
            "GET": [6, 6, 0, 3, 3, 3, 2, 1],
            "HEAD": [6, 6, 0, 3, 3, 3, 2, 1],
            "PUT": [6, 0, 0, 6, 0, 0, 0, 1],
            "POST": [0, 0, 9, 1, 0, 0, 0, 1],
            "PATCH": [0, 0, 0, 9, 0, 0, 0, 1],
            "DELETE": [2, 2, 0, 9, 0, 0, 0, 1],
        }.get(method, [1] * 8)
        kind = self._random.choices(kinds, weights)[0]
        content = self._random.choice(self._contents)
        name, digest = self._word(_NAMES), self._digest(content)
        body = content if method in ("PUT", "POST", "PATCH") else None
        if kind == "manifests":
            body = self._document() if body is not None else None
            return f"/v2/{name}/manifests/{self._word([*_TAGS, digest])}", body
        if kind == "uploads":
            return self._start(name, digest), body
        if kind == "session":
            path = self._session(name)
            return f"{path}?digest={digest}" if method == "PUT" else path, body
        return {
            "blobs": f"/v2/{name}/blobs/{digest}",
            "tags": f"/v2/{name}/tags/list",
            "referrers": f"/v2/{name}/referrers/{digest}",
            "catalog": "/v2/_catalog",
            "odd": self._random.choice(["/", "/v2", "/v2/", "*", "//v2//", "/v2/%2e%2e/", "x"]),
        }[kind], body

    def _start(self, name: str, digest: str) -> str:
        query = self._random.choice(["", f"?digest={digest}", f"?mount={digest}&from={name}"])
        return f"/v2/{name}/blobs/uploads/{query}"

    def _session(self, name: str) -> str:
        if self._sessions and not self._rarely(0.1):
            return self._random.choice(self._sessions)
        return f"/v2/{name}/blobs/uploads/{self._word(['', 'x'])}"

    def _word(self, words: list[str]) -> str:
        if self._rarely(0.03):
            return self._random.choice(self._hostile)
        return self._random.choice(_ODD) if self._rarely(0.02) else self._random.choice(words)

    def _digest(self, content: bytes) -> str:
        algorithm: list[Digest] = [Digest.of(content), Digest.of(content, "sha512")]
        digest = str(self._random.choices(algorithm, [9, 1])[0])
        if self._rarely(0.05):
            at = self._random.randrange(len(digest))
            digest = digest[:at] + self._random.choice("0gZ:/%") + digest[at + 1 :]
        return self._word([digest])

    def _with_query(self, target: str) -> str:
        name = self._random.choice(_QUERIES)
        values = [*_NUMBERS, *_TAGS, *_NAMES, self._digest(EMPTY), "sha512", "md5"]
        joint = "&" if "?" in target else "?"
        return f"{target}{joint}{name}={self._word(values)}"

    def _value(self, name: str) -> str:
        draw = self._random
        if self._rarely(0.2):
            return draw.choice([*_ODD, *_NUMBERS])
        return draw.choice(_VALUES.get(name, ["x", "*/*", f'"{self._digest(EMPTY)}"']))

    def _document(self) -> bytes:
        document = self._random.choice(_MANIFESTS)
        if not document or self._rarely(0.5):
            return document
        if self._rarely(0.5):
            return self._mutated(document)
        try:
            tree = json.loads(document)
        except ValueError:
            return document
        if isinstance(tree, dict) and tree:
            odd: list[object] = [None, [], {}, "", -1, 1e300, 2**70, "\ud800", True, [[]], {"": ""}]
            tree[self._random.choice([*tree, "subject", "layers"])] = self._random.choice(odd)
        return json.dumps(tree).encode()

    def _mutated(self, data: bytes) -> bytes:
        draw, changed = self._random, bytearray(data)
        for _ in range(draw.randint(1, 4)):
            at = draw.randrange(len(changed) + 1)
            action = draw.randrange(4)
            if action == 0:
                del changed[at : at + draw.randint(1, 8)]
            elif action == 1:
                changed[at:at] = draw.choice([b"\r\n", b"\n", b"\0", b" ", b"\xff", b":", b"\t"])
            elif action == 2:
                changed[at:at] = changed[at : at + draw.randint(1, 50)]
            else:
                changed[at : at + 1] = draw.randbytes(1)
        return bytes(changed)


def _is_plain(target: str) -> bool:
    return target.startswith("/") and len(target) < 4000 and all("!" <= it <= "~" for it in target)


def _bytes(method: str, target: str, fields: list[tuple[str, str]], body: bytes) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
    return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + body
