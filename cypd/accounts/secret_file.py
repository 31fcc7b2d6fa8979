"""Secrets in files that only their owner can read."""

import os
import secrets
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
    """Return the secret of a file; the first time, make one up of 256 random bits."""
    try:
        secret = path.read_text().strip()
    except FileNotFoundError:
        secret = ""
    if not secret:  # also one whose writer was killed before its first byte
        secret = secrets.token_hex(32)
        write(path, secret)
    return secret
