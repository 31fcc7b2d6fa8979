"""Sizes as people write and read them."""

import argparse
import re

from cypd.projects.ports import UNLIMITED
from cypd.projects.projects import MAX_QUOTA

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_BYTES = re.compile(r"([0-9]{1,19})([KMGT]?)(?:iB)?", re.ASCII)


def parse_quota(text: str) -> int:
    """Return bytes of ``512MiB``, ``10G`` or ``unlimited``; raise ArgumentTypeError."""
    return UNLIMITED if text == "unlimited" else parse_size(text)


def parse_size(text: str) -> int:
    """Return bytes of ``4096``, ``512MiB`` or ``10G``; raise ArgumentTypeError."""
    match = _BYTES.fullmatch(text)
    size = int(match[1]) * _UNITS[match[2]] if match else MAX_QUOTA + 1
    if size > MAX_QUOTA:
        raise argparse.ArgumentTypeError(f"not a size: {text!r}")
    return size


def readable(size: int) -> str:
    """Return a number of bytes with the largest unit that fits."""
    if size == UNLIMITED:
        return "unlimited"
    unit = next((unit for unit in reversed(_UNITS) if unit and size >= _UNITS[unit]), "")
    return f"{size / _UNITS[unit]:.1f} {unit}iB" if unit else f"{size} B"
