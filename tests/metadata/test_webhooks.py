"""The contract of ``WebhookStore``: who is told of what, how much waits, and what is forgotten."""

import uuid
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from cypd.metadata.lmdb import LmdbMetadata
from cypd.oci.names import Tag
from cypd.refusals import Code, Refusal
from cypd.webhooks.ports import Attempt, RetryPolicy, Webhook
from tests.samples import ACT, EMPTY, image, name, parsed, project

LIBRARY, OTHER = project("library"), project("other")
APP, TOOL, FOREIGN = name("library/app"), name("library/tool"), name("other/app")
DONE = Attempt(at=10.0, duration=0.5, status=200, body=b"ok")
VAIN = Attempt(at=10.0, duration=0.5, status=None, error="timed out")


@pytest.fixture
async def metadata(tmp_path: Path) -> Iterator[LmdbMetadata]:  # type: ignore[misc]
    """A store with two projects."""
    found = LmdbMetadata(tmp_path / "metadata", 64 << 20)
    for each in (LIBRARY, OTHER):
        await found.projects.create_project(each)
    yield found
    found.close()


def webhook(project_id: str = LIBRARY.id, **changes: Any) -> Webhook:
    """Return a webhook for pushes."""
    made = Webhook(
        id=str(uuid.uuid4()),
        project_id=project_id,
        name="hook",
        url="https://example.com/",
        events=("push",),
        is_active=True,
        header_names=(),
        sealed=b"",
        has_secret=False,
        retry_policy=RetryPolicy(),
        created_at=1.0,
        updated_at=1.0,
    )
    return replace(made, **changes)


async def made(metadata: LmdbMetadata, **changes: Any) -> Webhook:
    """Store a webhook."""
    found = webhook(**changes)
    await metadata.webhooks.create_webhook(found, limit=9)
    return found


async def push(metadata: LmdbMetadata, repository: Any, tag: str, at: float = 1.0) -> None:
    """Push an image."""
    await metadata.registry.put_manifest(
        repository,
        parsed(image(EMPTY)),
        [Tag(tag)],
        inline=True,
        allow_sparse=True,
        act=ACT._replace(at=at),
    )


async def fan_out(metadata: LmdbMetadata, *, limit: int = 100, window: int = 100) -> None:
    """Make deliveries until there is nothing to be made."""
    while await metadata.webhooks.fan_out(limit=limit, window=window):
        pass


def told(metadata: LmdbMetadata, hook: Webhook) -> list[str]:
    """Return where the bodies of all deliveries of a webhook point, the oldest first."""
    found = metadata.webhooks.deliveries(hook.id, offset=0, limit=1000)
    return [it.body.decode().partition('"tag":"')[2].partition('"')[0] for it in reversed(found)]


async def refused(code: Code, call: Awaitable[object]) -> None:
    """Assert that a call is refused with that code."""
    with pytest.raises(Refusal) as refusal:
        await call
    assert code is refusal.value.code


async def test_a_backlog_begins_with_the_oldest_thing_that_was_not_told(
    metadata: LmdbMetadata,
) -> None:
    """Whether it waits as a delivery or is none yet; what was told, or is for others, is none."""
    hook = await made(metadata)
    idle = await made(metadata, project_id=OTHER.id)

    def backlog(of: Webhook) -> tuple[int, float | None]:
        found = metadata.webhooks.backlogs(after="", limit=9)
        assert [it.webhook_id for it in found] == sorted([hook.id, idle.id])
        [it] = [it for it in found if it.webhook_id == of.id]
        return it.pending, it.since

    assert backlog(hook) == (0, None)
    await push(metadata, APP, "one", at=5.0)
    assert backlog(hook) == (0, 5.0)
    await push(metadata, TOOL, "two", at=6.0)
    await fan_out(metadata)
    assert backlog(hook) == (2, 5.0)
    numbers = sorted(it.number for it in metadata.webhooks.due())
    await metadata.webhooks.record_attempt(hook.id, numbers[0], DONE, None)
    assert backlog(hook) == (1, 6.0)
    await metadata.webhooks.record_attempt(hook.id, numbers[1], DONE, None)
    assert backlog(hook) == (0, None) == backlog(idle)
    [first, second] = sorted([hook.id, idle.id])
    assert [it.webhook_id for it in metadata.webhooks.backlogs(after=first, limit=9)] == [second]


