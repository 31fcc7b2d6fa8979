"""The contract of ``ScanStore``: a queue, its end, what was found, and what is forgotten."""

import uuid
from collections.abc import Awaitable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from cypd.metadata.lmdb import LmdbMetadata
from cypd.oci.digest import Digest
from cypd.oci.names import RepositoryName, Tag
from cypd.refusals import Code, Refusal
from cypd.registry.inventory_ports import Window
from cypd.scanning.ports import Finding, Severity
from cypd.scanning.scan_ports import MAX_LINES, Examined, Outcome, Result, Scan, Summary
from tests.samples import ACT, artifact, image, index, name, parsed, project

LIBRARY, OTHER = project("library"), project("other")
APP, TOOL, FOREIGN = name("library/app"), name("library/tool"), name("other/app")


@pytest.fixture
async def metadata(tmp_path: Path) -> Iterator[LmdbMetadata]:  # type: ignore[misc]
    """A store with two projects."""
    found = LmdbMetadata(tmp_path / "metadata", 64 << 20)
    for each in (LIBRARY, OTHER):
        await found.projects.create_project(each)
    yield found
    found.close()


async def push(
    metadata: LmdbMetadata, repository: RepositoryName, tag: str, content: bytes = b""
) -> Digest:
    """Push an image of its own for each tag, or a given manifest; return its digest."""
    manifest = content or image(tag.encode())
    media_type = "application/vnd.oci.image."
    media_type += "index.v1+json" if b'"manifests"' in manifest else "manifest.v1+json"
    await metadata.registry.put_manifest(
        repository,
        parsed(manifest, media_type),
        [Tag(tag)],
        inline=True,
        allow_sparse=True,
        act=ACT,
    )
    return Digest.of(manifest)


def new(digest: Digest, repository: RepositoryName = APP, **changes: Any) -> Scan:
    """Return a scan to be asked for."""
    fields = {
        "id": str(uuid.uuid4()),
        "number": 0,
        "project_id": project(repository.project).id,
        "repository": str(repository),
        "reference": "latest",
        "digest": str(digest),
        "trigger": "request",
        "user_id": "ada's id",
        "username": "ada",
        "created_at": 1.0,
    }
    return Scan(**fields | changes)  # type: ignore[arg-type]


def finding(name: str = "CVE-1", severity: Severity = Severity.HIGH) -> Finding:
    """Return a finding."""
    layer = Digest.of(b"layer")
    return Finding(
        name, "pkg", "1", "2", severity, "a title", "https://e/", 7.5, layer, "pkg:x/pkg"
    )


def good(*digests: Digest, findings: Sequence[Finding] = (), generation: str = "g") -> Outcome:
    """Return the outcome of a scan that found the same in each image."""
    results = [Result(Examined(str(it), "linux/amd64", 3, None), findings) for it in digests]
    return Outcome(
        9.0, results=results, summary=Summary.of(findings), scanner="s 1", generation=generation
    )


async def asked(metadata: LmdbMetadata, digest: Digest, repository: RepositoryName = APP) -> Scan:
    """Ask for a scan."""
    return await metadata.scans.request_scan(new(digest, repository), limit=1000)


async def scanned(
    metadata: LmdbMetadata, digest: Digest, outcome: Outcome | None = None, keep: int = 10
) -> Scan:
    """Ask for a scan and do it."""
    await asked(metadata, digest)
    running = await metadata.scans.start_scan(at=5.0)
    assert running is not None
    await metadata.scans.finish_scan(running.id, outcome or good(digest), keep=keep)
    found = metadata.scans.scan(running.id)
    assert found is not None
    return found


async def refused(code: Code, call: Awaitable[object]) -> None:
    """Assert that a call is refused with that code."""
    with pytest.raises(Refusal) as refusal:
        await call
    assert code is refusal.value.code


def listed(metadata: LmdbMetadata, *projects: str, **wanted: Any) -> list[str]:
    """Return the ids of scans as they are listed."""
    window = {"offset": 0, "limit": 100}
    return [it.id for it in metadata.scans.scans(projects or None, **window | wanted).items]


