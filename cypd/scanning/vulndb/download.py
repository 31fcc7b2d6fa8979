"""Gets an ecosystem's archive from where OSV publishes it.

What has not changed is not sent again (RFC 9110 13.1.2), and a download that broke off goes on
where it did (14.2), in this run or the next.
"""

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from cypd.scanning.vulndb.importing import ImportFailed

Progress = Callable[[str, int, int], None]
"""Is told of what, how many bytes are here, of how many (0: not known)."""

_PIECE = 256 << 10
_TIMEOUT = 60
_TRIES = 4
# The largest archive has some 500 MiB; one without an end must not fill the registry's disk.
_MAX_BYTES = 4 << 30


class Download(NamedTuple):
    """A complete archive."""

    path: Path
    etag: str


class Downloader:
    """Downloads to a folder, where unfinished downloads wait to be continued."""

    def __init__(self, base: str, folder: Path, *, pause: float = 2.0) -> None:
        """``base``: the address that ``<ecosystem>/all.zip`` stands below; ``pause`` in seconds."""
        self._base = base.rstrip("/")
        self._folder = folder
        self._pause = pause
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)

    def get(self, ecosystem: str, etag: str, progress: Progress) -> Download | None:
        """Return the archive, or ``None`` if its server has none but that of ``etag``.

        Raises ImportFailed.
        """
        address = f"{self._base}/{quote(ecosystem, safe='')}/all.zip"
        why = ""
        for attempt in range(1, _TRIES + 1):
            try:
                return self._get(ecosystem, address, etag, progress)
            except urllib.error.HTTPError as error:
                error.close()
                if error.code == HTTPStatus.NOT_MODIFIED:
                    return None
                if error.code == HTTPStatus.NOT_FOUND:
                    raise ImportFailed(
                        f"{address}: there is no such ecosystem; their names are as in "
                        "https://osv-vulnerabilities.storage.googleapis.com/ecosystems.txt"
                    ) from None
                if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                    self._forget(ecosystem)
                why = f"status {error.code}"
            except (OSError, http.client.HTTPException) as error:
                why = str(getattr(error, "reason", "") or error)
            if attempt < _TRIES:
                time.sleep(self._pause * attempt)
        raise ImportFailed(f"{address}: {why}; what has arrived is kept, so try again later")

    def drop(self, download: Download) -> None:
        """Remove an archive that is imported."""
        download.path.unlink(missing_ok=True)

    def _get(self, ecosystem: str, address: str, etag: str, progress: Progress) -> Download:
        part, note = self._paths(ecosystem)
        headers = {"Accept-Encoding": "identity"}
        if etag:
            headers["If-None-Match"] = etag
        if part.exists() and note.exists():
            # Only a strong validator tells that the rest belongs to the beginning.
            headers["Range"] = f"bytes={part.stat().st_size}-"
            headers["If-Range"] = note.read_text(encoding="utf-8")
        request = urllib.request.Request(address, headers=headers)  # noqa: S310 (the configuration has http(s) only)
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:  # noqa: S310
            goes_on = response.status == HTTPStatus.PARTIAL_CONTENT
            if not goes_on:
                self._forget(ecosystem)
            found = response.headers.get("ETag", "")
            if found and not found.startswith("W/"):
                note.write_text(found, encoding="utf-8")
            _save(response, part, ecosystem, progress)
        note.unlink(missing_ok=True)
        return Download(part, found)

    def _paths(self, ecosystem: str) -> tuple[Path, Path]:
        name = quote(ecosystem, safe="")
        return self._folder / f"{name}.zip.part", self._folder / f"{name}.etag"

    def _forget(self, ecosystem: str) -> None:
        for path in self._paths(ecosystem):
            path.unlink(missing_ok=True)


def _save(
    response: http.client.HTTPResponse, part: Path, ecosystem: str, progress: Progress
) -> None:
    with part.open("ab") as file:
        missing = response.length
        total = file.tell() + missing if missing is not None else 0
        while piece := response.read(_PIECE):
            file.write(piece)
            if file.tell() > _MAX_BYTES:
                part.unlink()
                raise ImportFailed(f"{ecosystem}: its archive has more than {_MAX_BYTES} bytes")
            progress(ecosystem, file.tell(), total)
        if total and file.tell() < total:
            raise http.client.IncompleteRead(b"", total - file.tell())
