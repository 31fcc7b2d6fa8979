"""Ruby's gems: the specifications that RubyGems writes when it installs one."""

import io
import re
from collections.abc import Iterator

from cypd.scanning.detectors.detector import Detector
from cypd.scanning.detectors.language_files import GEM
from cypd.scanning.packages import Damaged, Package
from cypd.scanning.unpacking import Budget

# Ruby's code, but always written by the same generator (Gem::Specification#to_ruby).
_NAME = re.compile(r"""^\s*\w+\.name\s*=\s*["']([^"'#]+)["']""", re.MULTILINE)
_VERSION = re.compile(
    r"""^\s*\w+\.version\s*=\s*(?:Gem::Version\.new\()?["']([^"'#]+)["']""", re.MULTILINE
)


def _wants(path: str, _: int) -> bool:
    return path.endswith(".gemspec") and GEM.fullmatch(path) is not None


def _read(_: str, file: io.BytesIO, __: Budget) -> Iterator[Package]:
    text = file.read().decode(errors="replace")
    name, version = _NAME.search(text), _VERSION.search(text)
    if not name or not version:
        raise Damaged("no name or no version")
    yield Package("gem", name[1], version[1])


DETECTOR = Detector("Ruby", _wants, _read)
