"""The writer thread: many callers, one transaction, and what failures do."""

import asyncio
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest

from cypd import refusals
from cypd.metadata.lmdb import LmdbMetadata
from cypd.metadata.lmdb import writer as writers
from cypd.metadata.lmdb.environment import Environment
from cypd.oci.digest import Digest
from cypd.oci.errors import Code, OCIError
from cypd.refusals import Refusal
from cypd.registry.ports import Fatal, Unavailable
from tests.samples import EMPTY, name, project


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[Environment]:
    """An open environment."""
    environment = Environment(tmp_path / "metadata", 1 << 20)
    yield environment
    environment.close()


def put(key: bytes, value: bytes = b"x") -> writers.Operation[bool]:
    """Return an operation that writes one key."""
    return lambda transaction: transaction.put(key, value)


def committed(environment: Environment, key: bytes) -> bytes | None:
    """Read a key."""
    with environment.lmdb.begin() as transaction:
        found = transaction.get(key)
    return None if found is None else bytes(found)


def last_transaction(environment: Environment) -> int:
    """Return the number of the last commit."""
    return int(environment.lmdb.info()["last_txnid"])


async def test_each_commit_is_told_on_the_loop(environment: Environment) -> None:
    """How long it took and of how many writes it was, after those who waited have their answers."""
    told: list[tuple[float, int, int]] = []
    loop = threading.get_ident()
    environment.writer.seen = lambda seconds, count: told.append(
        (seconds, count, threading.get_ident())
    )
    await environment.writer.run(lambda _: time.sleep(0.05))
    await environment.writer.run(put(b"key"))
    await asyncio.sleep(0)

    assert [(count, where) for _, count, where in told] == [(1, loop), (1, loop)]
    assert told[0][0] >= 0.05
    assert environment.writer.waiting == 0


def test_figures_are_those_of_the_map(environment: Environment) -> None:
    """How much of it is taken, and how many transactions ago its oldest reader began."""
    before = environment.figures()
    assert before.map_size == 1 << 20
    assert 0 < before.map_used < before.map_size
    with environment.lmdb.begin():
        for number in range(7):
            commit = threading.Thread(target=_commit, args=(environment, b"%d" % number))
            commit.start()
            commit.join()
        assert environment.figures().oldest_reader == 7

    assert environment.figures().oldest_reader == 0
    assert environment.figures().map_used > before.map_used


def _commit(environment: Environment, key: bytes) -> None:
    with environment.lmdb.begin(write=True) as transaction:
        transaction.put(key, b"x" * 10_000)


async def test_waiting_writes_share_a_commit(environment: Environment) -> None:
    """A hundred writes that wait for the thread cost far fewer than a hundred commits."""
    before = last_transaction(environment)
    release = threading.Event()

    def wait(transaction: lmdb.Transaction) -> bool:
        return release.wait(5)

    blocked = asyncio.ensure_future(environment.writer.run(wait))
    await asyncio.sleep(0.01)
    writes = [asyncio.ensure_future(environment.writer.run(put(b"%d" % i))) for i in range(100)]
    await asyncio.sleep(0.01)
    release.set()
    await asyncio.gather(blocked, *writes)

    assert all(committed(environment, b"%d" % i) for i in range(100))
    assert last_transaction(environment) - before <= 2


