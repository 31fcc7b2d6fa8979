"""Run a coroutine at once; make a task only if it really waits."""

import asyncio
import contextvars
import types
from collections.abc import Coroutine, Generator
from typing import Any


@types.coroutine
def _carry_on(coroutine: Coroutine[Any, Any, object], awaited: Any) -> Generator[Any, Any, None]:
    """Drive a coroutine that has already run up to its first wait, ``awaited``.

    A task that runs this sees ``awaited`` as if the coroutine had just yielded it. What the task
    throws in (cancellation) reaches the coroutine where it stands.
    """
    while True:
        try:
            yield awaited
        except BaseException as error:  # noqa: BLE001 - handed on, not handled
            try:
                awaited = coroutine.throw(error)
            except StopIteration:
                return
        else:
            yield from coroutine
            return


def run_eagerly(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, object]
) -> asyncio.Task[None] | None:
    """Run ``coroutine`` in a context of its own; returns the task that finishes it, if any.

    Up to its first real wait there is no task: ``asyncio.current_task()`` is None there.
    """
    context = contextvars.copy_context()
    try:
        awaited = context.run(coroutine.send, None)
    except (StopIteration, asyncio.CancelledError):  # a task would swallow the second, too
        return None
    return loop.create_task(_carry_on(coroutine, awaited), context=context)


def run_as_task(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, None]
) -> asyncio.Task[None]:
    """Run ``coroutine`` as asyncio does, for applications that look at the current task."""
    return loop.create_task(coroutine, context=contextvars.copy_context())
