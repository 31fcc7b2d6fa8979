"""Which packages an image has, and which layer each came with.

Layers are read from the bottom up, each once. What a layer replaces or takes away (whiteouts,
image-spec layer.md) is gone; a package belongs to the lowest layer from which on that file named
it in this version. So dpkg's status, rewritten by each layer that installs something, does not
make all packages the last layer's.
"""

import posixpath
import tarfile
import time
from collections.abc import Iterator, Sequence

from cypd.scanning.detectors import DETECTORS, rpm
from cypd.scanning.detectors.detector import TEXT_BYTES, Detector
from cypd.scanning.packages import (
    SYSTEM_KINDS,
    Damaged,
    Distribution,
    Fact,
    Owned,
    Package,
)
from cypd.scanning.ports import Say, ScanFailed
from cypd.scanning.unpacking import Archive, Budget, Unpacked, rooted
from cypd.scanning.wire import LayerFile

MAX_PACKAGES = 20_000
_MAX_LINKS = 100_000
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"

_Facts = dict[str, tuple[Fact, ...]]


class Inventory:
    """The packages of an image, layer by layer."""

    def __init__(self, say: Say, budget: Budget) -> None:
        self._say = say
        self._budget = budget
        self._files: dict[str, dict[Fact, int]] = {}

    def add(self, layers: Sequence[LayerFile]) -> None:
        """Read the layers, the bottom one first; raise ScanFailed."""
        for number, layer in enumerate(layers):
            title = f"layer {number + 1} of {len(layers)} ({layer.digest[:19]})"
            if why := _why_not(layer):
                self._say(f"{title}: not read, {why}")
                continue
            started = time.monotonic()
            reader = _LayerReader(layer, title, self._known(), self._say, self._budget)
            reader.read()
            self._apply(number, reader)
            found = sum(isinstance(it, Package) for facts in reader.facts.values() for it in facts)
            self._say(
                f"{title}: {reader.files:,} files, {reader.size / (1 << 20):,.1f} MiB unpacked, "
                f"{len(reader.facts):,} files with {found:,} packages read, "
                f"{time.monotonic() - started:.1f} s"
            )

    def distribution(self) -> Distribution | None:
        """Return which distribution the image is."""
        for path in ("etc/os-release", "usr/lib/os-release"):
            for fact in self._files.get(path, ()):
                if isinstance(fact, Distribution):
                    return fact
        return None

    def packages(self) -> dict[Package, int]:
        """Return each package once, with the number of the lowest layer that has it.

        What a system package brought along is part of that one, and not listed beside it.
        """
        owned = {it.path for facts in self._files.values() for it in facts if isinstance(it, Owned)}
        found: dict[Package, int] = {}
        for path, facts in self._files.items():
            for fact, number in facts.items():
                if isinstance(fact, Package) and (fact.kind in SYSTEM_KINDS or path not in owned):
                    found[fact] = min(number, found.get(fact, number))
        if len(found) > MAX_PACKAGES:
            raise ScanFailed(f"the image has {len(found)} packages, more than {MAX_PACKAGES}")
        return dict(sorted(found.items()))

    def _known(self) -> set[str]:
        """Return the paths that matter, and all folders they are in."""
        return {known for path in self._files for known in (path, *_folders(path))}

    def _apply(self, number: int, layer: "_LayerReader") -> None:
        files = {path: facts for path, facts in self._files.items() if not layer.hides(path)}
        for path, facts in layer.facts.items():
            before = self._files.get(path, {})
            files[path] = {fact: before.get(fact, number) for fact in facts}
        self._files = files


