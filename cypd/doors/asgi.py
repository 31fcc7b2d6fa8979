"""The ASGI vocabulary that doors and applications share.

Beside the ASGI HTTP specification (2.4) a door may offer, in ``scope["extensions"]``:

``http.response.zerocopysend``
    The ASGI extension of that name: ``{"type": ..., "file": int or file object, "offset": int,
    "count": int, "more_body": bool}`` sends a piece of an open file: with ``sendfile(2)``, or
    encrypted straight from the page cache. The application owns the file and keeps it open until
    ``send`` returns.
``cypd.request.slabs``
    ``{"receive": receive}``: like ``receive``, but each ``body`` is a ``memoryview`` of a buffer
    that the door fills again: a slab stays as it is until the *second* call of ``receive`` after
    the one that gave it. So one slab can be hashed and written while the next one fills, and no
    byte is copied on the way. A body that breaks off gives what arrived before
    ``http.disconnect``.
"""

import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]

ZEROCOPY_SEND = "http.response.zerocopysend"
REQUEST_SLABS = "cypd.request.slabs"


class FileRange(NamedTuple):
    """A piece of an open file: its descriptor, and where it begins and ends, in bytes."""

    file: int
    start: int
    stop: int


def file_range(message: Message) -> FileRange:
    """Return what ``http.response.zerocopysend`` sends: else from where the file stands to its end.

    Raises OSError for a file that can't be asked.
    """
    file = message["file"]
    descriptor = file if isinstance(file, int) else file.fileno()
    offset = message.get("offset")
    if offset is None:
        offset = os.lseek(descriptor, 0, os.SEEK_CUR)
    count = message.get("count")
    if count is None:
        count = max(os.fstat(descriptor).st_size - offset, 0)
    return FileRange(descriptor, offset, offset + count)
