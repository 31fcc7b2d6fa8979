"""What waits is scanned, whatever comes of it, and whoever dies meanwhile."""

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from cypd.oci.digest import Digest
from cypd.oci.media_types import OCI_INDEX
from cypd.oci.names import Tag
from cypd.registry.ports import Unavailable
from cypd.scanning.ports import NotReady, ScanFailed, Severity
from cypd.scanning.sboms import SBOM
from cypd.turn import turn
from tests.samples import ACT, artifact, image
from tests.samples import index as document_of_index
from tests.scanning.house import APP, FAILED, House, finding

ARM = json.dumps({"os": "linux", "architecture": "arm64"}).encode()


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """A registry with an engine that does as it is told."""
    built = House(tmp_path)
    await built.begin()
    yield built
    await built.close()


async def test_a_scan_finds_what_its_engine_finds(house: House) -> None:
    """Findings the worst first, their summary, the packages, who found them and in what data."""
    digest = await house.push("latest", b"one", b"two", config=ARM)
    low, high = finding("CVE-1", Severity.LOW), finding("CVE-2", Severity.HIGH)
    house.engine.found[digest] = (low, high)
    house.start()
    scan = await house.scan(digest)
    (examined,) = scan.images

    assert ("succeeded", "scripted 1", 123.0, "g", "") == (
        scan.status,
        scan.scanner,
        scan.database_updated_at,
        scan.generation,
        scan.error,
    )
    assert (0, 1, 0, 1, 0) == msgspec.structs.astuple(scan.summary)
    assert (str(digest), "linux/arm64", 7) == (
        examined.digest,
        examined.platform,
        examined.packages,
    )
    assert [[high, low]] == [list(it) for it in house.store.findings(scan.id)]


async def test_the_log_tells_what_was_done(house: House) -> None:
    """What was read, how many packages, how it ended; nothing that plays with terminals."""
    digest = await house.push("latest", b"one")
    house.start()
    lines = house.store.scan_log((await house.scan(digest)).id)

    assert f"library/app@{digest}: 1 image(s), by scripted" in lines[0]
    assert r"looking at 1 layers\x1b[31m" in lines[1]
    assert f"{digest}: 7 packages" in lines[2]
    told = r"succeeded: 0 critical, 0 high, 0 medium, 0 low, 0 unknown; [0-9]+\.[0-9] seconds"
    assert re.search(told, lines[3])


async def test_an_index_is_scanned_image_by_image(house: House) -> None:
    """All of them, each with its own findings and SBOM; what they share is counted once."""
    one, two = image(b"one", config=ARM), image(b"two")
    first, second = await house.push("a", b"one", config=ARM), await house.push("b", b"two")
    whole = await house.push_index("latest", one, two)
    house.engine.found = {
        first: (finding("CVE-1"),),
        second: (finding("CVE-1"), finding("CVE-2")),
    }
    house.start()
    scan = await house.scan(whole)

    assert [str(first), str(second)] == [it.digest for it in scan.images]
    assert 2 == scan.summary.high
    assert 2 == len({it.sbom_digest for it in scan.images})
    assert ["CVE-1"] == [it.id for it in house.store.findings_in(scan.number, first)]
    subjects = [house.manifests.referrers(APP, it, after="", limit=9) for it in (first, second)]
    assert [1, 1] == [len(it) for it in subjects]


async def test_an_index_may_list_more_than_images(house: House) -> None:
    """What is none is passed over; what is one is scanned, whatever platform it is said to have."""
    digest, signed = await house.push("a", b"one"), artifact(b"one")
    await house.put_manifest(signed, "attestation")
    document = json.loads(document_of_index(image(b"one"), signed))
    document["manifests"][0]["platform"] = {"os": "unknown", "architecture": "unknown"}
    whole = await house.put_manifest(json.dumps(document).encode(), "latest", OCI_INDEX)
    house.start()
    scan = await house.scan(whole)

    assert "succeeded" == scan.status
    assert [str(digest)] == [it.digest for it in scan.images]