async def test_scans_are_done_in_the_order_they_were_asked_for(metadata: LmdbMetadata) -> None:
    """The oldest first, each once, and then there is none."""
    digests = [await push(metadata, APP, tag) for tag in ("a", "b", "c")]
    scans = [await asked(metadata, digest) for digest in digests]
    started = [await metadata.scans.start_scan(at=float(at)) for at in range(4)]

    assert [it.id for it in scans] == [it.id for it in started if it]
    assert started[3] is None
    assert ["running"] * 3 == [it.status for it in started if it]
    assert 3 == metadata.scans.scan_counts()["running"]


async def test_an_image_waits_once(metadata: LmdbMetadata) -> None:
    """Who asks again is told of the scan that waits; while it runs, another one may wait."""
    digest = await push(metadata, APP, "a")
    first = await asked(metadata, digest)
    assert first.id == (await asked(metadata, digest)).id
    await metadata.scans.start_scan(at=1.0)

    assert first.id != (await asked(metadata, digest)).id


async def test_the_queue_has_an_end(metadata: LmdbMetadata) -> None:
    """One too many is refused, and so is what is not there."""
    digest, other = await push(metadata, APP, "a"), await push(metadata, APP, "b")
    await metadata.scans.request_scan(new(digest), limit=1)
    again = metadata.scans.request_scan(new(other), limit=1)
    await refused(Code.TOO_MANY_REQUESTS, again)
    absent = metadata.scans.request_scan(new(Digest.of(b"x")), limit=9)
    await refused(Code.IMAGE_NOT_FOUND, absent)
    nowhere = metadata.scans.request_scan(new(digest, name("library/no")), limit=9)
    await refused(Code.IMAGE_NOT_FOUND, nowhere)


async def test_what_was_found_is_kept(metadata: LmdbMetadata) -> None:
    """Findings come back as they were, of each image and of all; the newest good scan leads."""
    digest = await push(metadata, APP, "a")
    findings = (finding("CVE-1"), finding("CVE-2", Severity.LOW))
    scan = await scanned(metadata, digest, good(digest, findings=findings))

    assert ("succeeded", 9.0, "s 1", "g") == (
        scan.status,
        scan.finished_at,
        scan.scanner,
        scan.generation,
    )
    assert Summary(high=1, low=1) == scan.summary
    assert [findings] == [tuple(it) for it in metadata.scans.findings(scan.id)]
    assert findings == tuple(metadata.scans.findings_in(scan.number, digest))
    assert scan.number == metadata.scans.latest(APP, digest)
    failed = await scanned(metadata, digest, Outcome(10.0, "no"))
    assert ("failed", "no") == (failed.status, failed.error)
    assert scan.number == metadata.scans.latest(APP, digest)
    assert scan == metadata.scans.numbered(scan.number)


async def test_the_scan_of_an_index_is_one_of_its_images_too(metadata: LmdbMetadata) -> None:
    """By their digests what was found in each of them is found; by its own, all of it."""
    arm, amd = image(b"arm"), image(b"amd")
    first, second = await push(metadata, APP, "x", arm), await push(metadata, APP, "y", amd)
    digest = await push(metadata, APP, "z", index(arm, amd))
    one, two = (finding("CVE-1"),), (finding("CVE-2"),)
    results = [
        Result(Examined(str(it), "", 1, None), found) for it, found in ((first, one), (second, two))
    ]
    scan = await scanned(metadata, digest, Outcome(9.0, results=results))
    found = metadata.scans.findings_in

    assert [scan.number] * 3 == [metadata.scans.latest(APP, it) for it in (digest, first, second)]
    assert [one, two] == [tuple(found(scan.number, it)) for it in (first, second)]
    assert {"CVE-1", "CVE-2"} == {it.id for it in found(scan.number, digest)}
    tags = metadata.inventory.list_tags(APP, Window(0, 9)).items
    assert ["succeeded"] * 3 == [it.scan_status for it in tags]
    # Without the index there is nothing left of it.
    await metadata.registry.delete_manifest(APP, digest, act=ACT)
    assert [None] * 3 == [metadata.scans.latest(APP, it) for it in (digest, first, second)]


