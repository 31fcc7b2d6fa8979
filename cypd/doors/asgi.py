"""The ASGI vocabulary that doors and applications share.

Beside the ASGI HTTP specification (2.4) a door may offer, in ``scope["extensions"]``:

``http.response.zerocopysend``
    The ASGI extension of that name: ``{"type": ..., "file": int or file object, "offset": int,
    "count": int, "more_body": bool}`` sends a piece of an open file with ``sendfile(2)``.
    The application owns the file and keeps it open until ``send`` returns.
``http.response.pathsend``
    The ASGI extension of that name: ``{"type": ..., "path": str}`` sends a whole file.
``cypd.request.slabs``
    ``{"receive": receive}``: like ``receive``, but each ``body`` is a ``memoryview`` of a buffer
    that the door fills again: a slab stays as it is until the *second* call of ``receive`` after
    the one that gave it. So one slab can be hashed and written while the next one fills, and no
    byte is copied on the way. A body that breaks off gives what arrived before
    ``http.disconnect``.
"""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]

ZEROCOPY_SEND = "http.response.zerocopysend"
PATH_SEND = "http.response.pathsend"
REQUEST_SLABS = "cypd.request.slabs"
