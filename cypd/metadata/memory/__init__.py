"""The reference model: the contracts of the stores in the plainest Python there is.

LMDB is held against it by a state machine in the tests, so what is written here is the meaning.
"""

from cypd.metadata.memory.accounts import MemoryAccounts
from cypd.metadata.memory.registry import MemoryRegistry


class MemoryMetadata:
    """Everything in dictionaries; gone with the process."""

    def __init__(self) -> None:
        self.registry = MemoryRegistry()
        self.accounts = MemoryAccounts()


__all__ = ["MemoryMetadata"]