async def test_a_tag_shows_its_newest_scan(metadata: LmdbMetadata) -> None:
    """Nothing, then each status in its turn, of what the tag points at."""

    def status() -> list[str | None]:
        return [it.scan_status for it in metadata.inventory.list_tags(APP, Window(0, 9)).items]

    digest = await push(metadata, APP, "a")
    await push(metadata, APP, "b")
    assert [None, None] == status()
    first = await asked(metadata, digest)
    assert ["pending", None] == status()
    await metadata.scans.start_scan(at=1.0)
    assert ["running", None] == status()
    await metadata.scans.finish_scan(first.id, Outcome(2.0, "no"), keep=9)
    assert ["failed", None] == status()
    second = await asked(metadata, digest)
    await metadata.scans.cancel_scan(second.id, at=3.0)
    assert ["cancelled", None] == status()


async def test_a_scan_that_is_over_stays_as_it_is(metadata: LmdbMetadata) -> None:
    """It is neither cancelled, nor ended again, nor put back."""
    digest = await push(metadata, APP, "a")
    scan = await scanned(metadata, digest)
    await refused(Code.NOT_IN_THIS_STATE, metadata.scans.cancel_scan(scan.id, at=9.0))
    assert not await metadata.scans.finish_scan(scan.id, Outcome(9.0, "no"), keep=9)
    await metadata.scans.put_back_scan(scan.id)
    assert scan == metadata.scans.scan(scan.id)
    await asked(metadata, digest)
    running = await metadata.scans.start_scan(at=1.0)
    assert running
    await metadata.scans.cancel_scan(running.id, at=2.0)

    assert not await metadata.scans.finish_scan(running.id, good(digest), keep=9)
    assert scan.number == metadata.scans.latest(APP, digest)


async def test_what_a_crash_leaves_is_done_again_but_not_for_ever(metadata: LmdbMetadata) -> None:
    """It waits again in its old place; after three times it has failed, and that is told."""
    digest, other = await push(metadata, APP, "a"), await push(metadata, APP, "b")
    scan, _ = await asked(metadata, digest), await asked(metadata, other)
    for _ in range(3):
        started = await metadata.scans.start_scan(at=1.0)
        assert started
        assert scan.id == started.id
        await metadata.scans.recover_scans(attempts=3, at=2.0)
    failed = metadata.scans.scan(scan.id)
    assert failed
    assert ("failed", "the process that scanned it ended 3 times before it was done") == (
        failed.status,
        failed.error,
    )
    assert "scan_fail" == metadata.events.events(after=0, limit=99)[-1].event.kind
    following = await metadata.scans.start_scan(at=3.0)
    assert following
    assert str(other) == following.digest


async def test_what_was_put_back_is_not_counted(metadata: LmdbMetadata) -> None:
    """A daemon that ends in order may do so at any time."""
    digest = await push(metadata, APP, "a")
    scan = await asked(metadata, digest)
    for _ in range(5):
        await metadata.scans.start_scan(at=1.0)
        await metadata.scans.put_back_scan(scan.id)
        await metadata.scans.recover_scans(attempts=1, at=1.0)

    assert ("pending", 0) == (
        getattr(metadata.scans.scan(scan.id), "status", ""),
        getattr(metadata.scans.scan(scan.id), "interruptions", -1),
    )


async def test_old_scans_are_forgotten(metadata: LmdbMetadata) -> None:
    """All but the newest of an image that are over, and never the newest good one."""
    digest, other = await push(metadata, APP, "a"), await push(metadata, APP, "b")
    foreign = await scanned(metadata, other, keep=1)
    best = await scanned(metadata, digest, good(digest, findings=[finding()]), keep=2)
    failed = [await scanned(metadata, digest, Outcome(9.0, "no"), keep=2) for _ in range(3)]

    kept = {failed[2].id, failed[1].id, best.id, foreign.id}
    assert kept == set(listed(metadata))
    assert metadata.scans.scan(failed[0].id) is None
    again = await scanned(metadata, digest, keep=2)
    assert {again.id, failed[2].id, foreign.id} == set(listed(metadata))
    assert [] == list(metadata.scans.findings(best.id))


