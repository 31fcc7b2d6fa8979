"""``cypd storage``: moving all blobs from one storage to another."""

import argparse
import asyncio
import contextlib
import sys
from functools import partial
from pathlib import Path

import orjson
import uvloop

from cypd.commands.progress import shown
from cypd.commands.sizes import readable
from cypd.commands.store import note, opened
from cypd.composition.blobs import Driver, engine, without_cache
from cypd.config import Config, ConfigError
from cypd.metadata.lmdb import LmdbMetadata
from cypd.storage.migration import Migration, Progress
from cypd.storage.use import emptying, migrating

_EXIT_INTERRUPTED = 130  # as a shell tells of SIGINT


def migrate(config: Config, options: argparse.Namespace) -> int:
    """Copy what one storage has to the other; 1 if not all of it could be copied."""
    if not config.s3.bucket:
        raise ConfigError("s3.bucket: the name of the bucket to copy from or to is needed")
    config = without_cache(config)
    root = Path(config.storage.root).absolute()
    source: Driver = "filesystem" if options.to == "s3" else "s3"
    if options.remove_source and source in (config.storage.driver, config.storage.moving_from):
        raise ConfigError(f"storage.driver, storage.moving_from: {source} is still in use")
    with opened(config) as metadata, contextlib.ExitStack() as stack:
        stack.enter_context(migrating(root))
        if options.remove_source:
            stack.enter_context(emptying(root, source))
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(_migrate(config, root, metadata, source, options))
        except KeyboardInterrupt:
            print("cypd: cut off; repeat it, and it goes on from here", file=sys.stderr)
            return _EXIT_INTERRUPTED


async def _migrate(
    config: Config, root: Path, metadata: LmdbMetadata, source: Driver, options: argparse.Namespace
) -> int:
    async with (
        engine(config, root, source) as old,
        engine(config, root, options.to) as new,
    ):
        run = Migration(
            metadata.registry,
            old,
            new,
            jobs=options.jobs,
            rate=options.limit_rate,
            verify=options.verify,
        )
        async with shown(partial(_line, run.progress), quiet=options.json):
            await run.run()
        open_uploads = await run.open_uploads()
        removed = None
        if options.remove_source and not run.progress.failed and not open_uploads:
            removed = await run.remove_source()
    progress = run.progress
    await note(
        metadata,
        "storage.migrate",
        to=options.to,
        copied=str(progress.copied),
        failed=str(len(progress.failed)),
        removed=str(removed or 0),
    )
    tell = _print_json if options.json else _print_text
    tell(progress, open_uploads, removed)
    is_left = options.remove_source and removed is None
    return 1 if progress.failed or is_left else 0


def _print_json(progress: Progress, open_uploads: int, removed: int | None) -> None:
    outcome = {
        "blobs": progress.blobs,
        "bytes": progress.size,
        "copied": progress.copied,
        "copied_bytes": progress.copied_size,
        "present": progress.present,
        "present_bytes": progress.present_size,
        "failed": {str(digest): reason for digest, reason in progress.failed.items()},
        "open_uploads": open_uploads,
        "removed": removed,
    }
    print(orjson.dumps(outcome).decode())


def _print_text(progress: Progress, open_uploads: int, removed: int | None) -> None:
    print(f"{progress.copied:,} blobs were copied, {readable(progress.copied_size)}")
    print(f"{progress.present:,} were there already, {readable(progress.present_size)}")
    for digest, reason in progress.failed.items():
        print(f"{digest} is {reason} in the source")
    if progress.failed:
        print("push what is missing or damaged again, or delete it, and repeat this command")
    if open_uploads:
        print(f"{open_uploads:,} uploads may still end in the source: repeat this command later")
    if removed is not None:
        print(f"{removed:,} blobs were removed from the source")


def _line(progress: Progress, seconds: float) -> str:
    done = progress.present + progress.copied + len(progress.failed)
    size = progress.present_size + progress.copied_size
    rate = readable(int(progress.copied_size / seconds))
    return (
        f"{done:,} of {progress.blobs:,} blobs, "
        f"{readable(size)} of {readable(progress.size)}, {rate}/s"
    )
