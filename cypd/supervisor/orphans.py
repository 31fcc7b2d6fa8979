"""Processes of others that were left to the first process of a container."""

import asyncio
import os
from collections.abc import Callable, Collection

_SECONDS = 5.0  # between two looks: an orphan that has ended costs a process id


async def reap(ours: Callable[[], Collection[int]]) -> None:
    """Wait for every child that is none of ``ours``, over and over, until it is cancelled.

    A scan whose worker was killed goes to process 1 of its pid namespace, and stays a zombie until
    that has waited for it (pid_namespaces(7)).
    """
    while True:
        await asyncio.sleep(_SECONDS)
        _reap(ours())


def _reap(ours: Collection[int]) -> None:
    while (pid := _ended()) is not None and pid not in ours:
        os.waitpid(pid, 0)


def _ended() -> int | None:
    """Return the first child that has ended; it stays one that may be waited for."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if found is None else found.si_pid