async def test_scans_end_with_their_image(metadata: LmdbMetadata) -> None:
    """A deleted manifest takes all of them with it; the one that runs ends as nothing."""
    digest, other = await push(metadata, APP, "a"), await push(metadata, APP, "b")
    await scanned(metadata, digest, good(digest, findings=[finding()]))
    running = await asked(metadata, digest)
    await metadata.scans.start_scan(at=1.0)
    await metadata.scans.note_scan(running.id, ["a line"])
    kept = await asked(metadata, other)
    await metadata.registry.delete_manifest(APP, digest, act=ACT)

    assert [kept.id] == listed(metadata)
    assert metadata.scans.scan(running.id) is None
    assert not await metadata.scans.finish_scan(running.id, good(digest), keep=9)
    assert [] == list(metadata.scans.scan_log(running.id))
    assert {"pending": 1, "running": 0, "succeeded": 0, "failed": 0, "cancelled": 0} == dict(
        metadata.scans.scan_counts()
    )


async def test_a_project_takes_its_scans_with_it(metadata: LmdbMetadata) -> None:
    """Those of another stay, and a new one of the same name has none."""
    await scanned(metadata, await push(metadata, APP, "a"))
    foreign = await asked(metadata, await push(metadata, FOREIGN, "a"), FOREIGN)
    while not await metadata.projects.delete_project(LIBRARY.id, force=True, limit=100):
        pass
    await metadata.projects.create_project(project("library"))
    await push(metadata, APP, "a")

    assert [foreign.id] == listed(metadata)
    assert [] == listed(metadata, repository=APP)


async def test_lists_are_of_whom_is_asked_for(metadata: LmdbMetadata) -> None:
    """All, of projects, of a repository, by status: newest first, in parts, with their number."""
    scans = []
    for number in range(4):
        for repository in (APP, TOOL, FOREIGN):
            digest = await push(metadata, repository, f"t{number}")
            scans.append(await asked(metadata, digest, repository))
    await metadata.scans.start_scan(at=1.0)
    newest = [it.id for it in reversed(scans)]
    of = {it: [s.id for s in reversed(scans) if s.repository == it] for it in (APP, TOOL, FOREIGN)}
    both = [it for it in newest if it not in of[FOREIGN]]

    assert newest == listed(metadata)
    assert newest == listed(metadata, LIBRARY.id, OTHER.id)
    assert newest[3:8] == listed(metadata, LIBRARY.id, OTHER.id, offset=3, limit=5)
    assert both == listed(metadata, LIBRARY.id)
    assert of[APP] == listed(metadata, repository=APP)
    assert of[APP][1:3] == listed(metadata, repository=APP, offset=1, limit=2)
    assert [scans[0].id] == listed(metadata, status="running")
    assert newest[:-1] == listed(metadata, status="pending")
    assert [] == listed(metadata, OTHER.id, status="running")
    assert [] == listed(metadata, repository=name("library/no"))
    assert 8 == metadata.scans.scans([LIBRARY.id], offset=9, limit=9).total


async def test_logs_are_bounded(metadata: LmdbMetadata) -> None:
    """Lines stay in order; what is too much is left out."""
    scan = await asked(metadata, await push(metadata, APP, "a"))
    await metadata.scans.note_scan(scan.id, ["one", "two"])
    await metadata.scans.note_scan(scan.id, [str(it) for it in range(MAX_LINES)])
    lines = metadata.scans.scan_log(scan.id)

    assert ["one", "two", "0"] == list(lines[:3])
    assert MAX_LINES == len(lines)


async def test_the_end_of_a_scan_is_told(metadata: LmdbMetadata) -> None:
    """In the same transaction: what was found, or why it failed, and who had asked."""
    digest = await push(metadata, APP, "latest")
    scan = await scanned(metadata, digest, good(digest, findings=[finding()]))
    failed = await scanned(metadata, digest, Outcome(10.0, "no"))
    told, vain = [it.event for it in metadata.events.events(after=0, limit=99)][-2:]

    document = told.document()
    assert ("scan", "library", APP, "latest", str(digest)) == (
        document["event"],
        document["project"],
        document["repository"],
        document["tag"],
        document["digest"],
    )
    assert {"user_id": "ada's id", "username": "ada"} == document["actor"]
    assert {"id": scan.id, "summary": {"critical": 0, "high": 1, "medium": 0, "low": 0,
            "unknown": 0}, "scanner": "s 1"} == document["scan"]  # fmt: skip
    assert {"id": failed.id, "error": "no"} == vain.document()["scan_fail"]