async def test_an_awaited_write_is_read_by_another_process(environment: Environment) -> None:
    """When the await returns the commit is done: another process sees it."""
    await environment.writer.run(put(b"key", b"value"))
    script = (
        "import lmdb, sys; e = lmdb.open(sys.argv[1], max_dbs=20, lib_version=0, readonly=True); "
        "print(e.begin().get(b'key').decode())"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        script,
        environment.lmdb.path(),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()

    assert output == b"value\n"


async def test_a_cancelled_caller_does_not_undo_its_write(environment: Environment) -> None:
    """A thousand callers that go away leave the writer working, and their writes done."""
    writes = [asyncio.ensure_future(environment.writer.run(put(b"%d" % i))) for i in range(1000)]
    await asyncio.sleep(0)
    for write in writes[::2]:
        write.cancel()
    await asyncio.gather(*writes, return_exceptions=True)
    await environment.writer.run(put(b"end"))

    assert all(committed(environment, b"%d" % i) for i in range(1000))


async def test_a_refused_operation_leaves_its_batch_alone(environment: Environment) -> None:
    """Some are refused, one is at fault; what was queued beside them is committed."""

    def refuse(transaction: lmdb.Transaction) -> None:
        raise OCIError(Code.DENIED)

    def refuse_too(transaction: lmdb.Transaction) -> None:
        raise Refusal(refusals.Code.PROJECT_NOT_FOUND)

    def fail(transaction: lmdb.Transaction) -> None:
        transaction.put(b"half", b"done")
        raise ValueError("a bug")

    run = environment.writer.run
    outcomes = await asyncio.gather(
        run(put(b"a")), run(refuse), run(refuse_too), run(put(b"b")), run(fail), run(put(b"c")),
        return_exceptions=True,
    )  # fmt: skip

    assert [bool, OCIError, Refusal, bool, ValueError, bool] == [type(it) for it in outcomes]
    assert [b"x", b"x", b"x", None] == [
        committed(environment, key) for key in (b"a", b"b", b"c", b"half")
    ]


async def test_a_full_map_refuses_and_recovers(environment: Environment) -> None:
    """A write that does not fit is Unavailable and changes nothing; deletes and reads go on."""
    await environment.writer.run(put(b"small"))
    with pytest.raises(Unavailable, match="map_size"):
        await environment.writer.run(put(b"large", b"x" * (2 << 20)))

    assert committed(environment, b"large") is None
    await environment.writer.run(lambda transaction: transaction.delete(b"small"))
    assert committed(environment, b"small") is None


async def test_a_failed_commit_is_fatal_for_good(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an error that is no full map, nothing is written any more."""

    def broken(transaction: lmdb.Transaction) -> None:
        raise lmdb.DiskError("mdb_txn_commit: Input/output error")

    with pytest.raises(Fatal, match="Input/output"):
        await environment.writer.run(broken)
    with pytest.raises(Fatal):
        await environment.writer.run(put(b"after"))

    assert committed(environment, b"after") is None


async def test_a_full_disk_is_not_fatal(environment: Environment) -> None:
    """ENOSPC fails the pages of one transaction; the next one may find room."""

    def full(transaction: lmdb.Transaction) -> None:
        raise lmdb.Error("mdb_txn_commit: No space left on device")

    with pytest.raises(Unavailable, match="full"):
        await environment.writer.run(full)
    await environment.writer.run(put(b"after"))

    assert committed(environment, b"after")


async def test_a_full_queue_refuses(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the bound a write is Unavailable at once, instead of waiting in memory."""
    monkeypatch.setattr(writers, "MAX_QUEUE", 0)

    with pytest.raises(Unavailable, match="waiting"):
        await environment.writer.run(put(b"key"))


async def test_closing_finishes_what_is_queued(tmp_path: Path) -> None:
    """A write that was queued before the end is committed."""
    environment = Environment(tmp_path / "metadata", 1 << 20)
    write = asyncio.ensure_future(environment.writer.run(put(b"key")))
    await asyncio.sleep(0)
    environment.close()
    await write
    environment = Environment(tmp_path / "metadata", 1 << 20)

    assert committed(environment, b"key")
    environment.close()


async def test_the_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    """Folder 0700, files 0600, whatever the umask says."""
    previous = os.umask(0)
    try:
        store = LmdbMetadata(tmp_path / "metadata", 1 << 20)
    finally:
        os.umask(previous)
    await store.projects.create_project(project())
    await store.registry.link_blob(name(), Digest.of(EMPTY), 2, upload_id=None)
    store.close()
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "metadata").iterdir()}

    assert modes == {"data.mdb": 0o600, "lock.mdb": 0o600}
    assert (tmp_path / "metadata").stat().st_mode & 0o777 == 0o700


async def test_a_store_of_another_version_is_refused(tmp_path: Path) -> None:
    """A layout this version does not know is not touched."""
    environment = Environment(tmp_path / "metadata", 1 << 20)
    meta = environment.database("meta")
    await environment.writer.run(lambda txn: txn.put(b"schema", b"999", db=meta))
    environment.close()

    with pytest.raises(Fatal, match="another version"):
        Environment(tmp_path / "metadata", 1 << 20)
