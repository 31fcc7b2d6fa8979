"""The plaintext door: HTTP/1.1 on uvloop, with ``sendfile(2)`` out and reusable slabs in.

Read in this order: ``h1`` (bytes to a request head, pure), ``response`` (a response head to bytes,
pure), ``body`` (a request body into slabs), ``exchange`` (one request in ASGI's words),
``protocol`` (one connection), ``sendfile`` (files to sockets), ``server`` (all of it together).
"""

from cypd.doors.plain.lifespan import Lifespan
from cypd.doors.plain.limits import Limits
from cypd.doors.plain.server import PlainDoor, bind

__all__ = ["Lifespan", "Limits", "PlainDoor", "bind"]
