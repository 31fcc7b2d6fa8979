"""What is known of an upload whose bytes are moving to the store: a small file beside its bytes.

Lines of JSON, appended: each part that has arrived, and now and then how far the hash is. A line
that a crash has cut off counts for nothing.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import msgspec

from cypd.oci.digest import Algorithm
from cypd.storage.s3.running import is_resumable, running_hash, state_of
from cypd.storage.staged import Progress

_SUFFIX = ".parts"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Part(msgspec.Struct, frozen=True, tag="part"):
    """Bytes of an upload that are an object of the store."""

    number: int
    """From 0."""
    key: str
    start: int
    size: int


class _Hashed(msgspec.Struct, frozen=True, tag="hashed"):
    """The state of the hash of an upload's first ``size`` bytes.

    It holds until the machine restarts: after a power cut the bytes that were only in memory are
    zeros, of which the state would tell something else. They have to be read again then.
    """

    size: int
    algorithm: Algorithm
    state: bytes
    boot: str


_decoder = msgspec.json.Decoder(Part | _Hashed)


class Journal:
    """The file of one upload; only who has locked the upload may call this."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.parts: list[Part] = []
        """Those that follow each other from the first byte on."""
        self.hashed: Progress | None = None
        """How far the hash was when it was last written down."""
        self.stored = 0
        """How many bytes, from the first one on, are in the store."""
        self._arrived: dict[int, Part] = {}
        self._size = 0
        self._read()

    @property
    def size(self) -> int:
        """How long the file is, for ``cut``."""
        return self._size

    def exists(self) -> bool:
        """Tell whether the store may have anything of the upload."""
        return self._path.exists()

    def begin(self) -> None:
        """Make the file, so that what may be in the store from now on is looked for there."""
        self._append(b"")

    def add(self, part: Part) -> None:
        """Note a part that has arrived."""
        self._append(msgspec.json.encode(part) + b"\n")
        self._note(part)

    def note_hash(self, progress: Progress) -> None:
        """Note how far the hash is, if its state can be told, and for how long it holds."""
        if (state := state_of(progress.hash)) is not None and (boot := _boot_id()):
            line = _Hashed(progress.size, progress.algorithm, state, boot)
            self._append(msgspec.json.encode(line) + b"\n")

    def cut(self, size: int) -> None:
        """Forget what was noted since the file was ``size`` bytes long."""
        with suppress(FileNotFoundError):
            os.truncate(self._path, size)
        self.parts, self.hashed, self.stored = [], None, 0
        self._read()

    def _append(self, line: bytes) -> None:
        with self._path.open("ab") as file:
            file.write(line)
        self._size += len(line)

    def _read(self) -> None:
        self._size = 0
        with suppress(FileNotFoundError):
            for line in self._path.read_bytes().splitlines(keepends=True):
                try:
                    entry = _decoder.decode(line)
                except msgspec.DecodeError:
                    break
                if not line.endswith(b"\n"):
                    break
                self._size += len(line)
                self._note(entry)
            os.truncate(self._path, self._size)
        self._arrived.clear()  # those with a gap before them are sent again

    def _note(self, entry: Part | _Hashed) -> None:
        if isinstance(entry, Part):
            self._arrived[entry.number] = entry
            while found := self._arrived.get(len(self.parts)):
                if found.start != self.stored:
                    break
                self.parts.append(found)
                self.stored += found.size
        elif entry.boot == _boot_id() and is_resumable(entry.algorithm, entry.state):
            running = running_hash(entry.algorithm, entry.state)
            self.hashed = Progress(entry.size, entry.algorithm, running)


def path_of(upload: Path) -> Path:
    """Return where the journal of an upload is."""
    return upload.with_name(upload.name + _SUFFIX)


def orphans(folder: Path) -> Sequence[str]:
    """Return the ids of uploads that have a journal and no bytes here any more."""
    names = set(os.listdir(folder))
    ids = (name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX))
    return [upload_id for upload_id in ids if upload_id not in names]


@cache
def _boot_id() -> str:
    """Return what no other boot of this machine has, or nothing where nobody tells.

    The service manager may have to: ``ProcSubset=pid`` hides the kernel's file.
    """
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return os.environ.get("BOOT_ID", "")
