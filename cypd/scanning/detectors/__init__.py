"""What packages look like in an image: a module for each way to install them."""

from cypd.scanning.detectors import (
    apk,
    binaries,
    dpkg,
    java,
    node,
    os_release,
    python,
    rpm,
    ruby,
)
from cypd.scanning.detectors.detector import Detector

LANGUAGES: tuple[Detector, ...] = (python.DETECTOR, node.DETECTOR, ruby.DETECTOR, java.DETECTOR)
DETECTORS: tuple[Detector, ...] = (
    os_release.DETECTOR,
    dpkg.DETECTOR,
    dpkg.LISTS,
    apk.DETECTOR,
    rpm.DETECTOR,
    *LANGUAGES,
    binaries.DETECTOR,
)
