"""What has to hold after a crash, seen through HTTP and in the state folder.

The daemon may have done what it did not acknowledge; it may not have done it by half.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from cypd.metadata.lmdb import LmdbMetadata
from cypd.oci.digest import Digest
from tests.crash.client import Client
from tests.crash.shelf import Holdings, Keys, Session, Shelf
from tests.daemon import Response
from tests.metadata.recount import check_counters


def check(client: Client, shelf: Shelf, keys: Keys) -> None:
    """Hold the repository to what was acknowledged about some keys, then finish its uploads.

    The one request that was open when the daemon was killed happened completely or not at all.
    """
    found = _look(client, shelf, keys)
    outcomes = [outcome for outcome in shelf.outcomes() if outcome.among(keys) == found]
    assert outcomes, f"{shelf.repository}: {shelf.pending} left {found} of {shelf.outcomes()}"
    shelf.learn(outcomes[-1])
    _check_tags(client, shelf)
    _check_references(client, shelf, keys)
    for session in shelf.sessions:
        _resume(client, shelf, session)
    shelf.sessions.clear()


def snapshot(client: Client, shelves: Iterable[Shelf]) -> list[Holdings]:
    """Return what each repository holds of everything that was ever asked for."""
    return [_look(client, shelf, shelf.ever) for shelf in shelves]


def check_metadata(state: Path, ever: Iterable[str]) -> None:
    """Verify the structure of the metadata, and recount its counters; the daemon must not run.

    ``ever`` are all digests that were ever pushed.
    """
    # In a process of its own, as py-lmdb's own tool.
    command = [sys.executable, "-m", "lmdb", "verify", "-e", str(state / "metadata")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (result.returncode, result.stdout) == (0, "verify: OK\n"), result
    metadata = LmdbMetadata(state / "metadata", 1 << 30)
    try:
        check_counters(metadata, map(Digest.parse, ever))
    finally:
        metadata.close()


def ever(shelves: Iterable[Shelf]) -> set[str]:
    """Return all digests that were ever pushed."""
    return {digest for shelf in shelves for digest in shelf.ever.blobs | shelf.ever.manifests}


def wait_until_clean(state: Path, shelves: Sequence[Shelf], deadline: float = 15) -> None:
    """Wait until the janitor has removed every session and every file nobody has a use for."""
    until = time.monotonic() + deadline
    metadata = LmdbMetadata(state / "metadata", 1 << 30)
    try:
        while metadata.registry.uploads(started_before=float("inf")):
            assert time.monotonic() < until, "sessions, and what they reserve, are left"
            time.sleep(0.05)
    finally:
        metadata.close()
    while litter := _litter(state, shelves):
        assert time.monotonic() < until, f"{len(litter)} orphans, one of them {litter[0]}"
        time.sleep(0.05)


def _litter(state: Path, shelves: Sequence[Shelf]) -> list[Path]:
    held = {digest for s in shelves for digest in s.holdings.blobs | s.holdings.manifests}
    hashes = {digest.partition(":")[2] for digest in held}
    blobs = [path for path in (state / "blobs").rglob("*") if path.is_file()]
    return [*(state / "uploads").iterdir(), *(path for path in blobs if path.name not in hashes)]


def _look(client: Client, shelf: Shelf, keys: Keys) -> Holdings:
    """Get everything that some keys may name: each is absent, or there to the last byte."""
    base = f"/v2/{shelf.repository}"
    blobs = {digest for digest in keys.blobs if _get(client, f"{base}/blobs/{digest}", digest)}
    manifests = {it for it in keys.manifests if _get(client, f"{base}/manifests/{it}", it)}
    tags = {tag: _get(client, f"{base}/manifests/{tag}") for tag in keys.tags}
    return Holdings(blobs, manifests, {tag: digest for tag, digest in tags.items() if digest})


def _get(client: Client, path: str, digest: str | None = None) -> str | None:
    """Return the digest of what is at a path, ``None`` if nothing is."""
    response = client.send("GET", path)
    if response.status == 404:
        return None
    actual = str(Digest.of(response.body))
    claimed = response.headers["Docker-Content-Digest"]
    assert (response.status, actual, claimed) == (200, digest or claimed, actual), path
    return actual


def _check_tags(client: Client, shelf: Shelf) -> None:
    response = client.send("GET", f"/v2/{shelf.repository}/tags/list")
    if response.status == 200:
        assert json.loads(response.body)["tags"] == sorted(shelf.holdings.tags)
    else:
        assert (response.status, shelf.holdings) == (404, Holdings())


def _check_references(client: Client, shelf: Shelf, keys: Keys) -> None:
    """Every manifest can be pulled to its last blob."""
    base = f"/v2/{shelf.repository}"
    tagged = {shelf.holdings.tags[tag] for tag in keys.tags & shelf.holdings.tags.keys()}
    assert tagged <= shelf.holdings.manifests
    listed = set()
    for digest in (keys.manifests & shelf.holdings.manifests) | tagged:
        document = json.loads(client.send("GET", f"{base}/manifests/{digest}").body)
        children = [f"manifests/{it['digest']}" for it in document.get("manifests", ())]
        blobs = [document["config"], *document["layers"]] if "config" in document else []
        listed |= {*children, *(f"blobs/{it['digest']}" for it in blobs)}
    for path in listed:
        assert client.send("HEAD", f"{base}/{path}").status == 200, path


def _resume(client: Client, shelf: Shelf, session: Session) -> None:
    """Finish an upload that was interrupted, from where the daemon says it is."""
    status = client.send("GET", session.location)
    if status.status == 404:  # its last request was the open one, and happened
        assert session.is_dropped or session.digest in shelf.holdings.blobs
        return
    assert status.status == 204
    offset = resumed_at(status.headers["Range"])
    # 0 after a crash between placing the bytes and linking them: the session has none any more.
    is_complete = session.sent == len(session.content)
    assert offset <= session.sent
    assert offset >= session.acknowledged or (is_complete and offset == 0)
    response = _commit(client, session, offset)
    if response.status == 416 and offset == 0:  # "0-0" is nothing, or one byte
        response = _commit(client, session, 1)
    if response.status == 403:  # others have taken the room meanwhile
        assert b'"left":' in response.body
        assert client.send("DELETE", session.location).status == 204
        return
    assert response.status == 201, (offset, len(session.content), response)
    shelf.holdings.blobs.add(session.digest)
    shelf.ever.blobs.add(session.digest)
    assert _get(client, f"/v2/{shelf.repository}/blobs/{session.digest}", session.digest)


def _commit(client: Client, session: Session, offset: int) -> Response:
    rest = session.content[offset:]
    window = {"Content-Range": f"{offset}-{len(session.content) - 1}"} if rest else {}
    return client.send("PUT", f"{session.location}?digest={session.digest}", rest, window)


def resumed_at(header: str) -> int:
    """Return how many bytes a session has, from the Range of its status."""
    first, last = map(int, header.split("-"))
    assert first == 0
    return last + 1 if last else 0
