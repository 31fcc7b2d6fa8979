"""Which versions of which packages are known to be vulnerable, as OSV publishes it."""

from pathlib import Path

from cypd.scanning.ports import NotReady

FILE_NAME = "osv.sqlite"


def require_file(folder: Path) -> Path:
    """Return the file in the folder; raise NotReady if there is none."""
    file = folder / FILE_NAME
    if not file.exists():
        raise NotReady(
            "there is no vulnerability data: run `cypd vulndb update` with the ecosystems of your "
            "images, such as `cypd vulndb update PyPI npm Go Debian:12`, or, without the internet, "
            "`cypd vulndb import FILE` with an ecosystem's all.zip of osv.dev"
        )
    return file
