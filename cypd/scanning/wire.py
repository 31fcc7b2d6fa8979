"""What the daemon and the process that scans say to each other.

The process reads one ``Job`` as JSON from its standard input. It answers lines of JSON, each a
``Said``, a ``Found`` or, at last, one of ``Done`` and ``Failed``. After ``Done`` follow ``sbom``
bytes. The image may have taken the process over: so whoever reads this counts.
"""

import msgspec

from cypd.oci.digest import Digest
from cypd.oci.errors import OCIError
from cypd.scanning.limits import Limits
from cypd.scanning.ports import Finding

MAX_LINE = 16 << 10
MAX_SAID = 2000
MAX_FINDINGS = 8000
MAX_FINDINGS_BYTES = 4 << 20
MAX_SBOM_BYTES = 4 << 20


class LayerFile(msgspec.Struct, frozen=True):
    """A layer to read."""

    descriptor: int
    """Of its file, which the process inherits; -1 if it is not here, as foreign layers may be."""
    digest: Digest
    media_type: str


class Job(msgspec.Struct, frozen=True):
    """An image to scan."""

    repository: str
    digest: Digest
    layers: tuple[LayerFile, ...]
    """The bottom one first."""
    database: str
    """Path of the folder of the vulnerability data."""
    limits: Limits


class Said(msgspec.Struct, frozen=True, tag="said"):
    """A line of the scan's log."""

    line: str


class Found(msgspec.Struct, frozen=True, tag="found"):
    """A finding."""

    finding: Finding


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The end of a scan that went well; ``sbom`` bytes follow."""

    packages: int
    scanner: str
    database_updated_at: float | None
    sbom: int


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The end of a scan that did not."""

    reason: str
    trace: str = ""
    """Where it happened, if the fault is not the image's."""
    is_unready: bool = False
    """Whether it is for want of data; the reason says what to do."""


Message = Said | Found | Done | Failed


def encode(value: Job | Message) -> bytes:
    """Return a value as JSON, in one line."""
    return msgspec.json.encode(value, enc_hook=str)


def decode(line: bytes) -> Message:
    """Return a message; raise ValueError for what is none."""
    try:
        return _message.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not a message: {error}") from None


def decode_job(document: bytes) -> Job:
    """Return a job; it comes from the daemon."""
    return _job.decode(document)


def _restore(kind: type, value: object) -> object:
    if kind is Digest:
        try:
            return Digest.parse(str(value))
        except OCIError as error:
            raise ValueError(error.message) from None
    raise NotImplementedError(kind)


_message: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message, dec_hook=_restore)
_job = msgspec.json.Decoder(Job, dec_hook=_restore)
