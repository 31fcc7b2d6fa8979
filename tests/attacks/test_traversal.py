"""Paths that climb: no string, in no parameter, reaches a file that is not the registry's."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.attacks.content import push_image
from tests.attacks.hostile import traversals
from tests.attacks.watch import complaints, eventually
from tests.attacks.wire import Closed, Wire, request
from tests.daemon import Daemon

_CANARY = b"canary-4c1f0b3e"
_HOME = "attacks/home"
_DIGEST = f"sha256:{'0' * 64}"
_LAYER = b"the layer of the image at home"
_BLOCK = 64  # requests that are on their way at a time


class Parameter(NamedTuple):
    """A place for a string in a request, and the answers that are allowed there."""

    method: str
    target: str
    statuses: set[int]


_REFUSED = {400, 404, 405}
_PARAMETERS = {
    "root": Parameter("GET", "/{}", _REFUSED),
    "name": Parameter("GET", "/v2/{}/manifests/latest", _REFUSED),
    "name of a blob": Parameter("GET", f"/v2/{{}}/blobs/{_DIGEST}", _REFUSED),
    "name of an upload": Parameter("POST", "/v2/{}/blobs/uploads/?digest=x", _REFUSED),
    "tag": Parameter("GET", f"/v2/{_HOME}/manifests/{{}}", _REFUSED),
    "tag pushed": Parameter("PUT", f"/v2/{_HOME}/manifests/{{}}", _REFUSED),
    "tag deleted": Parameter("DELETE", f"/v2/{_HOME}/manifests/{{}}", _REFUSED),
    "digest": Parameter("GET", f"/v2/{_HOME}/blobs/{{}}", _REFUSED),
    "digest deleted": Parameter("DELETE", f"/v2/{_HOME}/blobs/{{}}", _REFUSED),
    "subject": Parameter("GET", f"/v2/{_HOME}/referrers/{{}}", _REFUSED),
    "upload": Parameter("GET", f"/v2/{_HOME}/blobs/uploads/{{}}", _REFUSED),
    "upload written": Parameter("PATCH", f"/v2/{_HOME}/blobs/uploads/{{}}", _REFUSED),
    "upload cancelled": Parameter("DELETE", f"/v2/{_HOME}/blobs/uploads/{{}}", _REFUSED),
    "digest=": Parameter("POST", f"/v2/{_HOME}/blobs/uploads/?digest={{}}", _REFUSED),
    "mount=": Parameter("POST", f"/v2/{_HOME}/blobs/uploads/?mount={{}}", _REFUSED),
    "from=": Parameter(  # a source with nothing to mount is an upload, whose digest is no digest
        "POST", f"/v2/{_HOME}/blobs/uploads/?mount={_DIGEST}&digest=x&from={{}}", _REFUSED
    ),
    "tag=": Parameter("PUT", f"/v2/{_HOME}/manifests/latest?tag={{}}", _REFUSED),
    "n=": Parameter("GET", f"/v2/{_HOME}/tags/list?n={{}}", _REFUSED),
    "last=": Parameter("GET", f"/v2/{_HOME}/tags/list?last={{}}", {200, 400}),
    "last= of the catalog": Parameter("GET", "/v2/_catalog?last={}", {200, 400}),
    "last= of referrers": Parameter(
        "GET", f"/v2/{_HOME}/referrers/{_DIGEST}?last={{}}", {200, 400}
    ),
    "artifactType=": Parameter(
        "GET", f"/v2/{_HOME}/referrers/{_DIGEST}?artifactType={{}}", {200, 400}
    ),
}
_HOME_LISTS = {
    b'{"name":"attacks/home","tags":["latest"]}',
    b'{"name":"attacks/home","tags":[]}',
    b'{"repositories":["attacks/home"]}',
    b'{"repositories":[]}',
    b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}',
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with one image, and beside its state a file that must never be seen."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "canary").write_bytes(_CANARY)
    with Daemon(folder) as daemon:
        push_image(daemon, _HOME, _LAYER)
        yield daemon
        assert complaints(daemon) == []


def test_there_are_enough_strings() -> None:
    """Each parameter is tried with more than two thousand."""
    assert len(set(traversals())) > 2000


@pytest.mark.parametrize("name", _PARAMETERS)
def test_no_string_leads_out(home: Daemon, name: str) -> None:
    """Every string is refused or not found, or lists what there is; nothing else is answered."""
    wrong = _try_all(home, _PARAMETERS[name], traversals())

    assert wrong == []


def _try_all(daemon: Daemon, parameter: Parameter, strings: list[str]) -> list[object]:
    wrong: list[object] = []
    waiting = list(strings)
    while waiting:  # each turn takes one string at least: the first answer always comes
        with Wire(daemon.port) as wire:
            block = waiting[:_BLOCK]
            wire.send(b"".join(_request(parameter, string) for string in block))
            try:
                for string in block:
                    answer = wire.answer(parameter.method)
                    waiting.pop(0)
                    if not _is_harmless(parameter, answer.status, answer.body):
                        wrong.append((string, answer))
                    if answer.headers.get("connection") == "close":
                        break
            except Closed as error:
                wrong.append((waiting[0], error))
                waiting.pop(0)
    return wrong


def _request(parameter: Parameter, string: str) -> bytes:
    body = b"{}" if parameter.method in ("PUT", "PATCH") else None
    return request(parameter.method, parameter.target.replace("{}", string), body)


def _is_harmless(parameter: Parameter, status: int, body: bytes) -> bool:
    if status == 414:  # longer than the door reads
        return True
    known = body in _HOME_LISTS if status == 200 else b"root:" not in body
    return status in parameter.statuses and known and _CANARY not in body and _LAYER not in body


def test_nothing_outside_is_opened(home: Daemon, tmp_path: Path) -> None:
    """The kernel saw no path outside the state folder while the strings came in."""
    strings = traversals()[::23]
    for parameter in _PARAMETERS.values():  # so that what is imported on demand is imported
        _try_all(home, parameter, strings[:1])
    record = tmp_path / "calls"
    with _traced(home, record):
        for parameter in _PARAMETERS.values():
            assert _try_all(home, parameter, strings) == []
        home.request("GET", f"/v2/{_HOME}/manifests/latest")
        home.request("POST", f"/v2/{_HOME}/blobs/uploads/?digest={_DIGEST}", body=b"wrong")
    calls = record.read_text().splitlines()
    paths = [path for call in calls for path in re.findall(r'"((?:[^"\\]|\\.)*)"', call)]

    assert any("uploads" in path for path in paths), "the trace shows even what is allowed"
    assert [it for it in calls if '"' in it and not _is_inside(it, home.state)] == []


def _is_inside(call: str, state: Path) -> bool:
    for path in re.findall(r'"((?:[^"\\]|\\.)*)"', call):
        resolved = Path(path).resolve()  # relative ones would be to a shard's descriptor
        if path and (not path.startswith("/") or not resolved.is_relative_to(state.resolve())):
            return False
    return True


@contextmanager
def _traced(daemon: Daemon, record: Path) -> Iterator[None]:
    """Write down every system call of the daemon that takes a path."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed (Debian package strace)")
    command = ["strace", "-f", "-e", "trace=%file", "-s", "4096", "-o", str(record)]
    tracer = subprocess.Popen([*command, "-p", str(daemon.pid)], stderr=subprocess.PIPE)
    try:
        status = Path(f"/proc/{daemon.pid}/status")
        attached = eventually(
            lambda: "TracerPid:\t0" not in status.read_text() or tracer.poll() is not None
        )
        if tracer.poll() is not None:
            assert tracer.stderr is not None
            pytest.skip(f"strace may not look: {tracer.stderr.read().decode().strip()}")
        assert attached
        yield
    finally:
        tracer.terminate()
        tracer.communicate(timeout=20)