async def test_the_sbom_is_a_referrer_of_its_image(house: House) -> None:
    """Its manifest has the type that clients look for; there is one, of the last scan, and it ends
    with the image.
    """
    digest = await house.push("latest", b"one")
    house.start()
    scan = await house.scan(digest)
    house.engine.sbom = b"""{"specVersion": "1.6", "bomFormat": "CycloneDX",
        "serialNumber": "urn:uuid:3e671687-395b-41f5-a30f-a58921a69b79",
        "metadata": {"timestamp": "2026-01-01T00:00:00Z"}}"""
    house.engine.sbom = house.engine.sbom.replace(b'"metadata": {', b'"metadata": {"x": 1, ')
    again = await house.scan(digest)
    house.engine.sbom = house.engine.sbom.replace(b"2026", b"2027").replace(b"3e67", b"0000")
    last = await house.scan(digest)
    (sbom,), (other,), (same,) = ([it.sbom_digest for it in s.images] for s in (scan, again, last))
    referrers = [json.loads(it) for it in house.manifests.referrers(APP, digest, after="", limit=9)]

    assert {SBOM} == {it["artifactType"] for it in referrers}
    assert sbom != other == same
    assert [other] == [it["digest"] for it in referrers]
    manifest = house.metadata.registry.manifest(APP, Digest.parse(str(other)))
    assert manifest is not None
    (layer,) = json.loads(manifest.content or b"")["layers"]
    content = await house.storage.open(Digest.parse(layer["digest"]), layer["size"])
    assert b"CycloneDX" in getattr(content, "data", b"")
    await house.metadata.registry.delete_manifest(APP, digest, act=ACT)
    assert house.metadata.registry.manifest(APP, Digest.parse(str(other))) is None


async def test_the_quota_counts_sboms(house: House) -> None:
    """Where there is no room for one, the findings are kept, and the log tells why it is not."""
    digest = await house.push("latest", b"one")
    used = house.metadata.projects.usage(house.metadata.projects.projects(after="", limit=1)[0].id)
    await _set_quota(house, used.used + 10)
    house.engine.found[digest] = (finding(),)
    house.start()
    scan = await house.scan(digest)

    assert ("succeeded", None, 1) == (scan.status, scan.images[0].sbom_digest, scan.summary.high)
    log = "\n".join(house.store.scan_log(scan.id))
    assert "the SBOM is not stored: the project's storage quota is exceeded" in log


async def _set_quota(house: House, quota: int) -> None:
    from cypd.projects.ports import Changes

    (project,) = house.metadata.projects.projects(after="", limit=9)
    await house.metadata.projects.change_project(
        project.id, Changes(updated_at=2.0, storage_quota=quota)
    )


@pytest.mark.parametrize(
    ("trouble", "error"),
    [
        (FAILED, "its layers are no archives"),
        (NotReady("import some data"), "import some data"),
        (Unavailable("the disk is full"), "the registry could not do it: the disk is full"),
        (RuntimeError("canary"), "internal error; the daemon's log tells more"),
        (ScanFailed("bad \x1b[31m name"), r"bad \x1b[31m name"),
    ],
)
async def test_a_scan_that_fails_says_why(
    house: House, trouble: Exception, error: str, caplog: pytest.LogCaptureFixture
) -> None:
    """To people, and in its log; the runner goes on, and our own faults are logged."""
    digest, other = await house.push("a", b"one"), await house.push("b", b"two")
    house.engine.trouble = trouble
    house.start()
    scan = await house.scan(digest)
    house.engine.trouble = None

    assert ("failed", error) == (scan.status, scan.error)
    assert f"failed: {error}" in house.store.scan_log(scan.id)[-1]
    assert "succeeded" == (await house.scan(other)).status
    assert isinstance(trouble, RuntimeError) == ("canary" in caplog.text)


async def test_what_is_no_image_fails(house: House) -> None:
    """Artifacts, indexes of nothing, of too much, and those that list one another too deep."""
    await house.push("latest", b"one")
    other = await house.put_manifest(artifact(b"one"), "artifact")
    empty = await house.push_index("empty")
    house.start()
    deep = [await house.push_index("level-0", image(b"one"))]
    content = document_of_index(image(b"one"))
    for level in range(1, 5):
        content = document_of_index(content).replace(b"image.manifest", b"image.index")
        deep.append(await house.put_manifest(content, f"level-{level}", OCI_INDEX))
    many = [image(b"one", note=str(number)) for number in range(33)]
    for number, it in enumerate(many):
        await house.put_manifest(it, f"t{number}")
    wide = await house.push_index("wide", *many)
    scans = [await house.scan(it) for it in (other, empty, deep[0], deep[2], deep[4], wide)]

    assert [
        f"{other} is no image: a/b",
        "the index lists no image",
        "",
        "",
        "indexes that list indexes more than 3 deep",
        "an index of more than 32 images",
    ] == [it.error for it in scans]