async def test_a_webhook_is_told_of_its_project_from_its_beginning(metadata: LmdbMetadata) -> None:
    """Each event once, in order, and neither what was before nor what is another project's."""
    await push(metadata, APP, "before")
    hook, foreign = await made(metadata), await made(metadata, project_id=OTHER.id)
    for number in range(5):
        await push(metadata, APP, f"v{number}")
    await push(metadata, FOREIGN, "foreign")
    await fan_out(metadata, limit=2)
    await fan_out(metadata)

    assert [f"v{number}" for number in range(5)] == told(metadata, hook)
    assert ["foreign"] == told(metadata, foreign)


async def test_what_happens_while_it_is_off_is_never_told(metadata: LmdbMetadata) -> None:
    """Switched on again, it begins with what happens then."""
    hook = await made(metadata)
    await metadata.webhooks.update_webhook(hook.id, lambda it: replace(it, is_active=False))
    await push(metadata, APP, "off")
    await fan_out(metadata)
    await metadata.webhooks.update_webhook(hook.id, lambda it: replace(it, is_active=True))
    await push(metadata, APP, "on")
    await fan_out(metadata)

    assert ["on"] == told(metadata, hook)


async def test_only_so_many_wait_as_deliveries(metadata: LmdbMetadata) -> None:
    """The rest waits as events, and follows when there is room."""
    hook = await made(metadata)
    for number in range(9):
        await push(metadata, APP, f"v{number}")
    await fan_out(metadata, limit=2, window=4)
    assert 4 == metadata.webhooks.statistics(hook.id).pending

    while due := metadata.webhooks.due():
        await metadata.webhooks.record_attempt(hook.id, due[0].number, DONE, None)
        await fan_out(metadata, limit=2, window=4)
    counted = metadata.webhooks.statistics(hook.id)
    assert (0, 9, 9) == (counted.pending, counted.delivered, counted.attempts)
    assert [f"v{number}" for number in range(9)] == told(metadata, hook)


async def test_what_is_first_of_each_repository_is_due(metadata: LmdbMetadata) -> None:
    """What stands behind it comes up once it is over, whatever comes of it."""
    hook = await made(metadata)
    for tag in ("one", "two"):
        await push(metadata, APP, tag)
        await push(metadata, TOOL, tag)
    await fan_out(metadata)
    first = {it.number for it in metadata.webhooks.due()}
    assert {1, 2} == first

    await metadata.webhooks.record_attempt(hook.id, 1, VAIN, 99.0)
    assert {1: 99.0, 2: 1.0} == {it.number: it.at for it in metadata.webhooks.due()}
    await metadata.webhooks.record_attempt(hook.id, 1, VAIN, None)
    assert {2, 3} == {it.number for it in metadata.webhooks.due()}
    await metadata.webhooks.record_attempt(hook.id, 1, DONE, None)  # it is over, and stays so
    delivery = metadata.webhooks.delivery_numbered(hook.id, 1)
    assert delivery is not None
    assert ("failed", 2, "timed out") == (delivery.status, delivery.attempts, delivery.error)


