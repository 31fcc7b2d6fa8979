"""Clients that push, tag, mount and delete without end, each in a repository of its own."""

import json
import threading
from collections.abc import Callable, Sequence
from http.client import HTTPException
from random import Random

from cypd.oci.digest import Digest
from cypd.oci.media_types import OCI_INDEX, OCI_MANIFEST
from tests.crash.client import Client
from tests.crash.shelf import Change, Session, Shelf
from tests.daemon import Response

_SIZES = {1: 4, 10_000: 8, 300_000: 4, 3_000_000: 1}  # with how often each is taken
_TAGS = ("latest", "v1", "v2", "v3")
GONE = OSError, HTTPException
"""What a client of a killed daemon sees."""
_LARGE = 80_000  # a manifest that does not go into the metadata


class Pusher:
    """A client of one repository; ``run`` returns when the daemon was killed."""

    def __init__(
        self,
        client: Client,
        shelf: Shelf,
        neighbours: Sequence[Shelf],
        random: Random,
        killed: threading.Event,
        over: threading.Event | None = None,
        pause: float = 0.0,
    ) -> None:
        """``pause``: seconds between two things that it does."""
        self._client = client
        self._shelf = shelf
        self._neighbours = neighbours
        self._random = random
        self._killed = killed
        self._over = over or threading.Event()
        self._pause = pause
        self._actions: dict[Callable[[], None], int] = {
            self._push_whole: 4,
            self._push_in_two: 4,
            self._push_chunks: 4,
            self._mount: 3,
            self._put_image: 6,
            self._put_large_image: 2,
            self._put_index: 2,
            self._untag: 1,
            self._remove: 2,
            self._unlink: 2,
        }

    def run(self) -> None:
        """Do one thing after the other until the daemon is gone, or it is over."""
        actions, weights = list(self._actions), list(self._actions.values())
        try:
            while not self._over.wait(self._pause):
                self._random.choices(actions, weights)[0]()
        except GONE:
            if not self._killed.is_set():
                raise

    def run_once(self) -> None:
        """Do each thing once, in the same order each time."""
        for action in self._actions:
            action()

    # --- blobs ----------------------------------------------------------------------------------

    def _push_whole(self) -> None:
        content, digest = self._content()
        self._link(digest, "POST", self._path(f"blobs/uploads/?digest={digest}"), content)

    def _push_in_two(self) -> None:
        session = self._open()
        self._commit(session, session.content)

    def _push_chunks(self) -> None:
        session = self._open()
        size = len(session.content)
        step = max(1, size // self._random.randint(1, 4))
        while size - session.sent > step:
            if not self._patch(session, session.content[session.sent : session.sent + step]):
                self._drop(session)
                return
        self._commit(session, session.content[session.sent :])

    def _patch(self, session: Session, chunk: bytes) -> bool:
        start, session.sent = session.sent, session.sent + len(chunk)
        headers = {}
        if self._random.random() < 0.5:
            headers["Content-Range"] = f"{start}-{session.sent - 1}"
        response = self._client.send("PATCH", session.location, chunk, headers)
        if _is_over_quota(response):
            session.sent = start
            return False
        _require(response, 202)
        session.acknowledged = session.sent
        return True

    def _open(self) -> Session:
        content, digest = self._content()
        location = self._client.open_session(self._shelf.repository)
        session = Session(location, digest, content)
        self._shelf.sessions.append(session)
        return session

    def _commit(self, session: Session, rest: bytes) -> None:
        session.sent = len(session.content)
        path = f"{session.location}?digest={session.digest}"
        if self._link(session.digest, "PUT", path, rest):
            self._shelf.sessions.remove(session)
        else:
            self._drop(session)

    def _drop(self, session: Session) -> None:
        session.is_dropped = True
        _require(self._client.send("DELETE", session.location), 204)
        self._shelf.sessions.remove(session)

    def _link(self, digest: str, method: str, path: str, body: bytes) -> bool:
        self._shelf.intend(Change("link", digest))
        return self._settle(self._client.send(method, path, body))

    def _settle(self, response: Response) -> bool:
        """Note whether it was done, or there was no room for it."""
        is_done = not _is_over_quota(response)
        if is_done:
            _require(response, 201)
        self._shelf.settle(done=is_done)
        return is_done

    def _mount(self) -> None:
        source = self._random.choice(self._neighbours)
        blobs = list(source.holdings.blobs)
        if not blobs:
            return
        digest = self._random.choice(blobs)
        self._shelf.sizes[digest] = source.sizes[digest]
        self._shelf.intend(Change("link", digest))
        query = f"mount={digest}&from={source.repository}"
        response = self._client.send("POST", self._path(f"blobs/uploads/?{query}"), b"")
        if response.status == 202:  # deleted meanwhile, push it yourself
            self._shelf.settle(done=False)
            _require(self._client.send("DELETE", response.headers["Location"]), 204)
        else:
            self._settle(response)

    def _unlink(self) -> None:
        if self._shelf.holdings.blobs:
            digest = self._random.choice(sorted(self._shelf.holdings.blobs))
            self._delete(Change("unlink", digest), f"blobs/{digest}")

    # --- manifests ------------------------------------------------------------------------------

    def _put_image(self, padding: int = 0) -> None:
        blobs = sorted(self._shelf.holdings.blobs)
        if not blobs:
            return
        layers = self._random.sample(blobs, min(len(blobs), self._random.randint(1, 3)))
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": self._descriptor(layers[0], "application/vnd.oci.image.config.v1+json"),
            "layers": [self._descriptor(layer, "application/octet-stream") for layer in layers],
            "annotations": {"note": self._random.randbytes(8).hex() + "-" * padding},
        }
        self._put(document)

    def _put_large_image(self) -> None:
        self._put_image(_LARGE)

    def _put_index(self) -> None:
        manifests = sorted(self._shelf.holdings.manifests)
        chosen = self._random.sample(manifests, min(len(manifests), 2))
        children = [self._descriptor(digest, OCI_MANIFEST) for digest in chosen]
        self._put({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children})

    def _put(self, document: dict[str, object]) -> None:
        content = json.dumps(document).encode()
        digest = str(Digest.of(content))
        tag = self._random.choice(_TAGS) if self._random.random() < 0.7 else ""
        self._shelf.sizes[digest] = len(content)
        self._shelf.intend(Change("put", digest, tag))
        media_type = {"Content-Type": str(document["mediaType"])}
        path = self._path(f"manifests/{tag or digest}")
        self._settle(self._client.send("PUT", path, content, media_type))

    def _untag(self) -> None:
        if self._shelf.holdings.tags:
            tag, digest = self._random.choice(sorted(self._shelf.holdings.tags.items()))
            self._delete(Change("untag", digest, tag), f"manifests/{tag}")

    def _remove(self) -> None:
        if self._shelf.holdings.manifests:
            digest = self._random.choice(sorted(self._shelf.holdings.manifests))
            self._delete(Change("remove", digest), f"manifests/{digest}")

    # --- all ------------------------------------------------------------------------------------

    def _delete(self, change: Change, path: str) -> None:
        self._shelf.intend(change)
        response = self._client.send("DELETE", self._path(path))
        _require(response, 202, 405)  # 405: a manifest lists it
        self._shelf.settle(done=response.status == 202)

    def _content(self) -> tuple[bytes, str]:
        [size] = self._random.choices(list(_SIZES), list(_SIZES.values()))
        source = self._random
        if source.random() < 0.3:  # what others push too, perhaps at this moment
            source = Random(source.randrange(4))
        content = source.randbytes(size)
        digest = str(Digest.of(content))
        self._shelf.sizes[digest] = size
        return content, digest

    def _descriptor(self, digest: str, media_type: str) -> dict[str, object]:
        return {"mediaType": media_type, "digest": digest, "size": self._shelf.sizes[digest]}

    def _path(self, rest: str) -> str:
        return f"/v2/{self._shelf.repository}/{rest}"


def _is_over_quota(response: Response) -> bool:
    return response.status == 403 and b'"left":' in response.body


def _require(response: Response, *statuses: int) -> None:
    assert response.status in statuses, f"{response.status} {response.body!r}"
