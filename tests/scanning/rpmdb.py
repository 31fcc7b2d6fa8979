"""A database of rpm, made as rpm makes it: headers (rpm's manual, format_header) in SQLite."""

import sqlite3
import struct
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

_INT32, _STRING, _STRING_ARRAY = 4, 6, 8


def header(
    name: str,
    version: str,
    release: str,
    *,
    epoch: int | None = None,
    source: str = "",
    files: Sequence[str] = (),
) -> bytes:
    """Return the header of an installed package, of the source of its own name if none is named."""
    folders = sorted({path.rpartition("/")[0] + "/" for path in files})
    tags: list[tuple[int, int, list[int] | list[str]]] = [
        (1000, _STRING, [name]),
        (1001, _STRING, [version]),
        (1002, _STRING, [release]),
        (1004, _STRING, ["a summary that nobody reads"]),
        (1022, _STRING, ["x86_64"]),
        (1044, _STRING, [f"{source or name}-{version}-{release}.src.rpm"]),
    ]
    if epoch is not None:
        tags.append((1003, _INT32, [epoch]))
    if files:
        tags += [
            (1116, _INT32, [folders.index(path.rpartition("/")[0] + "/") for path in files]),
            (1117, _STRING_ARRAY, [path.rpartition("/")[2] for path in files]),
            (1118, _STRING_ARRAY, folders),
        ]
    index, data = b"", b""
    for tag, kind, values in sorted(tags, key=lambda it: it[0]):
        if kind == _INT32:
            data += b"\0" * (-len(data) % 4)
        index += struct.pack(">IIII", tag, kind, len(data), len(values))
        for value in values:
            data += struct.pack(">I", value) if isinstance(value, int) else value.encode() + b"\0"
    return struct.pack(">II", len(index) // 16, len(data)) + index + data


def database(folder: Path, *headers: bytes, wal: bool = False) -> bytes:
    """Return the content of rpmdb.sqlite with these packages."""
    path = folder / "rpmdb.sqlite"
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        if wal:
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(
            "CREATE TABLE Packages (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)"
        )
        connection.executemany(
            "INSERT INTO Packages (blob) VALUES (?)", [(header,) for header in headers]
        )
    return path.read_bytes()
