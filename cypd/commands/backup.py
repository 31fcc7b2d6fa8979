"""``cypd backup``: a copy of everything, which is a state folder itself."""

import argparse
import asyncio
import os
import shutil
import time
from pathlib import Path

import orjson
import uvloop

import cypd
from cypd.accounts import secret_file
from cypd.commands.progress import shown
from cypd.commands.sizes import readable
from cypd.commands.store import note, opened
from cypd.composition.blobs import blob_storage, without_cache
from cypd.config import Config, ConfigError
from cypd.metadata.lmdb import LmdbMetadata
from cypd.storage.filesystem import FilesystemStorage
from cypd.storage.migration import Migration, Progress
from cypd.turn import turn

_MARK = "backup.json"


def run(config: Config, options: argparse.Namespace) -> int:
    """Copy what is new since the last time; 1 if something is damaged or missing."""
    root = Path(config.storage.root).absolute()
    target = options.folder.absolute()
    _require_ours(root, target)
    with opened(config) as metadata, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        progress = runner.run(_Backup(config, root, target, metadata).run(options))
    if options.json:
        print(orjson.dumps(_document(progress)).decode())
    else:
        _print(progress, target)
    return 1 if progress.failed else 0


def _require_ours(root: Path, target: Path) -> None:
    if root == target or root in target.parents or target in root.parents:
        raise ConfigError(f"{target}: a backup and the registry can't be within each other")
    if target.exists() and os.listdir(target) and not (target / _MARK).exists():
        raise ConfigError(f"{target}: this folder has something else in it than a backup")
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    (target / _MARK).touch(mode=0o600)


class _Backup:
    """Copies metadata as they are at one moment, then all that they need, then lets them count.

    Broken off anywhere, the backup before it stays whole, and the next run goes on.
    """

    def __init__(self, config: Config, root: Path, target: Path, metadata: LmdbMetadata) -> None:
        self._config = config
        self._root = root
        self._target = target
        self._metadata = metadata

    async def run(self, options: argparse.Namespace) -> Progress:
        """Return what was done."""
        # What the copied metadata need must not be collected before it is copied.
        async with (
            turn(self._target / "backup.lock"),
            turn(self._root / "collection.lock"),
            blob_storage(without_cache(self._config), self._root) as source,
        ):
            new = self._target / "metadata.new"
            await asyncio.to_thread(_copy_metadata, self._metadata, new)
            snapshot = LmdbMetadata(new, self._config.metadata.map_size)
            storage = FilesystemStorage(self._target)
            try:
                copying = Migration(
                    snapshot.registry,
                    source,
                    storage,
                    jobs=options.jobs,
                    rate=options.limit_rate,
                    verify=options.verify,
                )
                progress = copying.progress
                async with shown(lambda seconds: _line(progress, seconds), quiet=options.json):
                    await copying.run()
                await asyncio.to_thread(self._make_it_count, new, progress)
                await storage.collect(snapshot.registry.is_held, placed_before=time.time())
            finally:
                storage.close()
                snapshot.close()
            shutil.rmtree(new)
        told = {"copied": str(progress.copied), "failed": str(len(progress.failed))}
        await note(self._metadata, "storage.backup", to=str(self._target), **told)
        return progress

    def _make_it_count(self, new: Path, progress: Progress) -> None:
        key = self._root / "token-key"
        if key.exists():
            secret_file.write(self._target / "token-key", key.read_text().strip())
        place = self._target / "metadata"
        place.mkdir(mode=0o700, exist_ok=True)
        os.replace(new / "data.mdb", place / "data.mdb")
        about = {"version": cypd.__version__, "made_at": time.time(), **_document(progress)}
        (self._target / _MARK).write_bytes(orjson.dumps(about))
        for folder in (place, self._target):
            _sync(folder)


def _copy_metadata(metadata: LmdbMetadata, new: Path) -> None:
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    metadata.copy(new)
    (new / "data.mdb").chmod(0o600)
    _sync(new / "data.mdb")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _document(progress: Progress) -> dict[str, object]:
    return {
        "blobs": progress.blobs,
        "bytes": progress.size,
        "copied": progress.copied,
        "copied_bytes": progress.copied_size,
        "failed": {str(digest): reason for digest, reason in progress.failed.items()},
    }


def _print(progress: Progress, target: Path) -> None:
    print(f"{progress.blobs:,} blobs with {readable(progress.size)} are in {target}")
    print(f"{progress.copied:,} were copied now, {readable(progress.copied_size)}")
    for digest, reason in progress.failed.items():
        print(f"{digest} is {reason} in the registry: push it again, and repeat this command")


def _line(progress: Progress, seconds: float) -> str:
    done = progress.present + progress.copied + len(progress.failed)
    rate = readable(int(progress.copied_size / seconds))
    return f"{done:,} of {progress.blobs:,} blobs, {rate}/s"
