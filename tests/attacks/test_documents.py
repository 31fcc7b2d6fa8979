"""Documents that are no manifest, more than one, or too much: refused, in little memory."""

import json
from collections.abc import Callable, Iterator

import pytest

from cypd.oci.digest import Digest
from cypd.oci.media_types import DOCKER_LIST, OCI_INDEX, OCI_MANIFEST
from tests.attacks.content import new_repository, push_blob
from tests.attacks.watch import MIB, anonymous_memory, complaints, processor_seconds
from tests.attacks.wire import Answer, Wire, ask, chunked, request
from tests.daemon import Daemon
from tests.samples import EMPTY, image, index

_GOOD = image(EMPTY)
_LIMIT = 4 * MIB


@pytest.fixture(scope="module")
def fed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that has seen large manifests before, so that its allocator has settled."""
    with Daemon(tmp_path_factory.mktemp("fed")) as daemon:
        push_blob(daemon, "fed", EMPTY)
        for _ in range(3):
            padded = _GOOD + b" " * (_LIMIT - len(_GOOD))
            assert _put(daemon, padded).status == 201
        yield daemon
        assert complaints(daemon) == []


def _put(daemon: Daemon, document: bytes, content_type: str = "") -> Answer:
    fields = [("Content-Type", content_type)] if content_type else []
    return ask(daemon.port, "PUT", "/v2/fed/manifests/fed", document, fields)


def _with(**fields: object) -> bytes:
    return json.dumps(json.loads(_GOOD) | fields).encode()


_AMBIGUOUS = {
    "layers and manifests": _with(manifests=[]),
    "an index with layers": index(_GOOD)[:-1] + b', "layers": []}',
    "duplicate": _GOOD[:-1] + b', "layers": []}',
    "duplicate by escape": _GOOD[:-1] + b', "l\\u0061yers": []}',
    "duplicate deep inside": _GOOD.replace(b'"size":', b'"size": 2, "size":'),
    "Layers": _GOOD[:-1] + b', "Layers": []}',
    "LAYERS alone": _GOOD.replace(b'"layers"', b'"LAYERS"'),
    "MANIFESTS": _with(MANIFESTS=[]),
    "layers with a long s": _GOOD[:-1] + ', "layer\u017f": []}'.encode(),  # Go folds it to an s
    "an escaped long s": _GOOD[:-1] + b', "layer\\u017f": []}',
    "URLs in a layer": _GOOD.replace(b'"size"', b'"URLs": ["http://127.0.0.1/"], "size"'),
    "URLS in a config": image().replace(b'"size"', b'"URLS": ["http://127.0.0.1/"], "size"'),
    "two digests by case": _GOOD.replace(b'"size"', b'"Digest": "sha256:0", "size"'),
    "Size in a subject": image(EMPTY, subject=Digest.of(EMPTY)).replace(b'"size": 1', b'"Size": 1'),
    "Platform of a child": index(_GOOD).replace(b'"size"', b'"Platform": {}, "size"'),
    "BOM": b"\xef\xbb\xbf" + _GOOD,
    "UTF-16": b"\xff\xfe" + _GOOD.decode().encode("utf-16-le"),
    "trailing object": _GOOD + b"{}",
    "trailing NUL": _GOOD + b"\0",
    "leading NUL": b"\0" + _GOOD,
    "trailing comma": _GOOD[:-1] + b",}",
    "comment": _GOOD[:-1] + b"/* */}",
    "cut": _GOOD[:-1],
    "array": b"[" + _GOOD + b"]",
    "string": json.dumps(_GOOD.decode()).encode(),
    "NaN": _with(schemaVersion=float("nan")),
    "1e400 as a size": _GOOD.replace(b'"size": 2', b'"size": 1e400'),
    "a size of -1": _GOOD.replace(b'"size": 2', b'"size": -1'),
    "a size in words": _GOOD.replace(b'"size": 2', b'"size": "2"'),
    "a size of 2^70": _GOOD.replace(b'"size": 2', b'"size": %d' % 2**70),
    "a lone surrogate": _with(annotations={"a": "\ud800"}),
    "a lone surrogate as a name": _with(annotations={"\udfff": "a"}),
    "bytes that are no text": _with(annotations={"a": "@"}).replace(b"@", b"\xff"),
    "overlong UTF-8": _with(annotations={"a": "@"}).replace(b"@", b"\xc0\xaf"),
    "a raw line feed": _with(annotations={"a": "@"}).replace(b"@", b"\n"),
    "annotations of numbers": _with(annotations={"a": 1}),
    "schemaVersion 1": _with(schemaVersion=1),
    "another type": _with(mediaType="application/json"),
    "no type": b"{}",
    "nothing": b"",
    "HTML": b"<script>alert(1)</script>",
}


@pytest.mark.parametrize("name", _AMBIGUOUS)
def test_a_document_has_one_meaning(daemon: Daemon, name: str) -> None:
    """What two readers could read differently is 400, under a tag as under its digest."""
    repository = new_repository()
    push_blob(daemon, repository, EMPTY)
    document = _AMBIGUOUS[name]
    for reference in ("tag", Digest.of(document)):
        target = f"/v2/{repository}/manifests/{reference}"

        assert ask(daemon.port, "PUT", target, document).status == 400
        assert ask(daemon.port, "GET", target).status == 404


@pytest.mark.parametrize(
    "content_type",
    [
        OCI_INDEX,
        DOCKER_LIST,
        "text/html",
        "application/json",
        "*/*",
        f"{OCI_MANIFEST}, {OCI_INDEX}",
    ],
)
def test_the_type_is_what_the_document_says(daemon: Daemon, content_type: str) -> None:
    """A Content-Type other than the mediaType inside is 400 (CVE-2021-41190)."""
    repository = new_repository()
    push_blob(daemon, repository, EMPTY)
    fields = [("Content-Type", content_type)]

    assert ask(daemon.port, "PUT", f"/v2/{repository}/manifests/x", _GOOD, fields).status == 400


@pytest.mark.parametrize(
    "document",
    [
        b" \r\n\t" + _GOOD + b"\n\n",
        _with(unknown=[{"Size": 1}], annotations={"Layers": "x", "URLs": "y", "urls": "z"}),
        _GOOD.replace(b'"size"', b'"annotations": {"Digest": "x"}, "Unknown": [], "size"'),
        _with(annotations={"\u2028": "\U0001f600", "": "</script><script>"}),
        _GOOD[:-1] + b', "unknown": 1e400}',
    ],
)
def test_what_was_stored_is_what_is_served(daemon: Daemon, document: bytes) -> None:
    """A document that is accepted comes back byte for byte, by tag and by digest."""
    repository = new_repository()
    push_blob(daemon, repository, EMPTY)
    target = f"/v2/{repository}/manifests/x"
    assert ask(daemon.port, "PUT", target, document).status == 201

    assert ask(daemon.port, "GET", target).body == document
    by_digest = ask(daemon.port, "GET", f"/v2/{repository}/manifests/{Digest.of(document)}")
    assert by_digest.body == document


def _filled(start: bytes, piece: bytes, end: bytes) -> bytes:
    """Return a document of many pieces, as long as one may be."""
    count = (_LIMIT - len(start) - len(end)) // (len(piece) + 1)
    return start + b",".join([piece] * count) + end


_HEAD = _GOOD[:-1]
_DESCRIPTOR = b'{"mediaType":"","digest":"","size":0}'
_LARGE: dict[str, Callable[[], bytes]] = {
    "arrays 100,000 deep": lambda: b"[" * 100_000,
    "arrays 2,000,000 deep": lambda: b"[" * (_LIMIT // 2) + b"]" * (_LIMIT // 2),
    "objects 100,000 deep": lambda: b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "an annotation 100,000 deep": lambda: _HEAD + b',"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "1,000,000 numbers": lambda: _filled(_HEAD + b',"x":[', b"1", b"]}"),
    "1,000,000 layers that are none": lambda: b'{"layers":[' + b"0," * 1_000_000 + b"0]}",
    "lists": lambda: _filled(_HEAD + b',"x":[', b"[]", b"]}"),
    "objects": lambda: _filled(_HEAD + b',"x":[', b"{}", b"]}"),
    "layers": lambda: _filled(b'{"schemaVersion":2,"layers":[', _DESCRIPTOR, b"]}"),
    "urls": lambda: _filled(_HEAD + b',"subject":{"urls":[', b'"a"', b"]}}"),
    "names": lambda: (
        _HEAD + b',"x":{' + b",".join(b'"%x":0' % number for number in range(380_000)) + b"}}"
    ),
    "a name of 4 MiB": lambda: _HEAD + b',"' + b"a" * (_LIMIT - 1000) + b'":0}',
    "a name of escapes": lambda: _HEAD + b',"' + b"\\u0061" * (_LIMIT // 6 - 100) + b'":0}',
    "a string without an end": lambda: _HEAD + b',"' + b"\\\\" * (_LIMIT // 2 - 500),
    "quotes": lambda: b'"' * _LIMIT,
    "commas": lambda: b"{" + b"," * (_LIMIT - 1),
    "a number of 4 MiB": lambda: b"1" * _LIMIT,
    "digits in a size": lambda: _HEAD + b',"x":' + b"9" * (_LIMIT - 1000) + b"}",
    "white space": lambda: b" " * _LIMIT,
    "4 MiB and a byte": lambda: b" " * (_LIMIT + 1),
    "8 MiB": lambda: b"[" * (2 * _LIMIT),
}


@pytest.mark.parametrize("name", _LARGE)
def test_large_documents_take_little_memory(fed: Daemon, name: str) -> None:
    """Each is answered by 201, 400 or 413, keeps 24 MiB at most, and others are served after."""
    document = _LARGE[name]()
    before = anonymous_memory(fed)
    answer = _put(fed, document)
    grown = anonymous_memory(fed) - before

    assert answer.status in {201, 400, 413}
    assert grown <= 6 * _LIMIT, f"{grown / MIB:.1f} MiB"
    assert fed.request("GET", "/v2/").status == 200


@pytest.mark.parametrize("excess", [1, 100_000, 4 * MIB])
def test_a_length_too_much_is_413(fed: Daemon, excess: int) -> None:
    """Told in Content-Length or not, past 4 MiB it is 413, and not a byte of it is stored."""
    document = _GOOD + b" " * (_LIMIT + excess - len(_GOOD))
    coded = request(
        "PUT", "/v2/fed/manifests/x", chunked(document), [("Transfer-Encoding", "chunked")]
    )
    told = request("PUT", "/v2/fed/manifests/x", document)
    alone = request(  # nothing of the body has to come for it
        "PUT", "/v2/fed/manifests/x", b"", [("Content-Length", str(len(document)))]
    )
    for raw in (coded, told, alone):
        with Wire(fed.port) as wire:
            wire.send_meanwhile(raw)
            assert wire.answer().status == 413
    digest = Digest.of(document)
    assert ask(fed.port, "GET", f"/v2/fed/manifests/{digest}").status == 404


def test_a_chain_of_indexes_is_walked_by_nobody(fed: Daemon) -> None:
    """An index in an index, 100 deep: no push, pull or delete is a second of work."""
    assert _timed(fed, "PUT", "/v2/fed/manifests/chain", _GOOD) == 201
    chain = [_GOOD]
    for _ in range(100):
        chain.append(index(chain[-1]).replace(OCI_MANIFEST.encode(), OCI_INDEX.encode()))
        assert _timed(fed, "PUT", "/v2/fed/manifests/chain", chain[-1]) == 201
    top = f"/v2/fed/manifests/{Digest.of(chain[-1])}"

    assert _timed(fed, "GET", top) == 200
    for document in chain[:-1]:
        assert _timed(fed, "DELETE", f"/v2/fed/manifests/{Digest.of(document)}") == 405
    for document in reversed(chain[1:]):
        assert _timed(fed, "DELETE", f"/v2/fed/manifests/{Digest.of(document)}") == 202


def test_subjects_may_be_anything_but_followed(fed: Daemon) -> None:
    """Subjects in a chain, of nothing, and of the blob beside them: each is one row, no walk."""
    subject = Digest.of(b"nothing has this digest")
    for _ in range(50):
        document = image(EMPTY, subject=subject)
        assert _timed(fed, "PUT", "/v2/fed/manifests/subjects", document) == 201
        subject = Digest.of(document)
    beside = image(EMPTY, subject=Digest.of(EMPTY))
    assert _timed(fed, "PUT", "/v2/fed/manifests/subjects", beside) == 201
    listed = ask(fed.port, "GET", f"/v2/fed/referrers/{Digest.of(EMPTY)}")

    assert [it["digest"] for it in json.loads(listed.body)["manifests"]] == [Digest.of(beside)]


def test_one_child_a_hundred_thousand_times(fed: Daemon) -> None:
    """An index may repeat itself; it costs no more than its bytes."""
    assert _timed(fed, "PUT", "/v2/fed/manifests/child", _GOOD) == 201
    child = b'{"mediaType":"","digest":"%b","size":0}' % Digest.of(_GOOD).encode()
    start = b'{"schemaVersion":2,"mediaType":"%b","manifests":[' % OCI_INDEX.encode()
    document = _filled(start, child, b"]}")
    before = anonymous_memory(fed)
    status = _timed(fed, "PUT", "/v2/fed/manifests/many", document)

    assert status == 201
    assert anonymous_memory(fed) - before <= 6 * _LIMIT
    assert _timed(fed, "DELETE", f"/v2/fed/manifests/{Digest.of(document)}") == 202


def _timed(daemon: Daemon, method: str, target: str, body: bytes | None = None) -> int:
    before = processor_seconds(daemon)
    status = ask(daemon.port, method, target, body).status

    assert processor_seconds(daemon) - before < 1
    return status


def test_what_was_pushed_is_never_a_page(daemon: Daemon) -> None:
    """HTML and scripts in blobs and annotations come back inert (Harbor CVE-2025-32019)."""
    repository = new_repository()
    page = b"<!doctype html><script>alert(document.domain)</script>"
    subject = Digest.of(b"a subject")
    document = image(EMPTY, page, subject=subject, note=page.decode(), artifact_type="text/html")
    push_blob(daemon, repository, EMPTY)
    blob = push_blob(daemon, repository, page)
    assert ask(daemon.port, "PUT", f"/v2/{repository}/manifests/x", document).status == 201
    types = {
        f"/v2/{repository}/blobs/{blob}": "application/octet-stream",
        f"/v2/{repository}/manifests/x": OCI_MANIFEST,
        f"/v2/{repository}/referrers/{subject}": OCI_INDEX,
        f"/v2/{repository}/referrers/{subject}?artifactType=text/html": OCI_INDEX,
        f"/v2/{repository}/tags/list": "application/json",
        f"/v2/{repository}/manifests/%3Cscript%3E": "application/json",
        "/v2/%3Cscript%3E/tags/list": "application/json",
        "/%3Cscript%3E": "text/plain",
    }
    for target, media_type in types.items():
        answer = ask(daemon.port, "GET", target, fields=[("Accept", "text/html")])

        assert answer.headers["content-type"].partition(";")[0] == media_type
        if target.startswith("/v2"):
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["content-security-policy"] == "sandbox"
