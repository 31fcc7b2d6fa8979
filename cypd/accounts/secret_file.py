"""Secrets in files that only their owner can read."""

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


def write(path: Path, secret: str) -> None:
    """Write a secret, 0600 and durable, in place of whatever stands there."""
    path.unlink(missing_ok=True)  # a file somebody else made could have another mode
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secret + "\n")
        file.flush()
        os.fsync(file.fileno())


def ensure(path: Path) -> str:
    """Return the secret of a file; the first time, make one up of 256 random bits.

    Processes that ask at the same time get the same one.
    """
    with _locked(path.parent):
        try:
            secret = path.read_text().strip()
        except FileNotFoundError:
            secret = ""
        if not secret:  # also one whose writer was killed before its first byte
            secret = secrets.token_hex(32)
            write(path, secret)
        return secret


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep others out for as long as a file takes to be written (flock(2))."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
