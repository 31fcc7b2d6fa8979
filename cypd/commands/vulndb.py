"""``cypd vulndb``: gets the vulnerability data that images are compared with.

A running daemon compares with the new data from its next scan on.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from cypd.commands.output import Failed, complain, tell
from cypd.config import Config
from cypd.scanning.ports import NotReady
from cypd.scanning.vulndb.download import Download, Downloader
from cypd.scanning.vulndb.importing import Importer, ImportFailed, Package, ecosystem_of
from cypd.scanning.vulndb.store import Source, VulnerabilityData

# Seconds between two words about the same work: to a terminal, and to a log.
_SOON, _LATER = 0.2, 10.0


def import_files(config: Config, options: argparse.Namespace) -> int:
    """Import archives and single records."""

    def work() -> int:
        packages = [Package(ecosystem_of(file), file) for file in options.files]
        with Importer(config.vulndb()) as importer:
            _report(importer.run(packages, _Progress("records")), as_json=options.json)
        return 0

    return _failing(work)


def update(config: Config, options: argparse.Namespace) -> int:
    """Download what has changed of ecosystems, and import it."""
    folder = config.vulndb()

    def work() -> int:
        with Importer(folder) as importer:
            etags = _etags(folder)
            names = options.ecosystems or [name for name in etags if name]
            if not names:
                raise ImportFailed(
                    "nothing was imported yet: name the ecosystems of your images, "
                    "as in `cypd vulndb update PyPI npm Go Debian:12 Alpine:v3.20`"
                )
            downloader = Downloader(config.scanning.update_url, folder / "downloads")
            found = _download(downloader, {name: etags.get(name, "") for name in names})
            sources: list[Source] = []
            if found.downloads:
                packages = [Package(name, it.path, it.etag) for name, it in found.downloads.items()]
                sources = importer.run(packages, _Progress("records"))
                for download in found.downloads.values():
                    downloader.drop(download)
        _report(sources, unchanged=found.unchanged, failed=found.failed, as_json=options.json)
        return 1 if found.failed else 0

    return _failing(work)


def status(config: Config, options: argparse.Namespace) -> int:
    """Show what was imported."""

    def work() -> int:
        data = VulnerabilityData(config.vulndb())
        sources = data.sources()
        data.close()
        if options.json:
            tell([source._asdict() for source in sources])
            return 0
        print(f"{'ECOSYSTEM':<28} {'VULNERABILITIES':>15}  {'IMPORTED':<20}  LATEST CHANGE")
        for it in sources:
            name, imported = it.name or "(single files)", _moment(it.imported_at)
            print(f"{name:<28} {it.vulnerabilities:>15,}  {imported:<20}  {_latest(it)}")
        return 0

    return _failing(work)


class _Found(NamedTuple):
    """What there is of the ecosystems that were asked for, by name."""

    downloads: dict[str, Download]
    unchanged: list[str]
    failed: dict[str, str]
    """And why each can't be had."""


def _download(downloader: Downloader, etags: dict[str, str]) -> _Found:
    found = _Found({}, [], {})
    for name, etag in etags.items():
        try:
            download = downloader.get(name, etag, _Progress("bytes"))
        except ImportFailed as error:
            found.failed[name] = str(error)
            continue
        if download:
            found.downloads[name] = download
        else:
            found.unchanged.append(name)
    return found


def _etags(folder: Path) -> dict[str, str]:
    try:
        data = VulnerabilityData(folder)
    except NotReady:
        return {}
    sources = data.sources()
    data.close()
    return {source.name: source.etag for source in sources}


def _failing(work: Callable[[], int]) -> int:
    try:
        return work()
    except (ImportFailed, NotReady) as error:
        raise Failed(str(error)) from None
    except OSError as error:  # a full disk, or a folder of somebody else's
        raise Failed(f"the vulnerability data can't be written: {error}") from None


def _report(
    sources: Sequence[Source],
    *,
    as_json: bool,
    unchanged: Sequence[str] = (),
    failed: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Tell what was imported, what needs no import, and what could not be had."""
    if as_json:
        imported = [it._asdict() for it in sources]
        tell({"imported": imported, "unchanged": unchanged, "failed": dict(failed)})
        return
    for it in sources:
        latest = f", the latest change of {_latest(it)}" if _latest(it) else ""
        print(f"{it.name or 'single files'}: {it.vulnerabilities:,} vulnerabilities{latest}")
    for name in unchanged:
        print(f"{name}: has not changed")
    for reason in failed.values():
        complain(reason, as_json=False)


def _latest(source: Source) -> str:
    """Return when the latest record was changed; Go's archive does not say (year 1)."""
    return "" if source.newest.startswith("0001-") else source.newest[:10]


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class _Progress:
    """Says on standard error how far something is, now and then."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._is_terminal = sys.stderr.isatty()
        self._pause = _SOON if self._is_terminal else _LATER
        self._said_at = time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._said_at < self._pause and done != total:
            return
        self._said_at = now
        of = f" of {total:,}" if total else ""
        end = "" if self._is_terminal and done != total else "\n"
        start = "\r\x1b[K" if self._is_terminal else ""
        print(f"{start}{what}: {done:,}{of} {self._unit}", end=end, file=sys.stderr, flush=True)