class _LayerReader:
    """One layer: what it names, and what it hides of the layers below."""

    def __init__(
        self, layer: LayerFile, title: str, known: set[str], say: Say, budget: Budget
    ) -> None:
        self.facts: _Facts = {}
        self.files = 0
        self.size = 0
        self._layer = layer
        self._title = title
        self._known = known
        self._say = say
        self._budget = budget
        self._replaced: set[str] = set()
        self._covered: set[str] = set()
        self._emptied: set[str] = set()
        self._links: dict[str, list[tuple[str, Detector]]] = {}
        self._link_count = 0
        self._seen: set[str] = set()
        self._unread = 0

    def read(self) -> None:
        archive = Archive(self._layer.descriptor, self._title, self._budget)
        for path, entry, content in archive:
            self._enter(path, entry, content)
        self.files, self.size = archive.files, archive.size
        if self._links:
            self._read_linked()
        if self._unread:
            self._say(f"{self._title}: {self._unread} files not understood")

    def hides(self, path: str) -> bool:
        """Tell whether a file of a layer below can't be seen any more."""
        folders = set(_folders(path))
        return (
            path in self._replaced
            or path in self._covered
            or not folders.isdisjoint(self._covered)
            or not folders.isdisjoint(self._emptied)
        )

    def _enter(self, path: str, entry: tarfile.TarInfo, content: Unpacked) -> None:
        folder, name = posixpath.split(path)
        if name.startswith(_WHITEOUT):
            self._white_out(folder, name)
            return
        if path in self._known:
            # A folder leaves what lies in it; anything else covers it.
            (self._replaced if entry.isdir() else self._covered).add(path)
        self.facts.pop(path, None)  # an archive's later entry replaces an earlier one
        if path in rpm.OTHERS:
            self._say(f"{self._title}: {path} not read, it is rpm's database in an older form")
        for detector in DETECTORS:
            if detector.wants(path, entry.mode):
                self._look(detector, path, entry, content)
                return

    def _white_out(self, folder: str, name: str) -> None:
        if name == _OPAQUE:
            self._emptied.add(folder)
        elif not name.startswith(".wh..wh."):  # aufs' own books
            self._covered.add(posixpath.join(folder, name.removeprefix(_WHITEOUT)))

    def _look(
        self, detector: Detector, path: str, entry: tarfile.TarInfo, content: Unpacked
    ) -> None:
        if entry.islnk():
            self._link(detector, path, rooted(entry.linkname))
        elif entry.isreg() and not entry.issparse():
            self._seen.add(path)
            self._examine(detector, (path,), entry.size, content)

    def _link(self, detector: Detector, path: str, target: str) -> None:
        """Take what the file says that a hard link is another name of, or note it for later."""
        if target in self._seen:
            if target in self.facts:
                self.facts[path] = self.facts[target]
            return
        self._link_count += 1
        if self._link_count > _MAX_LINKS:
            raise ScanFailed(f"{self._title}: more than {_MAX_LINKS} hard links that matter")
        self._links.setdefault(target, []).append((path, detector))

    def _read_linked(self) -> None:
        """Read the layer again for files that are wanted by the name of a hard link only.

        Package managers link files from a store whose own names tell nothing.
        """
        for path, entry, content in Archive(self._layer.descriptor, self._title, self._budget):
            links = self._links.get(path)
            if links and entry.isreg() and not entry.issparse():
                detector = links[0][1]
                paths = tuple(it for it, wanting in links if wanting is detector)
                self._examine(detector, paths, entry.size, content)

    def _examine(
        self, detector: Detector, paths: tuple[str, ...], size: int, content: Unpacked
    ) -> None:
        if detector.begins and content.peek(len(detector.begins)) != detector.begins:
            return
        if size > detector.largest:
            self._refuse(detector, f"{paths[0]} has {size:,} bytes; {detector.largest:,} are read")
            return
        file = content.copy(size)
        try:
            facts = tuple(detector.read(paths[0], file, self._budget))
        except Damaged as error:
            if detector.is_vital:
                raise ScanFailed(f"{self._title}: {paths[0]} is damaged: {error}") from None
            self._unread += 1
            return
        plausible = tuple(it for it in facts if not isinstance(it, Package) or it.is_plausible)
        if plausible:
            self.facts.update(dict.fromkeys(paths, plausible))
        if len(plausible) < len(facts):
            self._unread += 1

    def _refuse(self, detector: Detector, why: str) -> None:
        """Give up on what can only be an attack; leave out what may well be that large."""
        if detector.is_vital or detector.largest <= TEXT_BYTES:
            raise ScanFailed(f"{self._title}: {why}")
        self._say(f"{self._title}: not read, {why}")


def _why_not(layer: LayerFile) -> str:
    if layer.descriptor < 0:
        return "it may be had elsewhere only"
    if "+encrypted" in layer.media_type:
        raise ScanFailed(f"layer {layer.digest[:19]} is encrypted")
    # image-spec layer.md and docker's: all their names say so. Artifacts have other things.
    if "tar" not in layer.media_type:
        return f"it is no layer of files but {layer.media_type}"
    return ""


def _folders(path: str) -> Iterator[str]:
    while path:
        path = posixpath.dirname(path)
        yield path
