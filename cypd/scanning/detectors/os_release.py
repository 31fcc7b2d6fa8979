"""Which distribution it is: os-release(5)."""

import io
import re
from collections.abc import Iterator

from cypd.scanning.detectors.detector import Detector
from cypd.scanning.packages import Distribution
from cypd.scanning.unpacking import Budget

_PATHS = frozenset({"etc/os-release", "usr/lib/os-release"})
_LINE = re.compile(r"""^([A-Z_]+)=(["']?)(.*)\2$""", re.MULTILINE)


def _wants(path: str, _: int) -> bool:
    return path in _PATHS


def _read(_: str, file: io.BytesIO, __: Budget) -> Iterator[Distribution]:
    text = file.read(64 << 10).decode(errors="replace")
    fields = {match[1]: match[3][:100] for match in _LINE.finditer(text)}
    if fields.get("ID"):
        name = fields.get("PRETTY_NAME") or fields["ID"]
        yield Distribution(fields["ID"], fields.get("VERSION_ID", ""), name)


DETECTOR = Detector("distribution", _wants, _read)