async def test_layers_that_were_not_pushed_are_not_looked_for(house: House) -> None:
    """Not even where another repository holds them; those that must not be pushed are left out."""
    await house.push("latest", b"one")
    foreign = image(b"one", b"foreign").replace(
        b"image.layer.v1.tar", b"image.layer.nondistributable.v1.tar"
    )
    part = await house.put_manifest(foreign, "foreign")
    sparse = await house.put_manifest(image(b"one", b"sparse"), "sparse")
    house.start()
    scan, failed = await house.scan(part), await house.scan(sparse)

    assert "succeeded" == scan.status
    assert f"the layer {Digest.of(b'foreign')} is not looked at" in "".join(
        house.store.scan_log(scan.id)
    )
    assert f"the layer {Digest.of(b'sparse')} is not in this registry" == failed.error


async def test_time_is_limited(house: House) -> None:
    """What takes too long fails, and the engine is told to end."""
    digest = await house.push("latest", b"one")
    house.engine.holds.clear()
    house.start(house.runner(timeout=0.2))
    scan = await house.scan(digest)

    assert ("failed", "it took longer than 0.2 seconds") == (scan.status, scan.error)
    assert [digest] == house.engine.ended


async def test_what_runs_can_be_cancelled_from_anywhere(house: House) -> None:
    """By whoever reaches the store: the engine ends at once, and the next one has its turn."""
    digest, other = await house.push("a", b"one"), await house.push("b", b"two")
    house.engine.holds.clear()
    house.start()
    scan, following = await house.ask(digest), await house.ask(other)
    await house.until(lambda: house.engine.scanned)
    await house.store.cancel_scan(scan.id, at=1.0)
    await house.until(lambda: house.engine.ended)
    house.engine.holds.set()

    assert "succeeded" == (await house.ended(following.id)).status
    assert "cancelled" == house.status(scan.id)
    assert house.store.scan_log(scan.id)[-1].endswith("Z cancelled")


async def test_each_scan_that_ends_is_told_of(house: House) -> None:
    """How it ended, and nothing of one that was cancelled, whenever that was."""
    digest = await house.push("latest", b"one")
    house.start()
    await house.scan(digest)
    house.engine.trouble = FAILED
    await house.scan(digest)
    house.engine.holds.clear()
    asked = await house.ask(digest)
    await house.until(lambda: len(house.engine.scanned) == 3)
    await house.store.cancel_scan(asked.id, at=1.0)
    await house.until(lambda: len(house.engine.ended) == 3)
    house.engine.trouble = None
    house.engine.holds.set()
    await house.scan(digest)
    await house.until(lambda: len(house.told) == 3)  # a moment after the store knows

    assert ["succeeded", "failed", "succeeded"] == house.told


async def test_what_waits_can_be_cancelled(house: House) -> None:
    """It is never begun."""
    digest, other = await house.push("a", b"one"), await house.push("b", b"two")
    scan = await house.ask(digest)
    await house.store.cancel_scan(scan.id, at=1.0)
    house.start()
    await house.scan(other)

    assert [other] == house.engine.scanned


async def test_a_deleted_image_ends_its_scan(house: House) -> None:
    """The engine is told to end, and the next one has its turn."""
    digest, other = await house.push("a", b"one"), await house.push("b", b"two")
    house.engine.holds.clear()
    house.start()
    await house.ask(digest)
    await house.until(lambda: house.engine.scanned)
    await house.metadata.registry.delete_manifest(APP, digest, act=ACT)
    await house.until(lambda: house.engine.ended)
    house.engine.holds.set()

    assert "succeeded" == (await house.scan(other)).status


async def test_the_queue_survives_a_restart(house: House) -> None:
    """What ran begins anew, in its place, and is not blamed for it; nothing is lost."""
    digests = [await house.push(tag, tag.encode()) for tag in ("a", "b", "c")]
    scans = [await house.ask(it) for it in digests]
    house.engine.holds.clear()
    house.start()
    await house.until(lambda: house.engine.scanned)
    await house.stop()
    assert [digests[0]] == house.engine.ended
    assert ["pending"] * 3 == [house.status(it.id) for it in scans]
    house.engine.holds.set()
    house.start()
    ended = [await house.ended(it.id) for it in scans]

    assert ["succeeded"] * 3 == [it.status for it in ended]
    assert [0] * 3 == [it.interruptions for it in ended]
    assert [digests[0], *digests] == house.engine.scanned


async def test_a_crash_is_survived_twice(house: House) -> None:
    """A scan that its process never comes back from fails at last."""
    scan = await house.ask(await house.push("a", b"one"))
    for _ in range(2):
        await house.store.start_scan(at=1.0)  # by a process that is gone
        house.engine.is_ready = False
        house.start()
        await house.until(lambda: house.status(scan.id) == "pending")
        await house.stop()
    await house.store.start_scan(at=1.0)
    house.start()
    failed = await house.ended(scan.id)

    assert "failed" == failed.status
    assert [] == house.engine.scanned