async def test_deliveries_are_trimmed(metadata: LmdbMetadata) -> None:
    """What is old or too much goes, the oldest first, and never what is still to be sent."""
    hook = await made(metadata)
    for number in range(6):
        await push(metadata, APP, f"v{number}", at=float(number))
    await fan_out(metadata)
    for number in range(1, 6):
        await metadata.webhooks.record_attempt(hook.id, number, DONE, None)
    await metadata.webhooks.trim_deliveries(keep=100, before=2.0)
    assert ["v2", "v3", "v4", "v5"] == told(metadata, hook)
    await metadata.webhooks.trim_deliveries(keep=2, before=0.0)
    assert ["v4", "v5"] == told(metadata, hook)
    await metadata.webhooks.trim_deliveries(keep=0, before=99.0)
    assert ["v5"] == told(metadata, hook)
    assert 1 == metadata.webhooks.statistics(hook.id).kept


async def test_events_are_trimmed_when_they_were_told(metadata: LmdbMetadata) -> None:
    """Old ones and too many go, but none that a webhook with room is yet to be told of."""
    hook = await made(metadata)
    for number in range(6):
        await push(metadata, APP, f"v{number}", at=float(number))

    def kept() -> list[str]:
        return [it.event.tag for it in metadata.events.events(after=0, limit=99)]

    await metadata.webhooks.trim_events(keep=1, before=99.0, window=10)
    assert 6 == len(kept())
    await fan_out(metadata)
    await metadata.webhooks.trim_events(keep=99, before=2.0, window=10)
    assert ["v2", "v3", "v4", "v5"] == kept()
    await metadata.webhooks.trim_events(keep=1, before=0.0, window=10)
    assert ["v5"] == kept()
    assert [f"v{number}" for number in range(6)] == told(metadata, hook)
    assert 6 == metadata.events.last_number()


async def test_a_webhook_ends_with_its_project(metadata: LmdbMetadata) -> None:
    """With its deliveries and all that was to be sent; those of others stay."""
    hook, foreign = await made(metadata), await made(metadata, project_id=OTHER.id)
    await push(metadata, APP, "v1")
    await push(metadata, FOREIGN, "v1")
    await fan_out(metadata)
    while not await metadata.projects.delete_project(LIBRARY.id, force=True, limit=100):
        pass

    assert metadata.webhooks.webhook(hook.id) is None
    assert not metadata.webhooks.deliveries(hook.id, offset=0, limit=9)
    assert {foreign.id} == {it.webhook_id for it in metadata.webhooks.due()}
    assert [foreign] == list(metadata.webhooks.every_webhook(after="", limit=9))


async def test_a_project_has_only_so_many(metadata: LmdbMetadata) -> None:
    """One too many is refused, and so is one of a project that is not there."""
    for _ in range(2):
        await metadata.webhooks.create_webhook(webhook(), limit=2)
    again = metadata.webhooks.create_webhook(webhook(), limit=2)
    await refused(Code.NOT_IN_THIS_STATE, again)
    nowhere = webhook(project_id=str(uuid.uuid4()))
    await refused(Code.PROJECT_NOT_FOUND, metadata.webhooks.create_webhook(nowhere, limit=2))


async def test_what_is_not_there_is_told_apart(metadata: LmdbMetadata) -> None:
    """Any text may be asked for; a delivery is found by its own webhook alone."""
    hook, other = await made(metadata), await made(metadata)
    await push(metadata, APP, "v1")
    await fan_out(metadata)
    (delivery,) = metadata.webhooks.deliveries(hook.id, offset=0, limit=9)
    for text in ("", "x" * 1000, "../x", str(uuid.uuid4())):
        assert metadata.webhooks.webhook(text) is None
        assert metadata.webhooks.delivery(hook.id, text) is None
        assert metadata.webhooks.delivery(text, delivery.id) is None
        await refused(Code.WEBHOOK_NOT_FOUND, metadata.webhooks.delete_webhook(text))
    anew = metadata.webhooks.deliver_anew(other.id, delivery.id, at=1.0)
    await refused(Code.DELIVERY_NOT_FOUND, anew)
    assert delivery == metadata.webhooks.delivery(hook.id, delivery.id)
