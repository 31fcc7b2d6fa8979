"""``cypd vulndb``: what is imported from files and from a server, as a whole or not at all."""

import io
import json
import os
import re
import signal
import subprocess
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from cypd.scanning.vulndb.store import VulnerabilityData
from tests.daemon import CYPD
from tests.scanning.laboratory import record

pytestmark = pytest.mark.timeout(180)
Result = subprocess.CompletedProcess[str]


def cypd(folder: Path, *arguments: str, **environment: str) -> Result:
    """Run ``cypd vulndb`` with its data in a folder."""
    return subprocess.run(
        [CYPD, "vulndb", *arguments],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def archive(*records: dict[str, Any]) -> bytes:
    """Return an ecosystem's all.zip: always the same bytes, since cases are named by them."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as written:
        for document in records:
            entry = zipfile.ZipInfo(f"{document['id']}.json")  # of 1980, not of now
            written.writestr(entry, json.dumps(document), zipfile.ZIP_DEFLATED)
    return file.getvalue()


def known(folder: Path, ecosystem: str, package: str) -> set[str]:
    """Return the ids of what is known of a package."""
    data = VulnerabilityData(folder / "data" / "vulndb")
    found = {advice.vulnerability.id for advice in data.about(ecosystem, package)}
    data.close()
    return found


def test_an_archive_replaces_its_ecosystem(tmp_path: Path) -> None:
    """And nothing else; a release of a distribution is an ecosystem of its own."""
    old, new = record("A-1", "PyPI", "x"), record("A-2", "PyPI", "x")
    debian = [record("D-1", "Debian:12", "x"), record("D-2", "Debian:12", "x")]
    debian[0]["affected"].append(record("D-1", "Debian:11", "x")["affected"][0])
    for name, records in {"old": [old], "new": [new], "debian": debian}.items():
        (tmp_path / f"{name}.zip").write_bytes(archive(*records))

    first = cypd(tmp_path, "import", "old.zip", "debian.zip")
    second = cypd(tmp_path, "import", "new.zip")

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert first.stdout == (
        "PyPI: 1 vulnerabilities, the latest change of 2026-01-01\n"
        "Debian:12: 2 vulnerabilities, the latest change of 2026-01-01\n"
    )
    assert "PyPI: 1 of 1 records" in first.stderr
    assert {"A-2"} == known(tmp_path, "PyPI", "x")
    assert {"D-1", "D-2"} == known(tmp_path, "Debian:12", "x")
    assert set() == known(tmp_path, "Debian:11", "x")


def test_single_files_add_up(tmp_path: Path) -> None:
    """One of an id replaces the one before; an archive leaves them alone."""
    for number, document in enumerate(
        [record("S-1", "PyPI", "x"), record("S-2", "npm", "x"), record("S-1", "PyPI", "y")]
    ):
        (tmp_path / f"{number}.json").write_text(json.dumps(document))
        assert cypd(tmp_path, "import", f"{number}.json").returncode == 0
    (tmp_path / "all.zip").write_bytes(archive(record("A-1", "PyPI", "y")))
    assert cypd(tmp_path, "import", "all.zip").returncode == 0

    assert set() == known(tmp_path, "PyPI", "x")
    assert {"S-1", "A-1"} == known(tmp_path, "PyPI", "y")
    assert {"S-2"} == known(tmp_path, "npm", "x")


def test_status(tmp_path: Path) -> None:
    """What was imported, when, and how much of it; before the first import, what to do."""
    nothing = cypd(tmp_path, "status")
    (tmp_path / "all.zip").write_bytes(archive(*(record(f"A-{it}", "Go", "x") for it in range(9))))
    cypd(tmp_path, "import", "all.zip")
    shown, raw = cypd(tmp_path, "status"), cypd(tmp_path, "status", "--json")

    assert (nothing.returncode, nothing.stdout) == (1, "")
    assert "run `cypd vulndb update`" in nothing.stderr
    assert shown.stdout.splitlines()[1].split()[:2] == ["Go", "9"]
    [source] = json.loads(raw.stdout)
    assert (source["name"], source["vulnerabilities"]) == ("Go", 9)
    assert source["imported_at"] == pytest.approx(time.time(), abs=60)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"nothing", "not a vulnerability in OSV's format"),
        (b"{}", "not a vulnerability in OSV's format"),
        (b'{"id": ""}', "it has no id"),
        (b'{"id": 1}', "not a vulnerability in OSV's format"),
        (b"[" * 100_000, "not a vulnerability in OSV's format"),
        (archive(record("A-1", "PyPI", "x"), record("A-2", "npm", "x")), "no ecosystem in common"),
        (archive(record("A-1", "PyPI", "x"))[:-30], "not a vulnerability"),
        (archive(record("A-1", "PyPI", "x")).replace(b"A-1.json", b"A-2.json", 1), "all.zip: "),
    ],
)
def test_what_can_not_be_imported_changes_nothing(
    tmp_path: Path, content: bytes, message: str
) -> None:
    """It says which file and why; what comes along with it is not imported either."""
    (tmp_path / "good.zip").write_bytes(archive(record("A-0", "PyPI", "x")))
    (tmp_path / "better.zip").write_bytes(archive(record("A-9", "PyPI", "x")))
    (tmp_path / "all.zip").write_bytes(content)
    cypd(tmp_path, "import", "good.zip")
    failed = cypd(tmp_path, "import", "better.zip", "all.zip")

    assert (failed.returncode, failed.stdout) == (1, "")
    assert message in failed.stderr
    assert "Traceback" not in failed.stderr
    assert {"A-0"} == known(tmp_path, "PyPI", "x")
    assert {"osv.sqlite"} == set(os.listdir(tmp_path / "data" / "vulndb"))
    assert "No such file" in cypd(tmp_path, "import", "absent.zip").stderr


def test_damaged_data_is_replaced(tmp_path: Path) -> None:
    """As the message says: an import makes it anew, without what can't be read."""
    (tmp_path / "good.zip").write_bytes(archive(record("A-0", "PyPI", "x")))
    file = tmp_path / "data" / "vulndb" / "osv.sqlite"
    file.parent.mkdir(parents=True)
    for content in (b"", b"nothing", b"SQLite format 3\0" + bytes(5000)):
        file.write_bytes(content)
        status = cypd(tmp_path, "status")
        assert status.returncode == 1
        assert "run `cypd vulndb update` or `cypd vulndb import` anew" in status.stderr
        assert cypd(tmp_path, "import", "good.zip").returncode == 0
        assert {"A-0"} == known(tmp_path, "PyPI", "x")


def test_an_import_that_is_killed_changes_nothing(tmp_path: Path) -> None:
    """Whenever that is, readers have the old data, and the next import goes well."""
    (tmp_path / "good.zip").write_bytes(archive(record("A-0", "PyPI", "x")))
    cypd(tmp_path, "import", "good.zip")
    large = [record(f"A-{it}", "PyPI", "x", details="y" * 200) for it in range(1, 20_000)]
    (tmp_path / "large.zip").write_bytes(archive(*large))
    new = tmp_path / "data" / "vulndb" / "osv.new"
    killed = subprocess.Popen(
        [CYPD, "vulndb", "import", "large.zip"], cwd=tmp_path, stderr=subprocess.DEVNULL
    )
    while not new.exists():
        assert killed.poll() is None
        time.sleep(0.001)
    killed.send_signal(signal.SIGSTOP)
    busy = cypd(tmp_path, "import", "good.zip")
    killed.send_signal(signal.SIGKILL)
    killed.wait(30)

    assert {"A-0"} == known(tmp_path, "PyPI", "x")
    assert busy.returncode == 1
    assert "another process is importing" in busy.stderr
    assert cypd(tmp_path, "import", "large.zip").returncode == 0
    assert 19_999 == len(known(tmp_path, "PyPI", "x"))


# --- downloads ----------------------------------------------------------------------------------


class Publisher(ThreadingHTTPServer):
    """A server of archives below ``/osv``: with entity tags, ranges, and failures when told so."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.archives: dict[str, bytes] = {}
        self.breaks: list[int] = []
        """After how many bytes the next answers break off."""
        self.weak = False
        self.seen: list[tuple[int, dict[str, str]]] = []
        """Each answer's status, with its request's header."""

    @property
    def url(self) -> str:
        """The base address."""
        return f"http://127.0.0.1:{self.server_port}/osv"


class _Handler(BaseHTTPRequestHandler):
    server: Publisher
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        ecosystem = unquote(self.path).removeprefix("/osv/").removesuffix("/all.zip")
        content = self.server.archives.get(ecosystem)
        if content is None:
            self._answer(404, b"", {})
            return
        tag = ("W/" if self.server.weak else "") + f'"{hash(content)}"'
        if self.headers.get("If-None-Match") == tag:
            self._answer(304, b"", {"ETag": tag})
            return
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        if start and self.headers.get("If-Range") == tag:
            if start >= len(content):
                self._answer(416, b"", {})
                return
            span = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self._answer(206, content[start:], {"ETag": tag, "Content-Range": span})
            return
        self._answer(200, content, {"ETag": tag})

    def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.server.seen.append((status, dict(self.headers)))
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if status in (200, 206) and self.server.breaks:
            content = content[: self.server.breaks.pop(0)]
            self.close_connection = True
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    """A server that publishes."""
    with Publisher() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def update(folder: Path, publisher: Publisher, *ecosystems: str) -> Result:
    """Run ``cypd vulndb update``."""
    return cypd(folder, "update", *ecosystems, CYPD_SCANNING_UPDATE_URL=publisher.url)


def test_only_what_has_changed_is_downloaded(tmp_path: Path, publisher: Publisher) -> None:
    """Named once, an ecosystem is kept up to date from then on."""
    publisher.archives = {
        "PyPI": archive(record("A-1", "PyPI", "x")),
        "Red Hat": archive(record("R-1", "Red Hat:enterprise_linux:9::baseos", "x")),
    }
    nothing = update(tmp_path, publisher)
    first = update(tmp_path, publisher, "PyPI", "Red Hat")
    again = update(tmp_path, publisher)
    publisher.archives["PyPI"] = archive(record("A-2", "PyPI", "x"))
    changed = update(tmp_path, publisher)

    assert (nothing.returncode, first.returncode, again.returncode, changed.returncode) == (
        1, 0, 0, 0,
    )  # fmt: skip
    assert "name the ecosystems" in nothing.stderr
    assert again.stdout == "PyPI: has not changed\nRed Hat: has not changed\n"
    assert [200, 200, 304, 304, 200, 304] == [status for status, _ in publisher.seen]
    assert {"A-2"} == known(tmp_path, "PyPI", "x")
    assert {"R-1"} == known(tmp_path, "Red Hat:enterprise_linux:9::*", "x")
    assert [] == os.listdir(tmp_path / "data" / "vulndb" / "downloads")


def test_a_download_that_broke_off_goes_on(tmp_path: Path, publisher: Publisher) -> None:
    """From where it was, in the same run and in the next."""
    content = archive(*(record(f"A-{it}", "PyPI", "x") for it in range(3000)))
    publisher.archives = {"PyPI": content}
    publisher.breaks = [1000, 2000, 3000, 4000, 5000]
    failed = update(tmp_path, publisher, "PyPI")
    done = update(tmp_path, publisher, "PyPI")

    assert (failed.returncode, done.returncode) == (1, 0)
    assert "what has arrived is kept, so try again later" in failed.stderr
    assert [200, 206, 206, 206, 206, 206] == [status for status, _ in publisher.seen]
    starts = [header.get("Range", "") for _, header in publisher.seen]
    assert ["", *(f"bytes={it}-" for it in (1000, 3000, 6000, 10000, 15000))] == starts
    assert 3000 == len(known(tmp_path, "PyPI", "x"))


def test_halves_of_two_archives_are_never_joined(tmp_path: Path, publisher: Publisher) -> None:
    """What changed meanwhile, or can't be told apart, begins anew."""
    publisher.archives = {"PyPI": archive(*(record(f"A-{it}", "PyPI", "x") for it in range(500)))}
    publisher.breaks = [1000] * 4
    assert update(tmp_path, publisher, "PyPI").returncode == 1
    publisher.archives["PyPI"] = archive(record("B-1", "PyPI", "x"))
    assert update(tmp_path, publisher, "PyPI").returncode == 0
    assert {"B-1"} == known(tmp_path, "PyPI", "x")

    publisher.weak = True
    publisher.archives["PyPI"] = archive(*(record(f"C-{it}", "PyPI", "x") for it in range(500)))
    publisher.breaks = [1000]
    assert update(tmp_path, publisher, "PyPI").returncode == 0
    assert "Range" not in publisher.seen[-1][1]
    assert 500 == len(known(tmp_path, "PyPI", "x"))


def test_a_download_that_was_complete_already(tmp_path: Path, publisher: Publisher) -> None:
    """The rest of nothing is no range (416): it begins anew, and ends well."""
    content = archive(record("A-1", "PyPI", "x"))
    publisher.archives = {"PyPI": content}
    downloads = tmp_path / "data" / "vulndb" / "downloads"
    downloads.mkdir(parents=True)
    (downloads / "PyPI.zip.part").write_bytes(content)
    (downloads / "PyPI.etag").write_text(f'"{hash(content)}"')

    assert update(tmp_path, publisher, "PyPI").returncode == 0
    assert [416, 200] == [status for status, _ in publisher.seen]
    assert {"A-1"} == known(tmp_path, "PyPI", "x")


def test_one_that_can_not_be_had_keeps_no_other_back(tmp_path: Path, publisher: Publisher) -> None:
    """It is named, the status says that something is missing, and the others are imported."""
    publisher.archives = {"PyPI": archive(record("A-1", "PyPI", "x"))}
    result = update(tmp_path, publisher, "Pypi", "PyPI")

    assert result.returncode == 1
    assert "/osv/Pypi/all.zip: there is no such ecosystem" in result.stderr
    assert {"A-1"} == known(tmp_path, "PyPI", "x")


def test_programs_are_told_in_one_document(tmp_path: Path, publisher: Publisher) -> None:
    """What was imported, what has not changed, and what could not be had, each by name."""
    publisher.archives = {"PyPI": archive(record("A-1", "PyPI", "x"))}
    first = update(tmp_path, publisher, "PyPI", "--json")
    second = update(tmp_path, publisher, "PyPI", "Pypi", "--json")
    (tmp_path / "no.json").write_text("{")
    refused = cypd(tmp_path, "import", "no.json", "--json")

    assert (first.returncode, second.returncode, refused.returncode) == (0, 1, 1)
    told = json.loads(first.stdout)
    assert [(it["name"], it["vulnerabilities"]) for it in told["imported"]] == [("PyPI", 1)]
    told = json.loads(second.stdout)
    assert (told["imported"], told["unchanged"]) == ([], ["PyPI"])
    assert "there is no such ecosystem" in told["failed"]["Pypi"]
    assert "error" in json.loads(refused.stderr)


def test_the_commands_of_the_readme(tmp_path: Path, publisher: Publisher) -> None:
    """Each works as it stands there."""
    text = (Path(__file__).parents[2] / "README.md").read_text()
    lines = re.findall(r"(?m)^\.venv/bin/cypd vulndb (.*)$", text)
    names = ["PyPI", "npm", "Go", "Debian:12"]
    publisher.archives = {name: archive(record(f"{name}-1", name, "x")) for name in names}
    (tmp_path / "all.zip").write_bytes(archive(record("M-1", "Maven", "g:x")))
    environment = {"CYPD_SCANNING_UPDATE_URL": publisher.url}
    done = [cypd(tmp_path, *line.split(), **environment) for line in lines]

    assert [0, 0, 0] == [it.returncode for it in done], done
    assert [f"{name}: 1 vulnerabilities" in done[0].stdout for name in names] == [True] * 4
    assert len(done[2].stdout.splitlines()) == 6


def test_what_was_downloaded_but_is_none(tmp_path: Path, publisher: Publisher) -> None:
    """A proxy's page in place of an archive is refused, and the next update is a fresh one."""
    publisher.archives = {"PyPI": b"<html>Please sign in</html>"}
    refused = update(tmp_path, publisher, "PyPI")
    publisher.archives = {"PyPI": archive(record("A-1", "PyPI", "x"))}

    assert refused.returncode == 1
    assert "not a vulnerability" in refused.stderr
    assert update(tmp_path, publisher, "PyPI").returncode == 0
    assert {"A-1"} == known(tmp_path, "PyPI", "x")
