"""Who uses a storage: nothing is emptied that a daemon still serves from."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from cypd.registry.ports import Unavailable


@contextlib.contextmanager
def in_use(root: Path, driver: str) -> Iterator[None]:
    """Use the storage of that driver, beside others that do; raise ``Unavailable``."""
    refusal = f"the storage {driver} is being emptied at this moment"
    with _locked(root / f"{driver}.lock", fcntl.LOCK_SH, refusal):
        yield


@contextlib.contextmanager
def emptying(root: Path, driver: str) -> Iterator[None]:
    """Have the storage of that driver for oneself; raise ``Unavailable``."""
    refusal = f"a daemon that runs uses the storage {driver}"
    with _locked(root / f"{driver}.lock", fcntl.LOCK_EX, refusal):
        yield


@contextlib.contextmanager
def migrating(root: Path) -> Iterator[None]:
    """Be the only one who moves blobs; raise ``Unavailable``."""
    with _locked(root / "migrate.lock", fcntl.LOCK_EX, "another one migrates at this moment"):
        yield


@contextlib.contextmanager
def _locked(path: Path, kind: int, refusal: str) -> Iterator[None]:
    # flock(2): the kernel gives it back when the process ends, however it ends.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unavailable(refusal) from None
        yield
    finally:
        os.close(descriptor)
