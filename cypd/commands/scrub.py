"""``cypd scrub``: read everything that is held, now."""

import argparse
import asyncio
from pathlib import Path

import orjson
import uvloop

from cypd.commands.progress import shown
from cypd.commands.sizes import readable
from cypd.commands.store import note, opened
from cypd.composition.blobs import blob_storage
from cypd.config import Config
from cypd.registry.ports import Unavailable
from cypd.registry.scrub import Round, Rounds, Scrub
from cypd.storage.pace import Pace
from cypd.turn import is_taken, turn


def run(config: Config, options: argparse.Namespace) -> int:
    """Do a whole round beside the daemon; 1 if something is damaged or missing."""
    root = Path(config.storage.root).absolute()
    if is_taken(root / "scrub.lock"):
        raise Unavailable("a scrub is under way; scrub.json in the state folder tells more")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        round_ = runner.run(_scrub(config, root, options))
    if options.json:
        print(orjson.dumps(_document(round_)).decode())
    else:
        print(f"{round_.blobs:,} blobs were read, {readable(round_.size)}")
        print(f"{round_.damaged:,} are damaged and were set aside, {round_.missing:,} are missing")
    return 1 if round_.damaged or round_.missing else 0


async def _scrub(config: Config, root: Path, options: argparse.Namespace) -> Round:
    with opened(config) as metadata:
        async with turn(root / "scrub.lock"), blob_storage(config, root) as storage:
            pace = Pace(options.limit_rate)
            scrub = Scrub(metadata.registry, storage, Rounds(root / "scrub.json"), pace.spend)
            progress = Round(started_at=0.0)

            def hear(round_: Round) -> None:
                nonlocal progress
                progress = round_

            async with shown(lambda seconds: _line(progress, seconds), quiet=options.json):
                round_ = await scrub.run(anew=True, told=hear)
        found = {"damaged": str(round_.damaged), "missing": str(round_.missing)}
        await note(metadata, "storage.scrub", blobs=str(round_.blobs), **found)
    return round_


def _line(round_: Round, seconds: float) -> str:
    rate = readable(int(round_.size / seconds))
    return (
        f"{round_.blobs:,} blobs, {readable(round_.size)}, {rate}/s, "
        f"{round_.damaged} damaged, {round_.missing} missing"
    )


def _document(round_: Round) -> dict[str, object]:
    return {
        "blobs": round_.blobs,
        "bytes": round_.size,
        "damaged": round_.damaged,
        "missing": round_.missing,
    }
