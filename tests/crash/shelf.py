"""What a client was told about a repository: the truth that a restart is held to.

It stands outside the daemon, in memory and in a file of intentions and acknowledgements.
"""

import json
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple


class Change(NamedTuple):
    """What a request is to do to a repository."""

    action: Literal["link", "unlink", "put", "remove", "untag"]
    digest: str
    tag: str = ""
    """For ``put``: nothing, if it is by digest alone."""


@dataclass
class Holdings:
    """What a repository holds."""

    blobs: set[str] = field(default_factory=set)
    manifests: set[str] = field(default_factory=set)
    tags: dict[str, str] = field(default_factory=dict)

    def after(self, change: Change) -> "Holdings":
        """Return what it holds after a change that happened completely."""
        blobs, manifests, tags = set(self.blobs), set(self.manifests), dict(self.tags)
        match change.action:
            case "link":
                blobs.add(change.digest)
            case "unlink":
                blobs.remove(change.digest)
            case "put":
                manifests.add(change.digest)
                if change.tag:
                    tags[change.tag] = change.digest
            case "remove":
                manifests.remove(change.digest)
                tags = {tag: digest for tag, digest in tags.items() if digest != change.digest}
            case "untag":
                del tags[change.tag]
        return Holdings(blobs, manifests, tags)

    def among(self, keys: "Keys") -> "Holdings":
        """Return the part of it that some keys are about."""
        tags = {tag: digest for tag, digest in self.tags.items() if tag in keys.tags}
        return Holdings(self.blobs & keys.blobs, self.manifests & keys.manifests, tags)


@dataclass
class Keys:
    """Names under which something may be found."""

    blobs: set[str] = field(default_factory=set)
    manifests: set[str] = field(default_factory=set)
    tags: set[str] = field(default_factory=set)

    def add(self, holdings: Holdings) -> None:
        """Add the names of what a repository holds."""
        self.blobs |= holdings.blobs
        self.manifests |= holdings.manifests
        self.tags |= holdings.tags.keys()


@dataclass
class Session:
    """An upload that was begun."""

    location: str
    digest: str
    content: bytes
    acknowledged: int = 0
    sent: int = 0
    is_dropped: bool = False
    """There was no room for it: its client has cancelled it, or was about to."""


class Log:
    """Intentions and acknowledgements, a line each."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._lock = threading.Lock()

    def write(self, **entry: object) -> None:
        """Append an entry, with the time."""
        line = json.dumps({"at": time.time(), **entry})
        with self._lock:
            self._file.write(line + "\n")

    def sync(self) -> None:
        """Make the entries durable."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Shelf:
    """A repository that one pusher at a time writes to, so that one request at most is open."""

    def __init__(self, repository: str, log: Log) -> None:
        self.repository = repository
        self.holdings = Holdings()
        self.pending: Change | None = None
        self.sessions: list[Session] = []
        self.sizes: dict[str, int] = {}
        self.touched = Keys()
        """What was asked for since the last check."""
        self.ever = Keys()
        self._log = log

    def intend(self, change: Change) -> None:
        """Note what the next request is to do."""
        self._log.write(repository=self.repository, intent=change)
        self.pending = change
        for keys in (self.touched, self.ever):
            named = keys.blobs if change.action in ("link", "unlink") else keys.manifests
            named.add(change.digest)
            keys.tags |= {change.tag} - {""}
            if change.action == "remove":
                keys.tags |= self.holdings.tags.keys()

    def settle(self, *, done: bool) -> None:
        """Note what the answer was: done, or refused."""
        assert self.pending is not None
        self._log.write(repository=self.repository, acknowledged=self.pending, done=done)
        if done:
            self.holdings = self.holdings.after(self.pending)
        self.pending = None

    def outcomes(self) -> list[Holdings]:
        """Return what the repository may hold: the open request happened, or it did not."""
        if self.pending is None:
            return [self.holdings]
        return [self.holdings, self.holdings.after(self.pending)]

    def learn(self, holdings: Holdings) -> None:
        """Note which of the outcomes it is."""
        self._log.write(repository=self.repository, found=self.pending and str(self.pending))
        self.holdings = holdings
        self.pending = None
        self.touched = Keys()