async def test_scans_wait_until_the_engine_is_ready(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    """One line in the log says what to do; then they are done."""
    house.engine.is_ready = False
    digest = await house.push("a", b"one")
    with caplog.at_level(logging.WARNING):
        house.start()
        scan = await house.ask(digest)
        await house.until(lambda: "scans wait: import some data" in caplog.text)
        await asyncio.sleep(1.2)
    assert 1 == caplog.text.count("scans wait")
    assert "pending" == house.status(scan.id)
    house.engine.is_ready = True

    assert "succeeded" == (await house.ended(scan.id)).status


@pytest.mark.parametrize("parallel", [1, 3])
async def test_only_so_many_run_at_a_time(house: House, parallel: int) -> None:
    """As many as the configuration says."""
    digests = [await house.push(f"t{number}", b"%d" % number) for number in range(5)]
    scans = [await house.ask(it) for it in digests]
    house.engine.holds.clear()
    house.start(house.runner(parallel=parallel))
    await house.until(lambda: len(house.engine.scanned) >= parallel)
    await asyncio.sleep(0.7)
    house.engine.holds.set()
    for it in scans:
        await house.ended(it.id)

    assert parallel == house.engine.most_at_once


async def test_pushes_are_scanned_where_that_is_wanted(house: House) -> None:
    """An image pushed by a tag, whoever pushes it; not the SBOM that comes of it."""
    house.start(house.runner(on_push=True))
    await asyncio.sleep(0.7)  # it begins with what happens from now on
    digest = await house.push("latest", b"one")
    await house.until(lambda: house.store.latest(APP, digest))
    await asyncio.sleep(1.2)

    assert [("push", "latest", "ada")] == [
        (it.trigger, it.reference, it.username)
        for it in house.store.scans(None, offset=0, limit=9).items
    ]


async def test_pushes_are_not_scanned_otherwise(house: House) -> None:
    """Nobody asked for it."""
    house.start()
    await asyncio.sleep(0.7)
    await house.push("latest", b"one")
    await asyncio.sleep(1.2)

    assert 0 == house.store.scans(None, offset=0, limit=9).total


async def test_new_data_has_known_images_scanned_again(house: House) -> None:
    """Those that bear a tag, once for each change of the data, also after a restart."""
    known = [await house.push(f"t{number}", b"%d" % number) for number in range(3)]
    await house.push("unknown", b"unknown")
    house.start()
    for it in known:
        await house.scan(it)
    await house.metadata.registry.delete_tag(APP, Tag("t2"), act=ACT)
    house.engine.scanned.clear()
    house.engine.data = "newer"
    await house.until(lambda: len(house.engine.scanned) >= 2)
    await asyncio.sleep(1.2)
    await house.until(lambda: not house.store.under_way())
    await house.stop()
    house.start()
    await asyncio.sleep(1.2)

    assert set(known[:2]) == set(house.engine.scanned)
    assert 2 == len(house.engine.scanned)
    newest = house.store.scans(None, offset=0, limit=2).items
    assert [("data", "newer", "")] * 2 == [
        (it.trigger, it.generation, it.username) for it in newest
    ]


async def test_new_data_changes_nothing_where_that_is_not_wanted(house: House) -> None:
    """What was scanned stays as it was found."""
    digest = await house.push("latest", b"one")
    house.start(house.runner(on_new_data=False))
    await house.scan(digest)
    house.engine.data = "newer"
    await asyncio.sleep(1.2)

    assert [digest] == house.engine.scanned


async def test_one_process_of_several_scans(tmp_path: Path, house: House) -> None:
    """The one whose turn it is; another one takes over when that ends."""
    runners: list[int] = []

    async def run(number: int) -> None:
        async with turn(tmp_path / "scanner.lock"):
            runners.append(number)
            await house.runner().run()

    tasks = [asyncio.create_task(run(it)) for it in range(2)]
    digests = [await house.push(f"t{number}", b"%d" % number) for number in range(3)]
    for it in digests:
        await house.scan(it)
    assert 1 == len(runners)
    assert 3 == len(house.engine.scanned)
    tasks[runners[0]].cancel()
    other = await house.push("other", b"other")
    assert "succeeded" == (await house.scan(other)).status
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_store_that_fails_ends_the_round(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As itself, so that what repeats it knows whether the process has to end."""

    async def fail(_self: object, **_: object) -> None:
        raise Unavailable("full")

    monkeypatch.setattr(type(house.store), "start_scan", fail)
    with pytest.raises(Unavailable, match="full"):
        await asyncio.wait_for(house.runner().run(), 20)
