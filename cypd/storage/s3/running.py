"""A running SHA-2 whose state can be written down, and gone on with by another process.

``hashlib`` keeps its state to itself. The library below it does not: a ``SHA256_CTX`` is a plain
structure without pointers (openssl/sha.h), the same since 1998, so a copy of its bytes is a copy of
the hash. It is taken from the very libcrypto that ``hashlib`` has loaded; where there is none, or
where it fails a look at its results, ``hashlib`` does the work and there is no state to write down.
"""

import ctypes
import hashlib
from typing import Any, Self

from cypd.oci.digest import Algorithm, hasher
from cypd.storage.staged import RunningHash

# sizeof(SHA256_CTX) and sizeof(SHA512_CTX) on every platform with int of 32 bits.
_STATE_BYTES = {"sha256": 112, "sha512": 216}


class _Functions:
    """The functions of one algorithm."""

    def __init__(self, library: ctypes.CDLL, algorithm: Algorithm) -> None:
        name = algorithm.upper()
        self.init = getattr(library, f"{name}_Init")
        self.update = getattr(library, f"{name}_Update")
        self.update.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
        self.final = getattr(library, f"{name}_Final")
        self.digest_bytes = hashlib.new(algorithm).digest_size
        self.state_bytes = _STATE_BYTES[algorithm]


class ResumableHash:
    """As much of a ``hashlib`` object as uploads need, with its state."""

    __slots__ = ("_functions", "_state")

    def __init__(self, functions: _Functions, state: bytes | None = None) -> None:
        self._functions = functions
        self._state = ctypes.create_string_buffer(functions.state_bytes)
        if state is None:
            functions.init(self._state)
        else:
            self._state.raw = state

    @property
    def state(self) -> bytes:
        """All there is to go on with."""
        return self._state.raw

    def copy(self) -> Self:
        """Return another one that has seen the same bytes."""
        return type(self)(self._functions, self.state)

    def update(self, data: bytes | memoryview) -> None:
        """Hash more bytes; other threads run meanwhile."""
        if isinstance(data, memoryview) and data.readonly:
            data = bytes(data)
        view: Any = (
            data if isinstance(data, bytes) else (ctypes.c_char * len(data)).from_buffer(data)
        )
        self._functions.update(self._state, view, len(data))

    def hexdigest(self) -> str:
        """Return the hash of all bytes so far, in hex."""
        result = ctypes.create_string_buffer(self._functions.digest_bytes)
        # SHA256_Final wipes the state it is given.
        self._functions.final(result, ctypes.create_string_buffer(self.state))
        return result.raw.hex()


def _load() -> dict[str, _Functions]:
    """Return the functions that work; dlsym(3) also looks in what a library was linked with."""
    try:
        import _hashlib  # noqa: PLC0415 (built without OpenSSL, an interpreter has none)

        library = ctypes.CDLL(_hashlib.__file__)
        found = {name: _Functions(library, name) for name in ("sha256", "sha512")}
    except (ImportError, OSError, AttributeError):
        return {}
    return {name: it for name, it in found.items() if _is_right(name, it)}


def _is_right(algorithm: str, functions: _Functions) -> bool:
    first, second = b"a" * 100, b"b" * 200
    begun = ResumableHash(functions)
    begun.update(first)
    resumed = ResumableHash(functions, begun.state)
    resumed.update(second)
    return resumed.hexdigest() == hashlib.new(algorithm, first + second).hexdigest()


_FUNCTIONS = _load()


def running_hash(algorithm: Algorithm, state: bytes | None = None) -> RunningHash:
    """Return a running hash, gone on with from a state if there is one."""
    if functions := _FUNCTIONS.get(algorithm):
        return ResumableHash(functions, state)
    return hasher(algorithm)


def state_of(running: RunningHash) -> bytes | None:
    """Return what ``running_hash`` can go on from, in any process; ``None`` if there is nothing."""
    return running.state if isinstance(running, ResumableHash) else None


def is_resumable(algorithm: Algorithm, state: bytes) -> bool:
    """Tell whether ``running_hash`` can go on from the state."""
    functions = _FUNCTIONS.get(algorithm)
    return functions is not None and len(state) == functions.state_bytes
