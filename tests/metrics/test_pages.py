"""Pages: what is counted stays counted, whoever counts, ends, is killed, or reads meanwhile."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from cypd.metrics import table
from cypd.metrics.page import Page, Series
from cypd.metrics.pages import Pages, Values, locked

SENT, PULLED = table.SENT, table.PULLED
COUNTER = """
import sys, time
from pathlib import Path
from cypd.metrics import table
from cypd.metrics.page import Page
page = Page(Path(sys.argv[1]))
page.add(table.SENT, 7)
page.put(table.CONNECTIONS, 5)
page.put(table.LOOP_LAG, 3_000_000_000)
print("counted", flush=True)
time.sleep(60)
"""


def everything(_: Series) -> bool:
    """Keep all series."""
    return True


def value(values: Values, metric: table.Metric, *labels: str) -> int | None:
    """Return the one number of a series."""
    found = values.get((metric.name, *labels))
    return None if found is None else found[0]


def kill_a_worker(folder: Path) -> None:
    """Have a process count, and kill it."""
    command = [sys.executable, "-c", COUNTER, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"counted\n"
        worker.send_signal(signal.SIGKILL)


def pages_in(folder: Path) -> list[Path]:
    """Return the files that hold numbers."""
    return [*folder.glob("*.page"), *folder.glob("*.new")]


def test_workers_are_told_as_one(tmp_path: Path) -> None:
    """Counters and most gauges are added up; of the loops' lags the worst one counts."""
    first, second = Page(tmp_path), Page(tmp_path)
    for page, amount in ((first, 3), (second, 4)):
        page.add(SENT, amount)
        page.put(table.CONNECTIONS, amount)
        page.put(table.LOOP_LAG, amount)
        page.put(table.MAX_DESCRIPTORS, amount)
    values = Pages(tmp_path).values()

    assert [7, 7, 4, 3, 2] == [
        value(values, it)
        for it in (SENT, table.CONNECTIONS, table.LOOP_LAG, table.MAX_DESCRIPTORS, table.WORKERS)
    ]


def test_what_a_killed_worker_counted_stays(tmp_path: Path) -> None:
    """Its counters are told before and after they are taken over, its gauges are not; it counts."""
    page, pages = Page(tmp_path), Pages(tmp_path)
    page.add(SENT, 1)
    page.put(table.CONNECTIONS, 2)
    kill_a_worker(tmp_path)
    before = pages.values()
    pages.inherit(everything)

    for values in (before, pages.values()):
        assert [8, 2, 1, 1] == [
            value(values, it) for it in (SENT, table.CONNECTIONS, table.RESTARTS, table.WORKERS)
        ]
        assert value(values, table.LOOP_LAG) is None


def test_a_worker_that_ended_as_it_should_was_no_accident(tmp_path: Path) -> None:
    """It leaves what it has counted, and is no restart."""
    page, pages = Page(tmp_path), Pages(tmp_path)
    page.add(SENT, 5)
    page.close()
    pages.inherit(everything)

    assert (5, None, 0) == tuple(
        value(pages.values(), it) for it in (SENT, table.RESTARTS, table.WORKERS)
    )


def test_the_folder_does_not_grow_with_those_who_died(tmp_path: Path) -> None:
    """However many workers there were: a page each of those that live, and one sum."""
    living, pages = Page(tmp_path), Pages(tmp_path)
    living.add(SENT, 1)
    for _ in range(3):
        kill_a_worker(tmp_path)
        pages.inherit(everything)
    for _ in range(100):
        page = Page(tmp_path)
        page.add(SENT, 1)
        page.close()
    pages.inherit(everything)

    assert value(pages.values(), SENT) == 1 + 3 * 7 + 100
    assert len(pages_in(tmp_path)) == 1
    assert len(list(tmp_path.iterdir())) == 3  # with the sum and the lock


