"""The reference model: the contracts of the stores in the plainest Python there is.

LMDB is held against it by a state machine in the tests, so what is written here is the meaning.
"""

import time
from collections.abc import Callable

from cypd.metadata.memory.accounts import MemoryAccounts
from cypd.metadata.memory.inventory import MemoryInventory
from cypd.metadata.memory.projects import MemoryProjects
from cypd.metadata.memory.registry import MemoryRegistry
from cypd.metadata.memory.state import State


class MemoryMetadata:
    """Everything in dictionaries; gone with the process."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        state = State(clock=clock)
        self.registry = MemoryRegistry(state)
        self.inventory = MemoryInventory(state)
        self.projects = MemoryProjects(state)
        self.accounts = MemoryAccounts()


__all__ = ["MemoryMetadata"]
