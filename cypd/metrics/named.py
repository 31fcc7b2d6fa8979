"""Which projects have series of their own: a bounded number, the same ones in all workers.

The first to be used get a place while there are some. Then who has one keeps it, until in some
window of time a project without one had more than twice its traffic: each change ends a series
and begins another, and a graph of series that come and go tells nothing.
"""

import contextlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import msgspec

from cypd.metrics.pages import locked, replace
from cypd.metrics.table import OTHER

_MAX_CANDIDATES = 10_000
_FACTOR = 2

_decode = msgspec.json.Decoder(list[str]).decode


class NamedProjects:
    """At most ``limit`` projects; kept in a file that the workers share.

    A project that is itself called ``other`` has none: it is counted with the others.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self._folder = folder
        self._file = folder / "projects.json"
        self._limit = limit
        self._names: frozenset[str] = frozenset()
        self._candidates: Counter[str] = Counter()
        self._before: Mapping[str, int] = {}
        self.refresh()

    def __contains__(self, name: str) -> bool:
        """Whether a project has series of its own now."""
        return name in self._names

    def label(self, name: str, traffic: int) -> str:
        """Return by which name a project's traffic, in bytes, is counted."""
        if name not in self._names and len(self._names) < self._limit:
            self._claim(name)
        if name in self._names:
            return name
        if len(self._candidates) < _MAX_CANDIDATES or name in self._candidates:
            self._candidates[name] += traffic
        return OTHER

    def refresh(self) -> None:
        """See what other workers have changed."""
        try:
            names = _decode(self._file.read_bytes())
        except (FileNotFoundError, msgspec.DecodeError):
            names = []
        except OSError:  # out of descriptors
            return
        self._names = frozenset(names[: self._limit])

    def contest(self, traffic: Mapping[str, int]) -> None:
        """Give places to projects that were used more than others since this was last called.

        ``traffic``: the bytes that each project with a place has had so far in all workers.
        """
        gained = {name: traffic.get(name, 0) - self._before.get(name, 0) for name in self._names}
        self._before = dict(traffic)
        strongest, self._candidates = self._candidates.most_common(), Counter()
        weakest = sorted(gained, key=lambda name: gained[name])
        if len(self._names) < self._limit:
            return
        pairs = [
            (leaving, (name, amount))
            for leaving, (name, amount) in zip(weakest, strongest, strict=False)
            if amount > _FACTOR * gained[leaving] and name != OTHER
        ]
        known = self._names
        with locked(self._folder) as is_mine:
            self.refresh()
            if is_mine and pairs and self._names == known:
                leaving = {it for it, _ in pairs}
                self._write((known - leaving) | {name for _, (name, _) in pairs})

    def _claim(self, name: str) -> None:
        """Give a project a place if there is one, and nobody else is at it."""
        # No request shall fail because its project could not be written down.
        with contextlib.suppress(OSError), locked(self._folder) as is_mine:
            if is_mine and name != OTHER:
                self.refresh()
                if name not in self._names and len(self._names) < self._limit:
                    self._write(self._names | {name})

    def _write(self, names: frozenset[str]) -> None:
        with contextlib.suppress(OSError):  # a full disk
            replace(self._file, msgspec.json.encode(sorted(names)))
            self._names = names