async def test_pushes_by_tag_are_followed(metadata: LmdbMetadata) -> None:
    """Images and indexes, each once, from the first call on; nothing that is no image."""
    await push(metadata, APP, "before")

    async def follow(limit: int = 100, generation: str = "g") -> bool:
        return await metadata.scans.follow_pushes(limit=limit, step=2, generation=generation)

    assert not await follow()
    first = await push(metadata, APP, "a")
    await push(metadata, APP, "again", image(b"a"))
    await push(metadata, APP, "sbom", artifact(b"s", subject=first))
    second = await push(metadata, APP, "b", index(image(b"a")))
    await metadata.registry.put_manifest(
        APP, parsed(image(b"by digest")), [], inline=True, allow_sparse=True, act=ACT
    )
    gone = await push(metadata, APP, "gone")
    await metadata.registry.delete_manifest(APP, gone, act=ACT)
    while await follow():
        pass
    scans = metadata.scans.scans(None, offset=0, limit=9).items
    assert [str(second), str(first)] == [it.digest for it in scans]
    assert [("push", "ada", "b"), ("push", "ada", "a")] == [
        (it.trigger, it.username, it.reference) for it in scans
    ]


async def test_pushes_wait_for_room_and_are_not_done_twice(metadata: LmdbMetadata) -> None:
    """A full queue loses none; what was scanned with the data of today is passed over."""

    async def follow(generation: str = "g") -> None:
        while await metadata.scans.follow_pushes(limit=1, step=9, generation=generation):
            pass

    await follow()
    digests = [await push(metadata, APP, tag) for tag in ("a", "b", "c")]
    done = []
    for _ in digests:
        await follow()
        scan = await metadata.scans.start_scan(at=1.0)
        assert scan
        await metadata.scans.finish_scan(scan.id, good(Digest(scan.digest)), keep=9)
        done.append(scan.digest)
    assert [str(it) for it in digests] == done
    await push(metadata, APP, "a")
    await follow()
    assert 0 == metadata.scans.scan_counts()["pending"]
    await push(metadata, APP, "a")
    await follow("newer")
    assert 1 == metadata.scans.scan_counts()["pending"]


async def test_pushes_of_a_time_without_it_are_not_followed(metadata: LmdbMetadata) -> None:
    """Switched on again, it begins with what is pushed then."""
    await metadata.scans.follow_pushes(limit=9, step=9, generation="")
    await metadata.scans.forget_pushes()
    await push(metadata, APP, "off")
    while await metadata.scans.follow_pushes(limit=9, step=9, generation=""):
        pass
    digest = await push(metadata, APP, "on")
    while await metadata.scans.follow_pushes(limit=9, step=9, generation=""):
        pass

    assert [str(digest)] == [
        it.digest for it in metadata.scans.scans(None, offset=0, limit=9).items
    ]


async def test_images_of_other_data_are_found(metadata: LmdbMetadata) -> None:
    """Those that bear a tag, each once, in parts, an index as itself alone."""
    arm = image(b"arm")
    child = await push(metadata, APP, "child", arm)
    whole = await push(metadata, APP, "whole", index(arm))
    await scanned(metadata, whole, good(child))
    digests = [await push(metadata, APP, f"t{number}") for number in range(5)]
    for digest in digests:
        await scanned(metadata, digest)
    await metadata.registry.delete_tag(APP, Tag("t4"), act=ACT)

    def outdated(generation: str) -> list[str]:
        found, after = [], b""
        while True:
            part = metadata.scans.outdated(generation, after=after, limit=2)
            found += [it.digest for it in part.scans]
            if not (after := part.after):
                return sorted(found)

    assert [] == outdated("g")
    assert sorted(map(str, [whole, *digests[:4]])) == outdated("newer")


async def test_what_is_not_there_is_told_apart(metadata: LmdbMetadata) -> None:
    """Any text may be asked for."""
    for text in ("", "x" * 1000, "../x", str(uuid.uuid4())):
        assert metadata.scans.scan(text) is None
        assert not metadata.scans.is_running(text)
        assert [] == list(metadata.scans.findings(text))
        assert [] == list(metadata.scans.scan_log(text))
        await refused(Code.SCAN_NOT_FOUND, metadata.scans.cancel_scan(text, at=1.0))
        await metadata.scans.note_scan(text, ["line"])
        await metadata.scans.put_back_scan(text)
    assert [] == listed(metadata)
