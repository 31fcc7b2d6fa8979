"""Packages of Node: what lies in node_modules, and what a package-lock.json outside lists."""

import io
from collections.abc import Iterator

import msgspec

from cypd.scanning.detectors.detector import Detector
from cypd.scanning.detectors.language_files import NODE_MODULE
from cypd.scanning.packages import Damaged, Package
from cypd.scanning.unpacking import Budget

_LOCK = "package-lock.json"


class _Module(msgspec.Struct):
    name: str = ""
    version: str = ""


class _Locked(msgspec.Struct):
    name: str = ""
    version: str = ""
    dev: bool = False
    link: bool = False
    dependencies: "dict[str, _Locked | str] | msgspec.UnsetType" = msgspec.UNSET


class _Lock(msgspec.Struct):
    packages: dict[str, _Locked] = {}
    dependencies: dict[str, _Locked] = {}


_module = msgspec.json.Decoder(_Module)
_lock = msgspec.json.Decoder(_Lock)


def _wants(path: str, _: int) -> bool:
    if path.endswith("package.json"):
        return NODE_MODULE.fullmatch(path) is not None
    return path.endswith(_LOCK) and "node_modules/" not in path


def _read(path: str, file: io.BytesIO, _: Budget) -> Iterator[Package]:
    try:
        if path.endswith(_LOCK):
            yield from _locked(_lock.decode(file.getbuffer()))
            return
        module = _module.decode(file.getbuffer())
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Damaged(str(error)) from None
    if module.name and module.version:  # others only say how a folder is to be loaded
        yield Package("npm", module.name, module.version)


def _locked(lock: _Lock) -> Iterator[Package]:
    """Return what a lock file of any version lists, but for what only developers install.

    Since version 2 all stands in ``packages`` by its path; before, in ``dependencies`` that nest.
    """
    for path, locked in lock.packages.items():
        name = locked.name or path.rpartition("node_modules/")[2]
        if path and not locked.link:
            yield from _package(name, locked)
    open_lists = [] if lock.packages else [lock.dependencies]
    while open_lists:
        for name, locked in open_lists.pop().items():
            yield from _package(name, locked)
            if locked.dependencies:
                inner = locked.dependencies.items()
                open_lists.append({k: v for k, v in inner if isinstance(v, _Locked)})


def _package(name: str, locked: _Locked) -> Iterator[Package]:
    if name and locked.version and not locked.dev:
        yield Package("npm", name, locked.version)


DETECTOR = Detector("Node", _wants, _read)
