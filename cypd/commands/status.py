"""``cypd status``: what the running daemon is doing, from its metrics."""

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable
from http import HTTPStatus

import msgspec

from cypd.commands.ask import ask
from cypd.commands.figures import Report, Sample, report
from cypd.commands.output import Failed
from cypd.commands.screen import Screen, is_screen
from cypd.commands.sizes import readable
from cypd.config import Config, ConfigError
from cypd.logs import printable
from cypd.systemd import credential

_SECONDS = 1.0  # between two looks
_MAX_BYTES = 32 << 20

Scrape = Callable[[], Sample]


def run(config: Config, options: argparse.Namespace) -> int:
    """Show it once, or on a terminal until the user leaves."""
    scrape = _scraper(config)
    first = scrape()
    if options.json or options.once or not is_screen(os.environ, sys.stdin, sys.stdout):
        time.sleep(_SECONDS)
        found = report(first, scrape())
        print(msgspec.json.encode(found).decode() if options.json else "\n".join(_page(found)))
    else:
        with contextlib.suppress(KeyboardInterrupt):
            _watch(first, scrape)
    return 0


def _scraper(config: Config) -> Scrape:
    addresses = config.server.metrics_addresses()
    if not addresses:
        raise ConfigError("server.metrics_listen: it is empty, so nobody tells what cypd does")
    host, port = addresses[0]
    token = config.metrics.token or credential(os.environ, "metrics-token")

    def scrape() -> Sample:
        status, body = ask((host, port), "/metrics", most=_MAX_BYTES, token=token)
        if status == HTTPStatus.UNAUTHORIZED:
            raise Failed(f"{host}:{port} wants another metrics.token than this one")
        if status != HTTPStatus.OK or b"cypd_build_info" not in body:
            raise Failed(f"what answers at {host}:{port} is not cypd's metrics")
        return Sample(body.decode(errors="replace"), time.monotonic())

    return scrape


def _watch(last: Sample, scrape: Scrape) -> None:
    """Show the page anew each second. A daemon that is away may come back."""
    page: list[str] = []
    with Screen() as screen:
        while not screen.is_left(_SECONDS):
            try:
                now = scrape()
            except Failed as error:
                screen.show([printable(str(error)), *page[1:]])
            else:
                page = [*_page(report(last, now)), "", "q: leave"]
                screen.show(page)
                last = now


# --- the page -----------------------------------------------------------------------------------


def _page(it: Report) -> list[str]:
    process, queues, storage = it.process, it.queues, it.storage
    rows = {
        f"cypd {it.version}": f"{process.workers} worker(s), {process.restarts} restarts, "
        f"up {_duration(process.uptime_seconds)}",
        "": "",
        "out": f"{_speed(it.traffic.sent)}",
        "in": f"{_speed(it.traffic.received)}",
        "pulls": f"{it.pulls.active} active, {_speed(it.pulls.bytes_per_second)}",
        "uploads": f"{it.uploads.active} active, {_speed(it.uploads.bytes_per_second)}, "
        f"{it.upload_sessions} sessions open",
        "requests": f"{it.requests.answered:,.1f}/s, refused {it.requests.refused:,.1f}/s (4xx), "
        f"failed {it.requests.failed:,.1f}/s (5xx)",
        "connections": f"{process.connections}",
        "process": f"{process.cpu_cores:.2f} cores, {readable(process.resident_bytes)} resident, "
        f"{process.open_files} files, loop late by {process.loop_lag_seconds * 1000:.1f} ms",
        "writer": f"{queues.writer} waiting, {queues.commit_seconds * 1000:.1f} ms a commit",
        "webhooks": f"{queues.webhooks} waiting, "
        f"the oldest for {_duration(queues.webhooks_oldest_seconds)}",
        "scans": f"{queues.scans} waiting",
        "storage": f"{readable(storage.logical)} in projects, {readable(storage.physical)} of "
        f"content, {storage.deduplication:.2f} to 1",
        "disk": f"{readable(storage.disk_free)} free of {readable(storage.disk_size)}",
    }
    return [*(f"{name:<13} {value}".rstrip() for name, value in rows.items()), *_projects(it)]


def _projects(it: Report) -> list[str]:
    if not it.projects:
        return []
    lines = ["", f"{'PROJECT':<32} {'USED':>12} {'RESERVED':>12} {'QUOTA':>12} {'FULL':>7}"]
    for project in it.projects:
        quota = "unlimited" if project.quota is None else readable(project.quota)
        full = "" if project.percent is None else f"{project.percent:.1f}%"
        used, reserved = readable(project.used), readable(project.reserved)
        name = printable(project.name, 32)
        lines.append(f"{name:<32} {used:>12} {reserved:>12} {quota:>12} {full:>7}".rstrip())
    return lines


def _speed(bytes_per_second: float) -> str:
    return f"{readable(int(bytes_per_second))}/s"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