def test_who_reads_meanwhile_never_sees_less(tmp_path: Path) -> None:
    """While pages are taken over, no reader misses one or counts one twice."""
    pages, stop = Pages(tmp_path), threading.Event()
    seen: list[list[int]] = [[0], [0]]
    Page(tmp_path).close()

    def read(seen: list[int]) -> None:
        while not stop.is_set():
            seen.append(value(Pages(tmp_path).values(), SENT) or 0)

    readers = [threading.Thread(target=read, args=(each,)) for each in seen]
    for reader in readers:
        reader.start()
    written = 0
    try:
        for _ in range(150):
            page = Page(tmp_path)
            page.add(SENT, 1)
            written += 1
            page.close()
            pages.inherit(everything)
    finally:
        stop.set()
        for reader in readers:
            reader.join()

    assert value(pages.values(), SENT) == written
    for each in seen:
        assert each[-1] <= written
        assert all(later >= earlier for earlier, later in pairwise(each))


def test_a_page_that_is_full_is_turned(tmp_path: Path) -> None:
    """What finds no place is lost until then, and nothing else is; gauges go to the new one."""
    page, pages = Page(tmp_path), Pages(tmp_path)
    page.put(table.ACTIVE_PULLS, 3)
    names = [f"project-{number}" for number in range(5000)]
    for name in names:
        page.add(PULLED, 1, name, "memory")
    counted = sum(numbers[0] for it, numbers in pages.values().items() if it[0] == PULLED.name)
    assert page.is_full
    assert 3000 < counted < 5000

    page.turn()
    assert not page.is_full
    page.add(PULLED, 1, "one-more", "memory")
    page.add(table.ACTIVE_PULLS, -1)
    values = pages.values()
    again = sum(numbers[0] for it, numbers in values.items() if it[0] == PULLED.name)
    assert (counted + 1, 2, 1) == (
        again,
        value(values, table.ACTIVE_PULLS),
        value(values, table.WORKERS),
    )


def test_what_is_not_told_any_more_is_dropped(tmp_path: Path) -> None:
    """A series that nobody is told of does not stay in the sum for ever."""
    page, pages = Page(tmp_path), Pages(tmp_path)
    page.add(PULLED, 1, "gone", "memory")
    page.add(PULLED, 2, "here", "memory")
    page.close()
    pages.inherit(lambda it: "gone" not in it)

    assert value(pages.values(), PULLED, "here", "memory") == 2
    assert value(pages.values(), PULLED, "gone", "memory") is None


@pytest.mark.parametrize("content", [b"", b"{", b"\x00" * 4096])
def test_a_sum_that_a_power_cut_spoilt_is_begun_anew(tmp_path: Path, content: bytes) -> None:
    """Numbers are no reason not to start."""
    (tmp_path / "heritage.json").write_bytes(content)
    (tmp_path / "1-00000000.page").write_bytes(content)
    page, pages = Page(tmp_path), Pages(tmp_path)
    page.add(SENT, 1)
    pages.inherit(everything)

    assert value(pages.values(), SENT) == 1
    assert len(pages_in(tmp_path)) == 1


def test_one_takes_over_at_a_time(tmp_path: Path) -> None:
    """Who finds somebody else at it does not wait, and takes nothing over."""
    Page(tmp_path).close()
    with locked(tmp_path) as is_mine:
        assert is_mine
        Pages(tmp_path).inherit(everything)
        assert len(pages_in(tmp_path)) == 1
    Pages(tmp_path).inherit(everything)

    assert pages_in(tmp_path) == []


def _refuse(*_: object) -> None:
    raise OSError(28, os.strerror(28))


def test_a_full_disk_keeps_nobody_from_serving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A page that has no room on the disk is kept in memory, with a word in the log."""
    refuse: Callable[..., None] = _refuse
    monkeypatch.setattr(os, "posix_fallocate", refuse)
    page = Page(tmp_path)
    page.add(SENT, 1)

    assert "counts for itself" in caplog.text
    assert pages_in(tmp_path) == []
    page.close()
