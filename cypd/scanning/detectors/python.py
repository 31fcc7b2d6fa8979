"""Python's packages, as installers leave them: dist-info (PEP 376), and egg-info before it."""

import io
from collections.abc import Iterator
from email.parser import BytesHeaderParser

from cypd.scanning.detectors.detector import Detector
from cypd.scanning.detectors.language_files import PYTHON
from cypd.scanning.packages import Damaged, Package
from cypd.scanning.unpacking import Budget


def _wants(path: str, _: int) -> bool:
    return path.endswith(("METADATA", "PKG-INFO", ".egg-info")) and bool(PYTHON.fullmatch(path))


def _read(_: str, file: io.BytesIO, __: Budget) -> Iterator[Package]:
    fields = BytesHeaderParser().parse(file)
    name, version = str(fields.get("Name", "")).strip(), str(fields.get("Version", "")).strip()
    if not name or not version:
        raise Damaged("no Name or no Version")
    yield Package("pypi", name, version)


DETECTOR = Detector("Python", _wants, _read)
