"""The reference model: the contracts of the stores in the plainest Python there is.

LMDB is held against it by a state machine in the tests, so what is written here is the meaning.
"""

from cypd.metadata.memory.accounts import MemoryAccounts
from cypd.metadata.memory.projects import MemoryProjects
from cypd.metadata.memory.registry import MemoryRegistry
from cypd.metadata.memory.state import State


class MemoryMetadata:
    """Everything in dictionaries; gone with the process."""

    def __init__(self) -> None:
        state = State()
        self.registry = MemoryRegistry(state)
        self.projects = MemoryProjects(state)
        self.accounts = MemoryAccounts()


__all__ = ["MemoryMetadata"]
