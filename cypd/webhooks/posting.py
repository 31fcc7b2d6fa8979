"""What posting a delivery is to those who have one to post."""

from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple


class Answer(NamedTuple):
    """What a target answered, whatever its status; a redirect is an answer and never followed."""

    status: int
    body: bytes
    """The first 64 KiB as they came, never decompressed."""
    duration: float
    """Seconds from the start of the post to the end of ``body``."""


class Undeliverable(Exception):
    """There is no answer; the message says why, and repeats neither URL nor header."""


Post = Callable[[str, Mapping[str, str], bytes], Awaitable[Answer]]
"""Posts a body to a URL with header fields; raises Undeliverable."""
