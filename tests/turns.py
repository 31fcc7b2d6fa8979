"""Who runs beside whom when several processes share the tests (``pytest -n``).

A file's tests stay in one process, so that what they share is built once. What mostly ``waits``
comes first, in two processes, while others keep the cores busy. What is to be ``alone`` comes last,
and runs while no other test does, in whichever process.
"""

import contextlib
import fcntl
import os
from collections.abc import Generator, Iterator
from itertools import cycle
from pathlib import Path

import pytest

_ORDER = pytest.StashKey[int]()


@pytest.hookimpl(tryfirst=True)  # xdist looks at the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say which tests belong together, and bring them into order."""
    waiting = cycle(("waits-1", "waits-2"))
    for item in items:
        if item.get_closest_marker("alone"):
            group, order = "alone", 2
        elif item.get_closest_marker("waits"):
            group, order = next(waiting), 0
        else:
            group, order = str(item.path), 1
        item.add_marker(pytest.mark.xdist_group(group))
        item.stash[_ORDER] = order
    items.sort(key=lambda item: item.stash[_ORDER])


# First, so that no test's timeout counts the time until its turn.
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Keep others away from what is alone."""
    is_alone = item.get_closest_marker("alone") is not None
    with _turn(item.config.rootpath / "tests", fcntl.LOCK_EX if is_alone else fcntl.LOCK_SH):
        return (yield)


@contextlib.contextmanager
def _turn(folder: Path, kind: int) -> Iterator[None]:
    """Lock a folder (flock(2)): the kernel lets it go with the process, however that ends."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, kind)
        yield
    finally:
        os.close(descriptor)
