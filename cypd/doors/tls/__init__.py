"""The TLS door: HTTP/1.1 and HTTP/2 over TLS by Granian (hyper and rustls), in our event loop.

User space has to encrypt anyway, and Granian does it in Rust on a thread of its own, off the GIL.
What Granian does otherwise than the plaintext door is levelled here, so that an application need
not know which door it stands behind.

Read in this order: ``certificates`` (the files), ``request`` (a scope checked and put into our
words, pure), ``exchange`` (one request), ``sockets`` (what only the kernel knows about Granian's
connections), ``server`` (all of it together).
"""

from cypd.doors.tls.certificates import CertificateError, Certificates
from cypd.doors.tls.server import TlsDoor

__all__ = ["CertificateError", "Certificates", "TlsDoor"]
